"""Split."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

x = np.random.default_rng(0).standard_normal((2, 3))


@pytest.mark.parametrize("tops", [1, 2, 4])
def test_gradients_are_summed(tops):
    check_gradients('type: "Split"', [x], num_tops=tops)


def test_the_tops_are_the_bottoms_memory():
    _, bottom, top = make_layer('type: "Split"', [x], num_tops=3)
    for t in top:
        assert np.shares_memory(t.array, bottom[0].array)
        assert not np.shares_memory(t.grad, bottom[0].grad)


def test_nothing_is_assigned_unless_asked():
    layer, bottom, top = make_layer('type: "Split"', [x], num_tops=2)
    bottom[0].grad[...] = 7
    layer.backward(top, [False], bottom)
    assert (bottom[0].grad == 7).all()


def test_follows_a_bottom_that_grows():
    layer, bottom, top = make_layer('type: "Split"', [x], num_tops=2)
    bottom[0].reshape(5, 4)
    bottom[0].array[...] = 3
    layer.reshape(bottom, top)
    assert top[1].shape == (5, 4)
    assert (top[1].array == 3).all()


def test_in_place_is_refused():
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "s" type: "Split" bottom: "x" top: "x" top: "y" }"""
    with pytest.raises(LayerError, match=r"layer 's' \(Split\).*both.*a name of its own"):
        Net(parse_text(text, caffe_pb2.NetParameter, "net"))
