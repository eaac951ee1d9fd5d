"""What layers of a net without weights begin with."""

import numpy as np
import pytest

from demitasse.detection.initialization import pass_on_parts
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [2, 3, {0}, {1}] }} }} }}
layer {{ name: "fc6" type: "InnerProduct" bottom: "x" top: "fc6" inner_product_param {{ num_output: 27 }} }}
layer {{ name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }}
layer {{ name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7" inner_product_param {{ num_output: 27 }} }}
layer {{ name: "relu7" type: "ReLU" bottom: "fc7" top: "fc7" }}
layer {{ name: "score" type: "InnerProduct" bottom: "fc7" top: "score" inner_product_param {{ num_output: 27 }} }}
"""  # noqa: E501


def parts(x):
    """What units are to pass on of features (N, C, 7, 7), part by part, each (N, C)."""
    left, right, top, bottom = x[..., :2], x[..., 5:], x[..., :2, :], x[..., 5:, :]
    centre, upright, level = x[..., 2:5, 2:5], x[..., 2:5], x[..., 2:5, :]
    every = (x, left, right, top, bottom, centre, upright, level)
    return [part.mean(axis=(2, 3)) for part in every]


def test_hidden_units_pass_on_means_of_parts():
    net = Net(parse_text(NET.format(7, 7), caffe_pb2.NetParameter), caffe_pb2.TEST)
    pass_on_parts(net, {"fc6", "fc7", "score"})
    x = np.random.default_rng(0).uniform(size=(2, 3, 7, 7))
    net.blobs["x"].data[...] = x
    net.forward()
    expected = parts(x)
    expected = np.concatenate([*expected, expected[0]], axis=1)  # 27 units, of 8 parts of 3
    for blob in ("fc6", "fc7"):
        np.testing.assert_allclose(net.blobs[blob].data, expected, rtol=1e-5)
    assert not net.blobs["score"].data.any()  # no ReLU behind it


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6), (1, 9), (3, 2)])
def test_parts_of_any_size_are_means(size):
    net = Net(parse_text(NET.format(*size), caffe_pb2.NetParameter), caffe_pb2.TEST)
    pass_on_parts(net, {"fc6"})
    np.testing.assert_allclose(net.params["fc6"][0].data.sum(axis=1), 1, rtol=1e-5)
    assert not net.params["fc7"][0].data.any()


def test_hidden_convolutions_pass_on_the_centre_of_their_window():
    text = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3, 4, 5] } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 7 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TEST)
    pass_on_parts(net, {"c"})
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 5)).astype(np.float32)
    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["c"].data, x[:, [0, 1, 2, 0, 1, 2, 0]], rtol=1e-6)


def test_what_the_filler_drew_stays_but_for_its_mean():
    text = NET.format(7, 7).replace(
        "num_output: 27", "num_output: 27 weight_filler { type: 'gaussian' }", 1
    )
    net = Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TEST)
    drawn = net.params["fc6"][0].data.copy()
    pass_on_parts(net, {"fc6"})
    changed = net.params["fc6"][0].data - (drawn - drawn.mean(axis=1, keepdims=True))
    assert np.count_nonzero(np.abs(changed) > 1e-4) < 27 * 49 + 1
    np.testing.assert_allclose(changed.sum(axis=1), 1, rtol=1e-4)
