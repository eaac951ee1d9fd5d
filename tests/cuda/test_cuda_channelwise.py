"""Passes with one coefficient a channel, and sums of channels, on the device."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import channelwise

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 49),
        (1, 5, 64),
        (70, 33, 1),
        (3, 2, 7),
        (2, 1, 9000),
        (600, 4, 3),
        (0, 3, 5),
        (2, 3, 0),
    ],
)
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def drawn(shape, dtype, arrays, vectors):
    rng = np.random.default_rng(0)
    return (
        [rng.standard_normal(shape).astype(dtype) for _ in range(arrays)],
        [rng.standard_normal(shape[1]).astype(dtype) for _ in range(vectors)],
    )


@SHAPES
@FLOATS
@pytest.mark.parametrize("name", ["relu", "relu_backward", "affine", "normalise", "combine"])
def test_passes(place, name, shape, dtype):
    (x, y), (a, b, c, d) = drawn(shape, dtype, 2, 4)
    arguments = {
        "relu": [x, a],
        "relu_backward": [x, y, a],
        "affine": [x, a, b, c],
        "normalise": [x, a, b, c, d, True],
        "combine": [x, a, b, y, c, d],
    }[name]
    expected = np.full(shape, np.nan, dtype)
    getattr(channelwise, name)(*arguments, expected)
    device = [place.put(v) if isinstance(v, np.ndarray) else v for v in arguments]
    out = place.put(np.full(shape, np.nan, dtype))
    getattr(place.channelwise, name)(*device, out)
    np.testing.assert_array_equal(place.get(out), expected)
    getattr(place.channelwise, name)(*device, device[0])
    np.testing.assert_array_equal(place.get(device[0]), expected)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (300, 21), (7, 4096), (0, 3)])
def test_add_rows(place, shape, relu):
    rng = np.random.default_rng(0)
    y, b = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[1]))
    target, row = place.put(y, b)
    place.channelwise.add_rows(target, row, relu)
    np.testing.assert_array_equal(place.get(target), np.maximum(y + b, 0) if relu else y + b)


def test_halves_are_computed_in_single_precision(place):
    (x,), (a, b, c) = drawn((3, 5, 13), np.float16, 1, 3)
    out = place.put(np.zeros_like(x))
    place.channelwise.affine(*place.put(x, a, b, c), out)
    col = (slice(None), None)
    a, b, c = (v.astype(np.float32)[col] for v in (a, b, c))
    np.testing.assert_array_equal(place.get(out), ((x - a) * b + c).astype(np.float16))


@SHAPES
@FLOATS
def test_sums(place, shape, dtype):
    (x, y), (a, b) = drawn(shape, dtype, 2, 2)
    devices = place.put(x, a, y, b)
    first, second = (place.get(s) for s in place.channelwise.sums(*devices))
    near = (x - a[:, None]).astype(np.float64)
    other = (y - b[:, None]).astype(np.float64)
    exact = {"rtol": 1e-12, "atol": 1e-10}
    np.testing.assert_allclose(first, near.sum(axis=(0, 2)), **exact)
    np.testing.assert_allclose(second, (near * other).sum(axis=(0, 2)), **exact)
    wide = x.astype(np.float64)
    totals = place.get(place.channelwise.totals(devices[0]))
    assert totals.dtype == np.float64
    np.testing.assert_allclose(totals, wide.sum(axis=(0, 2)), **exact)
    slopes = place.get(place.channelwise.slope_sums(devices[0], devices[2]))
    np.testing.assert_allclose(slopes, (np.minimum(wide, 0) * y).sum(axis=(0, 2)), **exact)


@pytest.mark.parametrize("shape", [(2, 3, 80000), (30000, 2, 3)])
def test_sums_do_not_depend_on_where_arrays_lie(place, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    moved = place.put(np.concatenate([[0], x.reshape(-1)]).astype(np.float32))[1:].reshape(shape)
    first, second = (place.get(place.channelwise.totals(a)) for a in (place.put(x), moved))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, x.astype(np.float64).sum(axis=(0, 2)), rtol=1e-11)
