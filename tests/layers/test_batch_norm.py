"""BatchNorm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(3, 2, 2, 2))


def _text(options=""):
    return f'name: "bn" type: "BatchNorm" batch_norm_param {{ {options} }}'


def _normalised(x, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(4, 2), (3, 2, 2), (3, 2, 2, 2), (2, 1, 2, 1, 2), (5,)])
def test_gradient_by_batch_statistics(shape, in_place):
    x = RNG.normal(2, 3, size=shape)
    check_gradients(_text("eps: 0.01"), [x], in_place=in_place, check_params=[])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("options", "phase"), [("", TEST), ("use_global_stats: true", TRAIN)])
def test_gradient_by_stored_statistics(options, phase, in_place):
    params = [np.array([1.0, -4.0]), np.array([2.0, 9.0]), np.array([2.0])]
    check_gradients(
        _text(options), [X], params=params, phase=phase, in_place=in_place, check_params=[]
    )


@pytest.mark.parametrize("in_place", [False, True])
def test_train(in_place):
    layer, bottom, top = make_layer(
        _text("moving_average_fraction: 0.5 eps: 0.1"), [X], in_place=in_place
    )
    start = [[1.0, 2.0], [3.0, 4.0], [2.0]]
    for blob, values in zip(layer.blobs, start):
        blob.data[...] = values
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, _normalised(X, 0.1), rtol=1e-9)
    mean, variance = X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3)) * 12 / 11
    fraction = 0.5
    np.testing.assert_allclose(layer.blobs[0].data, fraction * np.array(start[0]) + mean)
    np.testing.assert_allclose(layer.blobs[1].data, fraction * np.array(start[1]) + variance)
    np.testing.assert_allclose(layer.blobs[2].data, [2.0])


def test_stored_statistics():
    layer, bottom, top = make_layer(_text(), [X], phase=TEST)
    for blob, values in zip(layer.blobs, ([4.0, -8.0], [2.0, 6.0], [4.0])):
        blob.data[...] = values
    layer.forward(bottom, top)
    mean, var = np.array([1.0, -2.0]).reshape(2, 1, 1), np.array([0.5, 1.5]).reshape(2, 1, 1)
    np.testing.assert_allclose(top[0].array, (X - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_array_equal(layer.blobs[2].data, [4.0])


def test_weight_0_makes_mean_and_variance_0():
    layer, bottom, top = make_layer(_text("eps: 0.25"), [X], phase=TEST)
    layer.blobs[0].data[...] = 5
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, X / 0.5)


def test_use_global_stats_false_in_test():
    layer, bottom, top = make_layer(_text("use_global_stats: false"), [X], phase=TEST)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, _normalised(X), rtol=1e-9)


def test_parameters_are_not_learned():
    layer, bottom, top = make_layer("param { lr_mult: 3 } " + _text(), [X])
    assert [spec.lr_mult for spec in layer.param.param] == [0, 0, 0]
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    assert all((blob.grad == 0).all() for blob in layer.blobs)


def test_net_does_not_run_backward_for_its_statistics():
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" param { lr_mult: 1 } }
    layer { name: "s" type: "Scale" bottom: "y" top: "z" loss_weight: 1 }
    """
    net = Net(parse_text(text, caffe_pb2.NetParameter, "test"), phase=TRAIN)
    assert [node.needs_backward for node in net.nodes] == [False, False, True]
    assert [p.lr_mult for p in net.learnable] == [0, 0, 0, 1]


def test_large_mean_does_not_cancel_the_variance():
    x = (RNG.normal(size=(8, 2, 16)) + 1e4).astype(np.float32)
    layer, bottom, top = make_layer(_text(), [x], dtype=np.float32)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, _normalised(x.astype("d")), atol=2e-3)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(0, 1000))
def test_shapes(shape, seed):
    x = np.random.default_rng(seed).normal(1, 2, size=shape)
    layer, bottom, top = make_layer(_text("eps: 0.1"), [x])
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, _normalised(x, 0.1), atol=1e-10)


def test_empty_batch_leaves_the_statistics_alone():
    layer, bottom, top = make_layer(_text(), [np.ones((0, 2, 3))])
    layer.forward(bottom, top)
    layer.backward(top, [True], bottom)
    assert top[0].shape == (0, 2, 3)
    assert all((blob.data == 0).all() for blob in layer.blobs)


def test_changed_channels():
    layer, bottom, top = make_layer(_text(), [X])
    bottom[0].reshape(3, 4, 2, 2)
    with pytest.raises(LayerError, match=r"layer 'bn' \(BatchNorm\): expected 2 channels"):
        layer.reshape(bottom, top)
