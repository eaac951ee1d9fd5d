"""Pooling: the CUDA text against the CPU's kernels."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import pooling as cpu
from demitasse.engine.kernels.geometry import PoolGeometry, pool_sizes

rng = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# in_size, kernel, stride, pad, ceil
SHAPES = {
    "k2 s2": ((10, 14), (2, 2), (2, 2), (0, 0), True),
    "k3 s2 ceil": ((8, 9), (3, 3), (2, 2), (0, 0), True),
    "k3 s1 pad": ((7, 40), (3, 3), (1, 1), (1, 1), True),
    "k3 s2 pad": ((9, 8), (3, 3), (2, 2), (2, 2), False),
    "uneven": ((9, 5), (4, 1), (1, 2), (2, 0), True),
    "empty windows": ((5, 5), (1, 1), (3, 3), (0, 0), True),
    "global": ((6, 35), (6, 35), (1, 1), (0, 0), True),
}
CASES = pytest.mark.parametrize("name", SHAPES)


def geometry_of(name):
    size, kernel, stride, pad, ceil = SHAPES[name]
    return PoolGeometry(size, pool_sizes(size, kernel, stride, pad, ceil), kernel, stride, pad)


def made_up(g, dtype):
    """Values with many equal ones, and slopes."""
    x = rng.integers(-3, 4, (2, 3, *g.in_size)).astype(dtype)
    return x, rng.standard_normal((2, 3, *g.out_size)).astype(dtype)


@CASES
@DTYPES
def test_maximum(place, name, dtype):
    g = geometry_of(name)
    x, dy = made_up(g, dtype)
    x[0, 1], x[1, 0, :, ::2] = -np.inf, np.nan
    y, argmax, dx = np.empty_like(dy), np.empty(dy.shape, np.int32), np.empty_like(x)
    cpu.max_forward(x, g, y, argmax)
    found, winners, slopes = place.put(np.full_like(y, 9), np.zeros_like(argmax), np.ones_like(x))
    place.pooling.max_forward(place.put(x), g, found, winners)
    np.testing.assert_array_equal(place.get(found), y)
    np.testing.assert_array_equal(place.get(winners), argmax)
    place.pooling.max_forward(place.put(x), g, found, None)
    np.testing.assert_array_equal(place.get(found), y)
    for gate in (None, rng.standard_normal(dy.shape).astype(dtype)):
        cpu.max_backward(dy, argmax, g, dx, gate)
        on_device = None if gate is None else place.put(gate)
        place.pooling.max_backward(place.put(dy), winners, g, slopes, on_device)
        # The very sums, in the same order.
        np.testing.assert_array_equal(place.get(slopes), dx)


def test_a_slope_that_is_not_finite_passes_the_gate_as_nan(place):
    g = geometry_of("k2 s2")
    x, dy = made_up(g, np.float32)
    argmax, dx = np.empty(dy.shape, np.int32), np.empty_like(x)
    cpu.max_forward(x, g, dy.copy(), argmax)
    dy[0, 0, 0] = np.inf
    cpu.max_backward(dy, argmax, g, dx, np.zeros_like(dy))
    slopes = place.put(np.zeros_like(x))
    place.pooling.max_backward(*place.put(dy, argmax), g, slopes, place.put(np.zeros_like(dy)))
    assert np.isnan(dx).any()
    np.testing.assert_array_equal(place.get(slopes), dx)


@CASES
@DTYPES
def test_average(place, name, dtype):
    g = geometry_of(name)
    x, dy = made_up(g, dtype)
    y, dx = np.empty_like(dy), np.empty_like(x)
    cpu.average_forward(x, g, y)
    cpu.average_backward(dy, g, dx)
    found, slopes = place.put(np.full_like(y, 9), np.ones_like(x))
    place.pooling.average_forward(place.put(x), g, found)
    place.pooling.average_backward(place.put(dy), g, slopes)
    near = 1e-5 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(place.get(found), y, rtol=0, atol=near * abs(y).max())
    np.testing.assert_allclose(place.get(slopes), dx, rtol=0, atol=near * abs(dx).max())


@pytest.mark.parametrize("name", [n for n in SHAPES if not any(SHAPES[n][3])])
@DTYPES
def test_stochastic(place, name, dtype):
    g = geometry_of(name)
    x, dy = made_up(g, dtype)
    x = rng.integers(0, 4, x.shape).astype(dtype)
    x[0, 1], x[1, 0, :, ::2] = 0, np.nan
    chance = 1 - rng.random(dy.shape, dtype)
    y, argmax = np.empty_like(dy), np.empty(dy.shape, np.int32)
    cpu.stochastic_forward(x, g, chance, y, argmax)
    found, winners = place.put(np.full_like(y, 9), np.zeros_like(argmax))
    place.pooling.stochastic_forward(*(place.put(x), g, place.put(chance)), found, winners)
    np.testing.assert_array_equal(place.get(winners), argmax)
    np.testing.assert_array_equal(place.get(found), y)


@pytest.mark.parametrize("name", [n for n in SHAPES if not any(SHAPES[n][3])])
@DTYPES
def test_what_stochastic_pooling_expects(place, name, dtype):
    g = geometry_of(name)
    x, dy = made_up(g, dtype)
    x = rng.random(x.shape, dtype)
    x[0, 1] = 0
    y, dx = np.empty_like(dy), np.empty_like(x)
    cpu.expected_forward(x, g, y)
    cpu.expected_backward(x, y, dy, g, dx)
    found, slopes = place.put(np.full_like(y, 9), np.ones_like(x))
    place.pooling.expected_forward(place.put(x), g, found)
    place.pooling.expected_backward(*place.put(x, y, dy), g, slopes)
    near = 1e-5 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(place.get(found), y, rtol=0, atol=near * abs(y).max())
    # A window of zeros divides by the smallest number: its slopes are as large as numbers get.
    np.testing.assert_allclose(place.get(slopes), dx, rtol=near, atol=near * abs(dx[0, 0]).max())


def test_halves(place):
    """Maxima are exact; means are formed in single precision."""
    g = geometry_of("k3 s2 ceil")
    x, dy = (v.astype(np.float16) for v in made_up(g, np.float32))
    y, argmax = np.empty(dy.shape, np.float32), np.empty(dy.shape, np.int32)
    cpu.max_forward(x.astype(np.float32), g, y, argmax)
    found, winners, slopes = place.put(dy, np.zeros_like(argmax), np.ones_like(x))
    place.pooling.max_forward(place.put(x), g, found, winners)
    np.testing.assert_array_equal(place.get(found), y.astype(np.float16))
    np.testing.assert_array_equal(place.get(winners), argmax)
    dx = np.empty(x.shape, np.float32)
    cpu.max_backward(dy.astype(np.float32), argmax, g, dx)
    place.pooling.max_backward(place.put(dy), winners, g, slopes)
    np.testing.assert_array_equal(place.get(slopes), dx.astype(np.float16))
    cpu.average_forward(x.astype(np.float32), g, y)
    place.pooling.average_forward(place.put(x), g, found)
    np.testing.assert_allclose(place.get(found), y, rtol=1e-3, atol=1e-4)
