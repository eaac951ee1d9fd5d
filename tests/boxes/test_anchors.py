"""Anchors and their grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_boxes import golden

from demitasse.boxes.anchors import generate_anchors, shift_anchors


@pytest.mark.parametrize("case", range(5))
def test_reference_numbers(case):
    z = golden("generate_anchors")
    base, ratios, scales, out = (z[f"{case}/{k}"] for k in ("base_size", "ratios", "scales", "out"))
    found = generate_anchors(int(base), ratios, scales)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, out)


def test_the_defaults_are_those_of_the_paper():
    np.testing.assert_array_equal(generate_anchors(), golden("generate_anchors")["0/out"])


@given(st.integers(1, 5), st.integers(1, 6), st.sampled_from([4, 16, 0.5]), st.integers(1, 3))
def test_the_grid_agrees_with_loops(height, width, stride, count):
    anchors = np.random.default_rng(count).normal(size=(count, 4))
    found = shift_anchors(anchors, height, width, stride)
    expected = [
        anchors[a] + [x * stride, y * stride] * 2
        for y in range(height)
        for x in range(width)
        for a in range(count)
    ]
    np.testing.assert_array_equal(found, expected)


def test_a_map_without_positions():
    assert shift_anchors(generate_anchors(), 0, 3, 16).shape == (0, 4)
