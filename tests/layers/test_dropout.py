"""Dropout."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

X = np.random.default_rng(0).uniform(1, 2, (4, 5))


def _text(ratio=0.4, scale_train=True):
    flag = str(scale_train).lower()
    return f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} scale_train: {flag} }}'


@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
@pytest.mark.parametrize("scale_train", [True, False])
@pytest.mark.parametrize("in_place", [False, True])
def test_gradient(phase, scale_train, in_place):
    check_gradients(_text(0.4, scale_train), [X], phase=phase, in_place=in_place)


@pytest.mark.parametrize(("scale_train", "factor"), [(True, 1 / 0.75), (False, 1)])
def test_train(scale_train, factor):
    x = np.ones((300, 200))
    layer, bottom, top = make_layer(_text(0.25, scale_train), [x], dtype=np.float32)
    layer.forward(bottom, top)
    y = top[0].array
    assert y.dtype == np.float32
    kept = y != 0
    np.testing.assert_allclose(y[kept], factor, rtol=1e-6)
    # 60000 draws: the standard deviation of the share is 0.0018.
    assert abs(kept.mean() - 0.75) < 0.01
    assert abs(kept.mean(axis=0) - 0.75).max() < 0.15
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    np.testing.assert_array_equal(bottom[0].grad, y)  # the very mask of forward


@pytest.mark.parametrize(("scale_train", "factor"), [(True, 1), (False, 0.75)])
def test_test(scale_train, factor):
    layer, bottom, top = make_layer(_text(0.25, scale_train), [X], phase=caffe_pb2.TEST)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, X * factor, rtol=1e-12)
    top[0].array[...] = 0  # its memory is its own
    np.testing.assert_array_equal(bottom[0].array, X)


BLOBS = {  # layers after "drop", and whether its top may be its bottom
    "alone": ("", True),
    "consumed": ('layer { name: "p" type: "Power" bottom: "drop" top: "p" }', True),
    "changed in place": ('layer { name: "r" type: "Power" bottom: "drop" top: "drop" }', False),
    "split": (
        'layer { name: "p" type: "Power" bottom: "drop" top: "p" }'
        'layer { name: "q" type: "Power" bottom: "drop" top: "q" }',
        False,
    ),
    "bottom split": ('layer { name: "p" type: "Power" bottom: "a" top: "p" }', False),
}


@pytest.mark.parametrize("keep", ["all", "minimal"])
@pytest.mark.parametrize("name", BLOBS)
def test_costs_nothing_in_test(name, keep):
    layers, shared = BLOBS[name]
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 2 } }'
        f'layer {{ name: "drop" bottom: "a" top: "drop" {_text()} }}' + layers
    )
    param = parse_text(text, caffe_pb2.NetParameter)
    net = Net(param, caffe_pb2.TEST, keep=keep, kept=("a", "drop"))
    for rows in (2, 5):
        net.blobs["x"].reshape(rows, 3)
        net.blobs["x"].data[...] = rows
        net.forward()
        for blob in ("a", "drop"):
            np.testing.assert_array_equal(net.blobs[blob].data, np.full((rows, 3), 2 * rows))
        assert np.shares_memory(net.blobs["a"].data, net.blobs["drop"].data) == shared


def test_mask_depends_on_seed_pass_and_name_only():
    def mask(seed=1, name="d", passes=0):
        layer, bottom, top = make_layer(f'name: "{name}" ' + _text(), [X], seed=seed)
        layer.context.passes = passes
        layer.forward(bottom, top)
        return top[0].array != 0

    np.testing.assert_array_equal(mask(), mask())
    for other in (mask(seed=2), mask(name="e"), mask(passes=1)):
        assert (mask() != other).any()


def test_ratio_0_keeps_everything():
    layer, bottom, top = make_layer(_text(0), [X])
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, X)


@pytest.mark.parametrize("ratio", [1, -0.1, 1.5])
def test_bad_ratio(ratio):
    with pytest.raises(LayerError, match=r"layer 'd' \(Dropout\): expected .*ratio in \[0, 1\)"):
        make_layer('name: "d" ' + _text(ratio), [X])
