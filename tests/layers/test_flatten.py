"""Flatten."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

rng = np.random.default_rng(0)


@pytest.mark.parametrize(
    "param, shape, expected",
    [
        ("", (2, 3, 4, 5), (2, 60)),
        ("axis: 0", (2, 3, 4), (24,)),
        ("axis: 1 end_axis: 2", (2, 3, 4, 5), (2, 12, 5)),
        ("axis: -3 end_axis: -2", (2, 3, 4, 5), (2, 12, 5)),
        ("axis: 2 end_axis: 2", (2, 3, 4), (2, 3, 4)),
        ("axis: 2 end_axis: 1", (2, 3, 4), (2, 3, 1, 4)),
        ("", (0, 3, 4), (0, 12)),
    ],
)
def test_shapes_and_memory(param, shape, expected):
    x = rng.standard_normal(shape)
    layer, bottom, top = make_layer(f'type: "Flatten" flatten_param {{ {param} }}', [x])
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, x.reshape(expected))
    top[0].grad[...] = dy = rng.standard_normal(expected)
    layer.backward(top, [True], bottom)
    np.testing.assert_array_equal(bottom[0].grad, dy.reshape(shape))


def test_errors():
    with pytest.raises(LayerError, match=r"'layer' \(Flatten\).*axis 2 and end_axis 0 for bottom"):
        make_layer('type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', [np.zeros((2, 3, 4))])
    with pytest.raises(LayerError, match=r"an axis in \[-1, 0\].*found 1"):
        make_layer('type: "Flatten"', [np.zeros(3)])


def test_gradients_pass_through_in_a_net():
    text = """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 2 } } }
        layer { name: "f" type: "Flatten" bottom: "x" top: "f" }
        layer { name: "s" type: "Reduction" bottom: "f" top: "s" loss_weight: 2
                reduction_param { operation: SUMSQ } }"""
    net = Net(parse_text(text, caffe_pb2.NetParameter, "net"))
    for shape in [(2, 3, 2), (4, 3, 3)]:
        net.blobs["x"].reshape(*shape)
        net.blobs["x"].data[...] = x = rng.standard_normal(shape)
        assert net.forward() == pytest.approx(2 * (x**2).sum(), rel=1e-5)
        net.backward()
        np.testing.assert_allclose(net.blobs["x"].diff, 4 * x, rtol=1e-6)
