"""Reshape."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer

rng = np.random.default_rng(0)


def text(dims, rest=""):
    dims = " ".join(f"dim: {d}" for d in dims)
    return f'type: "Reshape" reshape_param {{ shape {{ {dims} }} {rest} }}'


@pytest.mark.parametrize(
    "shape, dims, rest, expected",
    [
        ((2, 8), [2, 2, 4], "", (2, 2, 4)),
        ((2, 8), [0, 2, 4], "", (2, 2, 4)),
        ((2, 8), [0, 2, -1], "", (2, 2, 4)),
        ((2, 8), [0, -1, 4], "", (2, 2, 4)),
        ((2, 8), [2, 4], "axis: 1", (2, 2, 4)),
        ((2, 8), [2, 4], "axis: -2", (2, 2, 4)),  # before the last axis
        ((2, 8), [1], "axis: -1", (2, 8, 1)),  # behind it
        ((2, 8), [1], "axis: 0 num_axes: 0", (1, 2, 8)),
        ((2, 8), [1, 1], "axis: 1 num_axes: 0", (2, 1, 1, 8)),
        ((2, 8, 3), [4, -1], "axis: 1 num_axes: 1", (2, 4, 2, 3)),
        ((2, 8, 3), [16], "axis: 0 num_axes: 2", (16, 3)),
        ((2, 8, 3), [0, -1], "axis: 1", (2, 8, 3)),
        ((2, 1, 3), [0, 0], "axis: 1 num_axes: 2", (2, 1, 3)),
        ((1, 18, 4, 5), [0, 2, -1, 0], "", (1, 2, 36, 5)),  # Faster R-CNN's rpn_cls_score
        ((6,), [-1], "", (6,)),
        ((1, 1), [], "", ()),
        ((), [1, 1], "", (1, 1)),
        ((0, 12), [0, 3, -1], "", (0, 3, 4)),  # no items
        ((0, 12), [-1, 12], "", (0, 12)),
        ((0, 12), [-1], "", (0,)),
    ],
)
def test_shapes_and_memory(shape, dims, rest, expected):
    x = rng.standard_normal(shape)
    layer, bottom, top = make_layer(text(dims, rest), [x])
    layer.forward(bottom, top)
    assert top[0].shape == expected
    np.testing.assert_array_equal(top[0].array, x.reshape(expected))
    top[0].grad[...] = dy = rng.standard_normal(expected)
    layer.backward(top, [True], bottom)
    np.testing.assert_array_equal(bottom[0].grad, dy.reshape(shape))


@pytest.mark.parametrize(
    "dims, rest, message",
    [
        ([-1, -1], "", r"at most one -1.*found \[-1, -1\]"),
        ([-2, 8], "", r"found \[-2, 8\]"),
        ([3, 5], "", r"16 elements of bottom shape \(2, 8\), found \[3, 5\].*Correct"),
        ([3, -1], "", r"found \[3, -1\]"),
        ([2, 8, 0], "", r"a bottom axis to copy, found \[2, 8, 0\]"),
        ([1], "axis: 3", r"axis in \[-3, 2\].*found axis 3"),
        ([1], "axis: -4", "found axis -4"),
        ([1], "axis: 1 num_axes: 2", "found axis 1 and num_axes 2"),
        ([1], "num_axes: -2", "num_axes -2"),
    ],
)
def test_errors(dims, rest, message):
    with pytest.raises(LayerError, match=rf"'layer' \(Reshape\).*{message}"):
        make_layer(text(dims, rest), [np.zeros((2, 8))])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_factorization_with_one_dimension_inferred(shape, random):
    expected = list(shape)
    random.shuffle(expected)
    dims = list(expected)
    dims[random.randrange(len(dims))] = -1
    _, _, top = make_layer(text(dims), [np.zeros(shape)])
    assert top[0].shape == tuple(expected)
    assert top[0].count == math.prod(shape)
