"""Concat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def blobs(axis, sizes, shape=(2, 3, 2)):
    return [rng.standard_normal((*shape[:axis], n, *shape[axis + 1 :])) for n in sizes]


@pytest.mark.parametrize(
    "param, axis",
    [("", 1), ("axis: 0", 0), ("axis: -1", 2), ("concat_dim: 0", 0), ("concat_dim: 2", 2)],
)
def test_values_and_gradients(param, axis):
    text, arrays = f'type: "Concat" concat_param {{ {param} }}', blobs(axis, [1, 3, 2])
    layer, bottom, top = make_layer(text, arrays)
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, np.concatenate(arrays, axis))
    check_gradients(text, arrays)


def test_a_single_bottom_is_shared():
    layer, bottom, top = make_layer('type: "Concat"', blobs(1, [2]))
    assert np.shares_memory(top[0].array, bottom[0].array)
    assert np.shares_memory(top[0].grad, bottom[0].grad)
    check_gradients_of_shared(layer, bottom, top)


def check_gradients_of_shared(layer, bottom, top):
    top[0].grad[...] = 3
    layer.backward(top, [True], bottom)
    assert (bottom[0].grad == 3).all()


def test_only_wanted_gradients_are_assigned():
    layer, bottom, top = make_layer('type: "Concat"', blobs(1, [1, 2]))
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    bottom[0].grad[...] = 7
    layer.backward(top, [False, True], bottom)
    assert (bottom[0].grad == 7).all() and (bottom[1].grad == 1).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_odd_shapes(axis, sizes):
    arrays = blobs(axis, sizes, (2, 1, 3, 2))
    layer, bottom, top = make_layer(
        f'type: "Concat" concat_param {{ axis: {axis} }}', arrays, dtype=np.float32
    )
    layer.forward(bottom, top)
    expected = np.concatenate(arrays, axis).astype(np.float32)
    np.testing.assert_array_equal(top[0].array, expected)


def test_errors():
    with pytest.raises(LayerError, match=r"\(Concat\).*\(2, 3\) for bottom 0 and \(3, 3\).*Check"):
        make_layer('type: "Concat"', [np.zeros((2, 3)), np.zeros((3, 3))])
    with pytest.raises(LayerError, match=r"\(2, 3\) for bottom 0 and \(2,\) for bottom 1"):
        make_layer('type: "Concat"', [np.zeros((2, 3)), np.zeros(2)])
    with pytest.raises(LayerError, match=r"both\. Keep axis"):
        make_layer('type: "Concat" concat_param { axis: 1 concat_dim: 1 }', [np.zeros((2, 3))])
    with pytest.raises(LayerError, match=r"an axis in \[-2, 1\]"):
        make_layer('type: "Concat" concat_param { concat_dim: 2 }', [np.zeros((2, 3))])
