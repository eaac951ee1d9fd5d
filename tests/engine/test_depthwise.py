"""Depthwise convolution beside direct sums in float64."""

import numpy as np
import pytest
from direct_convolution import Direct, close, make
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import channelwise, convolution, depthwise
from demitasse.engine.kernels.geometry import window_extent


@st.composite
def geometries(draw):
    """Windows of 1 to 7, in padding of any width, over planes that are several runs long or not."""
    pick = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    both = lambda low, high: (pick(low, high), pick(low, high))  # noqa: E731
    kernel, stride, pad, dilation = both(1, 7), both(1, 3), both(0, 8), both(1, 2)
    size = tuple(
        max(window_extent(k, d) - 2 * p, 1) + pick(0, most)
        for k, p, d, most in zip(kernel, pad, dilation, (60, 40))
    )
    channels = pick(2, 5)
    outputs = channels * pick(1, depthwise.MOST)
    return make(pick(0, 3), channels, outputs, size, kernel, stride, pad, dilation, channels)


def drawn(g, dtype, seed):
    """x, weight, bias and dy, above zero, so that no sum cancels."""
    rng = np.random.default_rng(seed)
    shapes = g.in_shape, (g.num_output, 1, *g.kernel), (g.num_output,), g.out_shape
    return [rng.uniform(0.1, 1, shape).astype(dtype) for shape in shapes]


@settings(deadline=None, max_examples=100)
@given(geometries(), st.sampled_from([np.float32, np.float64]), st.integers(0, 99))
def test_any_shape(g, dtype, seed):
    x, weight, bias, dy = drawn(g, dtype, seed)
    for gradient in (None, "data", "weight"):
        assert convolution.algorithm_for(g, gradient) == "depthwise"
    direct = Direct(x, weight, dy, g)
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
    convolution.forward(x, weight, bias, y, g)
    close(y, direct.y + bias.reshape(-1, 1, 1))
    convolution.backward_data(dy, weight, dx, g)
    close(dx, direct.dx)
    gate, gated = x - x.dtype.type(0.5), np.full_like(x, np.nan)
    convolution.backward_data(dy, weight, gated, g, gate=gate)
    np.testing.assert_array_equal(gated, np.where(gate > 0, dx, 0))
    dw, db = np.ones_like(weight), np.ones_like(bias)
    convolution.backward_weight(x, dy, dw, g, db=db)
    close(dw, 1 + direct.dw)
    close(db, 1 + dy.sum(axis=(0, 2, 3), dtype=np.float64))
    convolution.backward_weight(x, dy, dw, g, add=False)
    close(dw, direct.dw)


@pytest.mark.parametrize("relu", [False, True])
def test_what_follows_the_sums(relu):
    g = make(2, 3, 6, (9, 8), (3, 3), (1, 2), (1, 1), (1, 1), 3)
    x, weight, bias, dy = drawn(g, np.float32, 1)
    bias -= bias.dtype.type(3)
    bias[2] = np.nan
    plain, y = np.empty_like(dy), np.empty_like(dy)
    convolution.forward(x, weight, bias, plain, g)
    convolution.forward(x, weight, bias, y, g, relu=relu)
    assert np.nanmin(plain) < 0 < np.nanmax(plain)
    np.testing.assert_array_equal(y, np.maximum(plain, 0) if relu else plain)
    norm = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    convolution.forward(x, weight, bias, y, g, relu=relu, norm=norm)
    expected = plain.reshape(2, 6, -1)
    channelwise.normalise(expected.copy(), *norm, relu, expected)
    np.testing.assert_array_equal(y.reshape(expected.shape), expected)


def test_who_is_depthwise():
    sizes = (9, 9), (3, 3), (1, 1), (1, 1), (1, 1)
    assert depthwise.suits(make(1, 4, 8, *sizes, 4))
    assert not depthwise.suits(make(1, 4, 20, *sizes, 4))  # many outputs: products
    assert not depthwise.suits(make(1, 4, 8, *sizes, 2))
    assert not depthwise.suits(make(1, 1, 4, *sizes, 1))
    assert not depthwise.suits(make(1, 4, 4, (9,), (3,), (1,), (1,), (1,), 4))
