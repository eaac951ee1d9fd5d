"""LRN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

RNG = np.random.default_rng(0)


def _text(options=""):
    return f'name: "n" type: "LRN" lrn_param {{ {options} }}'


def across(x, size, alpha, beta, k):
    """The formula in plain loops over channels."""
    y, half = np.empty_like(x), size // 2
    for c in range(x.shape[1]):
        near = x[:, max(0, c - half) : c + half + 1]
        y[:, c] = x[:, c] * (k + alpha / size * (near**2).sum(axis=1)) ** -beta
    return y


def within(x, size, alpha, beta):
    """The formula in plain loops over pixels."""
    y, half = np.empty_like(x), size // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            near = x[:, :, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            s = 1 + alpha / size**2 * (near**2).sum(axis=(2, 3))
            y[:, :, i, j] = x[:, :, i, j] * s**-beta
    return y


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("beta", [0.75, 0.5, 2])
def test_across_channels(size, beta):
    x = RNG.normal(size=(2, 6, 1, 2))
    options = f"local_size: {size} alpha: 1.5 beta: {beta} k: 2"
    layer, bottom, top = make_layer(_text(options), [x])
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, across(x, size, 1.5, beta, 2), rtol=1e-12)
    check_gradients(_text(options), [x])


@pytest.mark.parametrize("size", [1, 3, 5])
def test_within_channel(size):
    x = RNG.normal(size=(1, 2, 4, 3))
    # k is ignored.
    options = f"local_size: {size} alpha: 1.5 beta: 0.6 k: 7 norm_region: WITHIN_CHANNEL"
    layer, bottom, top = make_layer(_text(options), [x])
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, within(x, size, 1.5, layer.beta), rtol=1e-12)
    check_gradients(_text(options), [x])


@pytest.mark.parametrize("value", [1e-18, 1e6, 1e14])
def test_large_and_small_values_in_float32(value):
    x = np.full((1, 2, 1, 9), value)
    layer, bottom, top = make_layer(_text(), [x], dtype=np.float32)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, across(x, 5, 1, 0.75, 1), rtol=1e-5)
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    s = 1 + 2 / 5 * value**2
    slope = s**-0.75 - 2 * 0.75 / 5 * 2 * value**2 * s**-1.75
    # Two almost equal numbers are subtracted.
    np.testing.assert_allclose(bottom[0].grad, slope, rtol=1e-5, atol=4e-6 * s**-0.75)


def slopes(x, dy, size, alpha, beta, k, is_across):
    """The gradient by sums over neighbours, which are each other's."""
    near = neighbours(x.shape, size, is_across)
    factor = alpha / size ** (1 if is_across else 2)
    s = k + factor * near(x**2)
    return dy * s**-beta - 2 * factor * beta * x * near(dy * x * s ** (-beta - 1))


def neighbours(shape, size, is_across):
    """A function that sums arrays of `shape` over each element's neighbours."""
    widths = (1, size, 1, 1) if is_across else (1, 1, size, size)
    pads = [(w // 2, w // 2) for w in widths]

    def near(values):
        padded = np.pad(values, pads)
        shifts = np.ndindex(*widths)
        return sum(padded[tuple(slice(i, i + n) for i, n in zip(shift, shape))] for shift in shifts)

    return near


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 3), st.integers(1, 12), st.integers(1, 24), st.integers(1, 24),
    st.sampled_from([1, 3, 7]), st.sampled_from([0.75, 0.5, 2]), st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_any_shape(n, c, h, w, size, beta, is_across, dtype):
    rng = np.random.default_rng(c)
    x, dy = rng.normal(size=(2, n, c, h, w)).astype(dtype)
    region, k = ("ACROSS_CHANNELS", 3) if is_across else ("WITHIN_CHANNEL", 1)
    text = _text(f"local_size: {size} alpha: 2 beta: {beta} k: {k} norm_region: {region}")
    layer, bottom, top = make_layer(text, [x], dtype=dtype)
    layer.forward(bottom, top)
    top[0].grad[...] = dy
    bottom[0].grad[...] = np.nan
    layer.backward(top, [True], bottom)
    exact, slope = x.astype(np.float64), dy.astype(np.float64)
    expected = [
        across(exact, size, 2, beta, k) if is_across else within(exact, size, 2, beta),
        slopes(exact, slope, size, 2, beta, k, is_across),
    ]
    limit = 1e-4 if dtype == np.float32 else 1e-10
    for got, value in zip((top[0].array, bottom[0].grad), expected):
        assert got.dtype == dtype
        assert np.abs(got - value).max(initial=0) <= limit * np.abs(value).max(initial=0)


def test_many_pixels_are_done_in_blocks():
    x = RNG.normal(size=(2, 5, 20, 30))  # more pixels than a block has
    layer, bottom, top = make_layer(_text(), [x])
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, across(x, 5, 1, 0.75, 1), rtol=1e-12)
    dy = RNG.normal(size=x.shape)
    top[0].grad[...] = dy
    layer.backward(top, [True], bottom)
    # The gradient of one pixel does not depend on the others.
    one, b, t = make_layer(_text(), [x[:, :, 13:14, 17:18]])
    one.forward(b, t)
    t[0].grad[...] = dy[:, :, 13:14, 17:18]
    one.backward(t, [True], b)
    np.testing.assert_allclose(bottom[0].grad[:, :, 13:14, 17:18], b[0].grad, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ("local_size: 4", (1, 2, 3, 3), "an odd lrn_param.local_size, found 4"),
        ("", (2, 3), r"a bottom \(N, C, H, W\), found shape \(2, 3\)"),
    ],
)
def test_errors(options, shape, message):
    with pytest.raises(LayerError, match=r"layer 'n' \(LRN\): expected " + message):
        make_layer(_text(options), [np.ones(shape)])


def test_in_place_is_refused():
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 2, 3, 3] } } }
        layer { name: "n" type: "LRN" bottom: "x" top: "x" }"""
    with pytest.raises(LayerError, match=r"layer 'n' \(LRN\).*both.*a name of its own"):
        Net(parse_text(text, caffe_pb2.NetParameter, "net"))
