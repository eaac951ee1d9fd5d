"""Solver updates on the device against those of the CPU, which they equal to the last bit."""

import math

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import update

HISTORIES = {"sgd": 1, "nesterov": 1, "adagrad": 1, "rmsprop": 1, "adadelta": 2, "adam": 2}
CONSTANTS = {
    "sgd": (0.01, 0.9),
    "nesterov": (0.01, 0.9),
    "adagrad": (0.01, 1e-8),
    "rmsprop": (0.01, 0.98, 1e-8),
    "adadelta": (1.0, 0.95, 1e-6),
    "adam": (0.001, 0.9, 0.999, 1e-8),
}
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def drawn(dtype, name, count=5003):
    rng = np.random.default_rng(0)
    data, diff = (rng.standard_normal(count).astype(dtype) for _ in range(2))
    data[::7] = 0
    return [data, diff, *(rng.random(count).astype(dtype) for _ in range(HISTORIES[name]))]


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("l1", [False, True])
@FLOATS
def test_updates(place, name, l1, dtype):
    arrays = drawn(dtype, name)
    device = place.put(*arrays)
    numbers = [dtype(c) for c in CONSTANTS[name]]
    for _ in range(2):
        getattr(update, name)(*arrays, dtype(0.7), dtype(0.5), dtype(0.01), l1, *numbers)
        getattr(place.update, name)(*device, dtype(0.7), dtype(0.5), dtype(0.01), l1, *numbers)
    for got, expected in zip(device, arrays):
        np.testing.assert_array_equal(place.get(got), expected)


@FLOATS
def test_the_factor_of_clipping_stays_on_the_device(place, dtype):
    arrays = drawn(dtype, "sgd", 40000)
    other = np.full(7, 2, dtype)
    device, numbers = place.put(*arrays), (dtype(1), dtype(0), False, dtype(0.1), dtype(0.9))
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in (arrays[1], other)))
    clip = place.update.clip_factor([device[1], place.put(other)], 3.5)
    np.testing.assert_allclose(place.get(clip), [3.5 / norm, norm], rtol=1e-12)
    place.update.sgd(*device, clip, *numbers)
    update.sgd(*arrays, dtype(place.get(clip)[0]), *numbers)
    for got, expected in zip(device, arrays):
        np.testing.assert_array_equal(place.get(got), expected)
    small = place.update.clip_factor([place.put(other)], 3.5, scale=0.125)
    np.testing.assert_allclose(place.get(small), [1, math.sqrt(28) / 8], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_is_skipped_where_gradients_are_not_finite(place, bad):
    arrays = drawn(np.float32, "sgd", 100)
    arrays[1][50] = bad
    device = place.put(*arrays)
    numbers = (np.float32(1), np.float32(0), False, np.float32(0.1), np.float32(0.9))
    clip = place.update.clip_factor([device[1]], math.inf, skip=True)
    place.update.sgd(*device, clip, *numbers)
    for got, before in zip(device, arrays):
        np.testing.assert_array_equal(place.get(got), before)
    assert place.get(place.update.clip_factor([device[1]], math.inf))[0] == 1
