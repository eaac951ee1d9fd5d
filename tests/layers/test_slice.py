"""Slice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


@pytest.mark.parametrize(
    "param, shape, axis, points, tops",
    [
        ("", (2, 6, 2), 1, [2, 4], 3),
        ("axis: 0", (4, 3), 0, [2], 2),
        ("axis: -1 slice_point: 1 slice_point: 4", (2, 1, 6), 2, [1, 4], 3),
        ("slice_dim: 0 slice_point: 1", (3, 2), 0, [1], 2),
    ],
)
def test_values_and_gradients(param, shape, axis, points, tops):
    x = rng.standard_normal(shape)
    text = f'type: "Slice" slice_param {{ {param} }}'
    layer, bottom, top = make_layer(text, [x], num_tops=tops)
    layer.forward(bottom, top)
    for t, expected in zip(top, np.split(x, points, axis), strict=True):
        np.testing.assert_array_equal(t.array, expected)
    check_gradients(text, [x], num_tops=tops)


def test_a_single_top_is_shared():
    _, bottom, top = make_layer('type: "Slice"', [np.ones((2, 3))], num_tops=1)
    assert np.shares_memory(top[0].array, bottom[0].array)
    assert np.shares_memory(top[0].grad, bottom[0].grad)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_what_is_cut_by_points_joins_again(axis, sizes):
    shape = [2, 0, 3]
    shape[axis] = sum(sizes)
    x = rng.standard_normal(shape).astype(np.float32)
    points = " ".join(f"slice_point: {p}" for p in np.cumsum(sizes)[:-1])
    layer, bottom, top = make_layer(
        f'type: "Slice" slice_param {{ axis: {axis} {points} }}', [x], num_tops=len(sizes),
        dtype=np.float32,
    )  # fmt: skip
    layer.forward(bottom, top)
    assert [t.shape[axis] for t in top] == sizes
    np.testing.assert_array_equal(np.concatenate([t.array for t in top], axis), x)


@pytest.mark.parametrize(
    "param, tops, message",
    [
        ("", 4, "divisible by the number of tops, 4, found 6. Give slice_point"),
        ("slice_point: 2", 3, "2 slice_point for 3 tops.*found 1"),
        ("slice_point: 4 slice_point: 2", 3, r"rise from above 0 to at most 6.*\[4, 2\]"),
        ("slice_point: 0 slice_point: 2", 3, r"rise from above 0.*\[0, 2\]"),
        ("slice_point: 2 slice_point: 7", 3, r"at most 6.*\[2, 7\]"),
        ("axis: 1 slice_dim: 1", 2, "both. Keep axis"),
        ("axis: 2", 2, r"an axis in \[-2, 1\]"),
    ],
)
def test_errors(param, tops, message):
    with pytest.raises(LayerError, match=rf"'layer' \(Slice\).*{message}"):
        make_layer(f'type: "Slice" slice_param {{ {param} }}', [np.zeros((2, 6))], num_tops=tops)
