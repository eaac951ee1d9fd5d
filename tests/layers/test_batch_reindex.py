"""BatchReindex."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
TEXT = 'type: "BatchReindex"'


@pytest.mark.parametrize("index", [[2, 0, 2, 2, 1], [1], []])
@pytest.mark.parametrize("item", [(), (2,), (2, 1, 2)])
def test_gradient(index, item):
    x = rng.standard_normal((3, *item))
    check_gradients(TEXT, [x, np.array(index, float)], check_bottoms=[0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=8), st.integers(0, 3))
def test_agrees_with_indexing(index, columns):
    x = rng.standard_normal((4, columns)).astype(np.float32)
    layer, bottom, top = make_layer(TEXT, [x, np.array(index, np.float32)], dtype=np.float32)
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, x[np.array(index, int)])
    top[0].grad[...] = dy = rng.standard_normal(top[0].shape)
    layer.backward(top, [True, False], bottom)
    expected = np.zeros_like(x)
    for k, row in zip(index, dy):
        expected[k] += row
    np.testing.assert_allclose(bottom[0].grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", [3, -1, np.nan, np.inf, 1e20])
def test_a_wrong_index_is_named(index):
    layer, bottom, top = make_layer(TEXT, [np.zeros((3, 2)), [0, index]])
    with pytest.raises(LayerError, match=r"\(BatchReindex\).*from 0 to 2, found .* at position 1"):
        layer.forward(bottom, top)


def test_errors():
    with pytest.raises(LayerError, match=r"indices of shape \(K,\).*found shape \(3, 1\)"):
        make_layer(TEXT, [np.zeros((3, 2)), np.zeros((3, 1))])
    layer, bottom, top = make_layer(TEXT, [np.zeros((3, 2)), np.zeros(3)])
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match=r"bottom 1 .the indices.*There is none"):
        layer.backward(top, [True, True], bottom)
