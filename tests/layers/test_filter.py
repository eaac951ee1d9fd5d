"""Filter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


@pytest.mark.parametrize("selector", [[1, 0, -2, 0.5], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_gradient(selector):
    arrays = [rng.standard_normal((4, 2)), rng.standard_normal((4, 1, 3)), np.array(selector)]
    check_gradients('type: "Filter"', arrays, check_bottoms=[0, 1], num_tops=2)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.25]), max_size=6))
def test_keeps_what_is_not_zero(selector):
    x = rng.standard_normal((len(selector), 3)).astype(np.float32)
    column = np.array(selector).reshape(-1, 1, 1)
    layer, bottom, top = make_layer('type: "Filter"', [x, column], dtype=np.float32)
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, x[[s != 0 for s in selector]])


def test_while_the_net_is_built_all_items_fit():
    _, _, top = make_layer('type: "Filter"', [np.zeros((4, 2)), np.zeros(4)])
    assert top[0].shape == (4, 2)


def test_errors():
    with pytest.raises(LayerError, match=r"'layer' \(Filter\).*2 bottoms and 2 tops"):
        make_layer('type: "Filter"', [np.zeros((4, 2)), np.zeros(4)], num_tops=2)
    with pytest.raises(LayerError, match=r"selector of shape \(N,\).*found shape \(4, 2\)"):
        make_layer('type: "Filter"', [np.zeros((4, 2)), np.zeros((4, 2))])
    with pytest.raises(LayerError, match=r"4 items.*found shape \(3, 2\) of bottom 0"):
        make_layer('type: "Filter"', [np.zeros((3, 2)), np.zeros(4)])
    layer, bottom, top = make_layer('type: "Filter"', [np.zeros((4, 2)), np.ones(4)])
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    with pytest.raises(
        LayerError, match=r"the selector.*propagate_down: true propagate_down: false"
    ):
        layer.backward(top, [True, True], bottom)
