"""Scale."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 2))


def _text(options=""):
    return f'name: "s" type: "Scale" scale_param {{ {options} }}'


# (options, shape of the scale, the same with ones to broadcast)
CASES = [
    ("", (3,), (3, 1, 1)),
    ("axis: 0", (2,), (2, 1, 1, 1)),
    ("axis: -1", (2,), (2,)),
    ("axis: 0 num_axes: 2", (2, 3), (2, 3, 1, 1)),
    ("axis: 1 num_axes: 2", (3, 4), (3, 4, 1)),
    ("axis: 1 num_axes: -1", (3, 4, 2), (3, 4, 2)),
    ("axis: 0 num_axes: -1", (2, 3, 4, 2), (2, 3, 4, 2)),
    ("num_axes: 0", (), ()),
]


@pytest.mark.parametrize(("options", "shape", "broadcast"), CASES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("two_bottoms", [False, True])
def test_values_and_gradient(options, shape, broadcast, bias, two_bottoms):
    s, b = RNG.normal(size=(2, *shape))
    if bias:
        options += " bias_term: true"
    bottoms = [X, s] if two_bottoms else [X]
    params = ([] if two_bottoms else [s]) + ([b] if bias else [])
    expected = X * s.reshape(broadcast) + (b.reshape(broadcast) if bias else 0)
    for in_place in (False, True):
        layer, bottom, top = make_layer(_text(options), bottoms, in_place=in_place)
        assert [blob.shape for blob in layer.blobs] == [p.shape for p in params]
        for blob, values in zip(layer.blobs, params):
            blob.set_data(values)
        layer.forward(bottom, top)
        np.testing.assert_allclose(top[0].array, expected, rtol=1e-12)
        check_gradients(_text(options), bottoms, params=params, in_place=in_place)


def test_fillers():
    layer, _, _ = make_layer(_text("bias_term: true"), [X])
    assert (layer.blobs[0].data == 1).all() and (layer.blobs[1].data == 0).all()
    options = "filler { value: 2 } bias_term: true bias_filler { value: 3 }"
    layer, _, _ = make_layer(_text(options), [X])
    assert (layer.blobs[0].data == 2).all() and (layer.blobs[1].data == 3).all()


def test_float32():
    layer, bottom, top = make_layer(_text("bias_term: true"), [X], dtype=np.float32)
    layer.blobs[0].data[...] = [1, 2, 3]
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    np.testing.assert_allclose(layer.blobs[0].grad, X.sum(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(layer.blobs[1].grad, np.full(3, 16.0))
    np.testing.assert_allclose(bottom[0].grad[0, :, 0, 0], [1, 2, 3])


def test_only_what_is_asked_for():
    layer, bottom, top = make_layer(_text("bias_term: true"), [X])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    bottom[0].grad[...] = 7
    layer.param_propagate_down[:] = [False, True]
    layer.backward(top, [False], bottom)
    assert (bottom[0].grad == 7).all()
    assert (layer.blobs[0].grad == 0).all() and (layer.blobs[1].grad == 16).all()


@pytest.mark.parametrize(
    ("options", "bottoms", "message"),
    [
        ("axis: 4", [X], r"an axis in \[-4, 3\]"),
        ("axis: 2 num_axes: 3", [X], "num_axes from -1 to 2"),
        ("num_axes: -2", [X], "num_axes from -1 to 3"),
        ("axis: 1", [X, np.ones(2)], r"coefficients of shape \(3,\)"),
        ("axis: 3", [X, np.ones((2, 1))], "from axis 3"),
    ],
)
def test_errors(options, bottoms, message):
    with pytest.raises(LayerError, match=r"layer 's' \(Scale\): expected .*" + message):
        make_layer(_text(options), bottoms)


def test_second_bottom_may_not_outgrow_the_bias():
    layer, bottom, top = make_layer(_text("bias_term: true"), [X, np.ones(3)])
    bottom[0].reshape(2, 5, 1, 1)
    bottom[1].reshape(5)
    with pytest.raises(LayerError, match=r"the bias's shape \(3,\)"):
        layer.reshape(bottom, top)


def test_zero_images():
    layer, bottom, top = make_layer(_text("bias_term: true"), [np.ones((0, 3, 2))])
    layer.forward(bottom, top)
    layer.backward(top, [True], bottom)
    assert top[0].shape == (0, 3, 2) and (layer.blobs[0].grad == 0).all()


def test_input_is_not_copied_in_a_net_that_only_runs_forward():
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "s" type: "Scale" bottom: "x" top: "x" scale_param { filler { value: 2 } } }
    """
    net = Net(parse_text(text, caffe_pb2.NetParameter, "test"), phase=caffe_pb2.TEST)
    net.blobs["x"].data[...] = 2
    net.forward()
    assert (net.blobs["x"].data == 4).all()
    assert net.nodes[1].layer.kept.count == 0
