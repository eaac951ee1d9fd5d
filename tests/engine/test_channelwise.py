"""The CPU kernels with one coefficient a channel, and the accumulating matrix product."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import channelwise

SHAPES = st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 40))
DTYPES = st.sampled_from(["float32", "float64"])


def _draw(shape, dtype, count, seed=0):
    """`count` arrays of `shape` and as many vectors of its channels."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
    return arrays, [rng.normal(size=shape[1]).astype(dtype) for _ in range(2 * count)]


def _close(a, b):
    tolerance = 1e-5 if a.dtype == "float32" else 1e-12
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=25)
@given(SHAPES, DTYPES)
def test_affine_and_combine(shape, dtype):
    (x, y), (a, s, b, t) = _draw(shape, dtype, 2)
    col = (slice(None), None)
    out = np.empty_like(x)
    channelwise.affine(x, a, s, b, out)
    _close(out, (x - a[col]) * s[col] + b[col])
    for relu in (False, True):
        channelwise.normalise(x, a, s, t, b, relu, out)
        expected = (x - a[col]) * s[col] * t[col] + b[col]
        _close(out, np.maximum(expected, 0) if relu else expected)
        kept, result = np.empty_like(x), x.copy()
        channelwise.normalise(result, a, s, t, b, relu, result, kept)  # in place
        np.testing.assert_array_equal(result, out)
        np.testing.assert_array_equal(kept, x)
    channelwise.combine(x, a, s, y, b, t, out)
    _close(out, (x - a[col]) * s[col] + (y - b[col]) * t[col])
    channelwise.combine(x, a, s, y, b, t, x)  # the result over an operand
    np.testing.assert_array_equal(x, out)


@settings(deadline=None, max_examples=25)
@given(SHAPES, DTYPES)
def test_gradients_of_a_norm_and_a_scale(shape, dtype):
    (dz, x), (mean, factor, scale, slope) = _draw(shape, dtype, 2)
    exact, near = dz.astype("d"), x - mean[:, None]
    values = [exact, exact * near * factor[:, None], exact * scale[:, None]]
    values.append(values[2] * near)
    found = channelwise.norm_sums(dz, scale, x, mean, factor)
    for total, value in zip(found, values):
        np.testing.assert_allclose(total, value.sum(axis=(0, 2)), rtol=1e-5, atol=1e-5)
    out = np.empty_like(x)
    channelwise.norm_backward(dz, scale, mean, factor, x, mean, slope, out)
    expected = (dz * scale[:, None] - mean[:, None]) * factor[:, None] + near * slope[:, None]
    _close(out, expected)
    channelwise.norm_backward(dz, scale, mean, factor, x, mean, slope, dz)  # in place
    np.testing.assert_array_equal(dz, out)


@settings(deadline=None, max_examples=25)
@given(SHAPES, DTYPES)
def test_relu(shape, dtype):
    (x, dy), (s, *_) = _draw(shape, dtype, 2)
    slope = np.where(x > 0, x.dtype.type(1), s[:, None])
    out = np.empty_like(x)
    channelwise.relu(x, s, out)
    np.testing.assert_array_equal(out, x * slope)
    channelwise.relu_backward(x, dy, s, out)
    np.testing.assert_array_equal(out, dy * slope)


@settings(deadline=None, max_examples=25)
@given(SHAPES, DTYPES)
def test_sums(shape, dtype):
    (x, y), (a, b, *_) = _draw(shape, dtype, 2)
    total, dot = channelwise.sums(x, a, y, b)
    assert total.dtype == dot.dtype == np.float64
    dx, dy = x - a[:, None], y - b[:, None]
    np.testing.assert_allclose(total, dx.astype("d").sum(axis=(0, 2)), atol=1e-5)
    np.testing.assert_allclose(dot, (dx.astype("d") * dy).sum(axis=(0, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1, 1)),
        ((5,), (1, 1, 5)),
        ((2, 5), (2, 1, 5)),
        ((2, 3, 5), (6, 1, 5)),
        ((2, 3, 5, 7), (6, 1, 35)),
        ((0, 5), (0, 1, 0)),
        ((2, 0, 5), (0, 1, 0)),
        ((2, 3, 0), (6, 1, 0)),
    ],
)
def test_rows(shape, expected):
    assert channelwise.rows(np.zeros(shape)).shape == expected


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([0, 7, 3000])), DTYPES)
def test_sums_of_channels(shape, dtype):
    (x, y), (a, b, *_) = _draw(shape, dtype, 2)
    exact, col = x.astype(np.float64), (slice(None), None)
    tolerance = {"rtol": 1e-12, "atol": 1e-9} if dtype == "float64" else {"rtol": 0, "atol": 1e-2}
    np.testing.assert_allclose(channelwise.totals(x), exact.sum(axis=(0, 2)), **tolerance)
    expected = (np.minimum(exact, 0) * y).sum(axis=(0, 2))
    np.testing.assert_allclose(channelwise.slope_sums(x, y), expected, **tolerance)
    total, dot = channelwise.sums(x, a, y, b)
    near = exact - a[col]
    np.testing.assert_allclose(total, near.sum(axis=(0, 2)), **tolerance)
    np.testing.assert_allclose(dot, (near * (y - b[col])).sum(axis=(0, 2)), **tolerance)
