"""The layers that apply one function to every element."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def _elu(x, alpha):
    return x if x > 0 else alpha * (math.exp(x) - 1)


# name: (layer, the function of one number, its kinks)
CASES = {
    "AbsVal": ('type: "AbsVal"', abs, 0),
    "BNLL": ('type: "BNLL"', lambda x: math.log(1 + math.exp(x)), None),
    "Clip": (
        'type: "Clip" clip_param { min: -0.5 max: 0.75 }',
        lambda x: max(-0.5, min(x, 0.75)),
        (-0.5, 0.75),
    ),
    "ELU": ('type: "ELU"', lambda x: _elu(x, 1), 0),
    "ELU alpha": ('type: "ELU" elu_param { alpha: 0.25 }', lambda x: _elu(x, 0.25), 0),
    "ELU alpha 0": ('type: "ELU" elu_param { alpha: 0 }', lambda x: _elu(x, 0), 0),
    "ELU alpha < 0": ('type: "ELU" elu_param { alpha: -0.5 }', lambda x: _elu(x, -0.5), 0),
    "Exp": ('type: "Exp"', math.exp, None),
    "Exp options": (
        'type: "Exp" exp_param { base: 2 scale: 0.5 shift: -1 }',
        lambda x: 2 ** (-1 + 0.5 * x),
        None,
    ),
    "Exp e with shift": ('type: "Exp" exp_param { shift: 1.5 }', lambda x: math.exp(1.5 + x), None),
    "Exp base 1": ('type: "Exp" exp_param { base: 1 shift: 3 }', lambda x: 1, None),
    "Log": ('type: "Log" log_param { shift: 4 }', lambda x: math.log(4 + x), None),
    "Log options": (
        'type: "Log" log_param { base: 10 scale: -0.5 shift: 3 }',
        lambda x: math.log10(3 - 0.5 * x),
        None,
    ),
    "Power default": ('type: "Power"', lambda x: x, None),
    "Power linear": ('type: "Power" power_param { scale: -3 shift: 2 }', lambda x: 2 - 3 * x, None),
    "Power 2": (
        'type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }',
        lambda x: (1 + 0.5 * x) ** 2,
        None,
    ),
    "Power 3": ('type: "Power" power_param { power: 3 }', lambda x: x**3, None),
    "Power -0.75": (
        'type: "Power" power_param { power: -0.75 scale: 0.5 shift: 3 }',
        lambda x: (3 + 0.5 * x) ** -0.75,
        None,
    ),
    "Power 0": ('type: "Power" power_param { power: 0 scale: 2 }', lambda x: 1, None),
    "Power of scale 0": (
        'type: "Power" power_param { power: 2 scale: 0 shift: 3 }', lambda x: 9, None
    ),
    "ReLU": ('type: "ReLU"', lambda x: max(x, 0), 0),
    "ReLU leaky": (
        'type: "ReLU" relu_param { negative_slope: 0.125 }', lambda x: x if x > 0 else x / 8, 0
    ),
    "ReLU slope < 0": (
        'type: "ReLU" relu_param { negative_slope: -0.5 }', lambda x: x if x > 0 else -x / 2, 0
    ),
    "Sigmoid": ('type: "Sigmoid"', _sigmoid, None),
    "Swish": ('type: "Swish"', lambda x: x * _sigmoid(x), None),
    "Swish beta": (
        'type: "Swish" swish_param { beta: -1.5 }', lambda x: x * _sigmoid(-1.5 * x), None
    ),
    "TanH": ('type: "TanH"', math.tanh, None),
    "Threshold": (
        'type: "Threshold" threshold_param { threshold: 0.25 }', lambda x: float(x > 0.25), None
    ),
}  # fmt: skip
DIFFERENTIABLE = [name for name in CASES if name != "Threshold"]


def _values(seed, shape=(2, 3, 4)):
    return np.random.default_rng(seed).uniform(-2.5, 2.5, shape)


def _run(text, x, dtype=np.float32, in_place=False):
    layer, bottom, top = make_layer(text, [x], dtype=dtype, in_place=in_place)
    layer.forward(bottom, top)
    return top[0].array


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient(name, in_place):
    text, _, kinks = CASES[name]
    check_gradients(text, [_values(1)], kinks=kinks, in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values(name, in_place):
    text, function, _ = CASES[name]
    x = _values(2).astype("float32")
    y = _run(text, x, in_place=in_place)
    assert y.dtype == np.float32 and y.shape == x.shape
    np.testing.assert_allclose(y, np.vectorize(function, otypes="d")(x), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_stay_float32(name):
    text = CASES[name][0]
    layer, bottom, top = make_layer(text, [_values(3)], dtype=np.float32)
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    if name == "Threshold":
        with pytest.raises(LayerError, match=r"'layer' \(Threshold\).*propagate_down: false"):
            layer.backward(top, [True], bottom)
    else:
        layer.backward(top, [True], bottom)
        assert np.isfinite(bottom[0].grad).all()
    bottom[0].grad[...] = 7
    layer.backward(top, [False], bottom)  # nothing is asked for, nothing is written
    assert (bottom[0].grad == 7).all()


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(CASES)),
    shape=st.lists(st.integers(0, 5), max_size=5).map(tuple),
)
def test_any_shape(name, shape):
    text, function, _ = CASES[name]
    x = _values(4, shape)
    layer, bottom, top = make_layer(text, [x])
    layer.forward(bottom, top)
    assert top[0].shape == shape
    np.testing.assert_allclose(
        top[0].array, np.vectorize(function, otypes="d")(x), rtol=1e-12, atol=1e-12
    )
    if name != "Threshold":
        top[0].grad[...] = 1
        layer.backward(top, [True], bottom)


def test_values_at_kinks():
    x = np.array([-1.0, 0.0, 1.0])
    for text, y, dx in (
        ('type: "ReLU"', [0, 0, 1], [0, 0, 1]),
        ('type: "ReLU" relu_param { negative_slope: 0.5 }', [-0.5, 0, 1], [0.5, 0.5, 1]),
        ('type: "AbsVal"', [1, 0, 1], [-1, 0, 1]),
        ('type: "Clip" clip_param { min: -1 max: 0 }', [-1, 0, 0], [1, 1, 0]),
        ('type: "ELU" elu_param { alpha: 3 }', [3 / math.e - 3, 0, 1], [3 / math.e, 3, 1]),
        ('type: "Power" power_param { power: 3 }', [-1, 0, 1], [3, 0, 3]),
    ):
        layer, bottom, top = make_layer(text, [x])
        layer.forward(bottom, top)
        top[0].grad[...] = 1
        layer.backward(top, [True], bottom)
        np.testing.assert_allclose(top[0].array, y, atol=1e-15, err_msg=text)
        np.testing.assert_allclose(bottom[0].grad, dx, atol=1e-15, err_msg=text)


def test_large_values_do_not_overflow():
    x = np.array([-1e4, -100, 100, 1e4], np.float32)
    np.testing.assert_array_equal(_run('type: "Sigmoid"', x), [0, 0, 1, 1])
    np.testing.assert_array_equal(_run('type: "TanH"', x), [-1, -1, 1, 1])
    np.testing.assert_allclose(_run('type: "BNLL"', x), [0, 0, 100, 1e4], atol=1e-30)
    np.testing.assert_array_equal(_run('type: "Swish"', x), [0, 0, 100, 1e4])
    np.testing.assert_array_equal(_run('type: "ELU"', x), [-1, -1, 100, 1e4])


def test_small_slopes_of_bnll_keep_their_digits():
    x = np.array([-80.0, -20.0, 20.0, 80.0], np.float32)
    layer, bottom, top = make_layer('type: "BNLL"', [x], dtype=np.float32)
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    expected = [1 / (1 + math.exp(-v)) for v in (-80.0, -20.0, 20.0, 80.0)]
    np.testing.assert_allclose(bottom[0].grad, expected, rtol=1e-6)


def test_relu_lets_nan_pass_and_gives_no_negative_zero():
    y = _run('type: "ReLU"', np.array([np.nan, -2.0, 3.0]))
    assert np.isnan(y[0])
    assert y[1] == 0 and not np.signbit(y[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Exp" exp_param { base: 0 }', r"exp_param.base above 0"),
        ('type: "Exp" exp_param { base: -2 }', r"exp_param.base above 0"),
        ('type: "Log" log_param { base: 1 }', r"log_param.base above 0 and not 1"),
        ('type: "Log" log_param { base: -3 }', r"log_param.base above 0 and not 1"),
        ('type: "Clip" clip_param { min: 0 }', r"clip_param \{ min: ... max: ... \}"),
    ],
)
def test_bad_parameters(text, message):
    with pytest.raises(LayerError, match=r"layer 'act' \(\w+\): expected " + message):
        make_layer('name: "act" ' + text, [np.ones(3)])


def test_input_is_not_copied_in_a_net_that_only_runs_forward():
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "swish" type: "Swish" bottom: "x" top: "x" }
    """
    net = Net(parse_text(text, caffe_pb2.NetParameter, "test"), phase=caffe_pb2.TEST)
    net.blobs["x"].data[...] = 2
    net.forward()
    np.testing.assert_allclose(net.blobs["x"].data, 2 * _sigmoid(2), rtol=1e-6)
    assert net.nodes[1].layer._kept is None
