"""Activations, copies, dropout and softmax of the GPU against those of the CPU, or NumPy."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import activations, dropout, softmax

COUNTS = pytest.mark.parametrize("count", [1, 7, 4096, 10001])
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ALL = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


def drawn(dtype, shape, count):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(count)]


# name, how many arrays besides the result, where a number goes among the arguments
UNARY = [
    ("relu", 1, 1), ("relu_backward", 2, 2), ("scaled", 1, 1), ("sigmoid", 1, None),
    ("sigmoid_backward", 2, None), ("tanh_backward", 2, None), ("elu", 1, 1),
    ("elu_backward", 3, 2),
]  # fmt: skip


def arguments(arrays, number, place, out):
    return [*arrays[:place], number, *arrays[place:], out] if place else [*arrays, out]


@pytest.mark.parametrize(("name", "arrays", "number_at"), UNARY)
@COUNTS
@FLOATS
def test_activations(place, name, arrays, number_at, count, dtype):
    arrays = drawn(dtype, count, arrays)
    arrays[0][::5] = 0
    expected = np.full(count, np.nan, dtype)
    getattr(activations, name)(*arguments(arrays, dtype(-0.3), number_at, expected))
    device = [place.put(a) for a in arrays]
    out = place.put(np.full_like(expected, np.nan))
    getattr(place.activations, name)(*arguments(device, dtype(-0.3), number_at, out))
    np.testing.assert_allclose(place.get(out), expected, rtol=8 * np.finfo(dtype).eps, atol=1e-7)
    getattr(place.activations, name)(*arguments(device, dtype(-0.3), number_at, device[0]))
    np.testing.assert_array_equal(place.get(device[0]), place.get(out))  # over an input


@pytest.mark.parametrize(("name", "arrays", "number_at"), UNARY)
def test_activations_of_halves(place, name, arrays, number_at):
    arrays = drawn(np.float16, 1001, arrays)
    expected = np.empty(1001)
    wide = [a.astype(np.float64) for a in arrays]
    getattr(activations, name)(*arguments(wide, np.float64(0.25), number_at, expected))
    device, out = [place.put(a) for a in arrays], place.put(np.zeros(1001, np.float16))
    getattr(place.activations, name)(*arguments(device, np.float16(0.25), number_at, out))
    np.testing.assert_allclose(place.get(out), expected, rtol=2**-10, atol=1e-6)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_arrays_that_do_not_begin_at_a_pack(place, start):
    (x,) = drawn(np.float32, 3000, 1)
    source, out = place.put(x, np.zeros_like(x))
    place.activations.relu(source[start:], np.float32(0), out[start:])
    expected = np.maximum(x, 0)
    expected[:start] = 0
    np.testing.assert_array_equal(place.get(out), expected)


def test_nan_passes_and_zero_has_no_sign(place):
    x = np.array([np.nan, -1, -np.inf, 2], np.float32)
    source, out = place.put(x, x)
    place.activations.relu(source, np.float32(0), out)
    got = place.get(out)
    assert np.isnan(got[[0, 2]]).all() and not np.signbit(got[1]) and got[3] == 2


@FLOATS
def test_weighted_sum_and_picks(place, dtype):
    x, y, dy = drawn(dtype, 5003, 3)
    y[::3] = x[::3]
    dx, dys, out = place.put(x), place.put(dy), place.put(np.empty_like(x))
    dy_place, second = place.put(dy), place.put(y)
    for rectify in (False, True):
        place.activations.weighted_sum(dx, dtype(2), second, dtype(-0.5), rectify, out)
        expected = x * dtype(2) + y * dtype(-0.5)
        np.testing.assert_array_equal(place.get(out), expected.clip(0) if rectify else expected)
    for first in (True, False):
        place.activations.larger_backward(dx, second, first, dy_place, out)
        np.testing.assert_array_equal(place.get(out), dy * ((x > y) == first))
    winner = np.random.default_rng(1).integers(0, 4, 5003).astype(np.int32)
    place.activations.pick_backward(place.put(winner), 2, dys, dys)
    np.testing.assert_array_equal(place.get(dys), dy * (winner == 2))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
@pytest.mark.parametrize("shape", [(1, 3), (3, 40), (7, 5001)])
def test_copies(place, shape, dtype):
    x = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    source, target = place.put(x, np.full_like(x, 101))
    place.copies.copy(source, target)
    np.testing.assert_array_equal(place.get(target), x)
    place.copies.clear(target)
    assert not place.get(target).any()


@pytest.mark.parametrize("starts", [(0, 0), (4, 8), (1, 2)])
@pytest.mark.parametrize(("rows", "columns"), [(3, 20), (1, 40000), (5, 4008), (2000, 16)])
def test_copied_columns(place, rows, columns, starts):
    x = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    expected = np.full((rows, columns + 4), -1, np.float32)
    count = columns - 4
    source, target = place.put(x, expected)
    place.copies.copy_columns(source, starts[0], target, starts[1], count)
    expected[:, starts[1] : starts[1] + count] = x[:, starts[0] : starts[0] + count]
    np.testing.assert_array_equal(place.get(target), expected)


@pytest.mark.parametrize("count", [5, 4096, 20003])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1 - 1e-12])
@FLOATS
def test_dropout_draws_what_the_cpu_draws(place, dtype, ratio, count):
    (x,) = drawn(dtype, count, 1)
    key = 2**64 - 3, 2**63 + 12345
    expected = np.empty_like(x)
    dropout.apply(x, key, ratio, 1.25, expected)
    source = place.put(x)
    place.dropout.apply(source, key, ratio, 1.25, source)
    np.testing.assert_array_equal(place.get(source), expected)


def test_dropout_of_halves_and_of_a_part(place):
    x = np.ones(9000, np.float16)
    source, out = place.put(x, np.zeros_like(x))
    place.dropout.apply(source[1:], (3, 4), 0.5, 2.0, out[1:])
    expected = np.empty(8999, np.float32)
    dropout.apply(np.ones(8999, np.float32), (3, 4), 0.5, 2.0, expected)
    np.testing.assert_array_equal(place.get(out)[1:], expected)


SHAPES = [(2, 7, 1), (19, 1000, 1), (2, 1500, 1), (2, 3, 5), (3, 21, 300), (4, 1, 6), (0, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@ALL
def test_softmax(place, shape, dtype):
    x, dy = drawn(dtype, shape, 2)
    x *= 5
    wide = x.astype(np.float64)
    y = np.empty_like(wide)
    softmax.forward(wide, y)
    source, out = place.put(x, np.zeros_like(x))
    place.softmax.forward(source, out)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(place.get(out), y, rtol=40 * eps, atol=eps / 8)
    place.softmax.forward(source, source)
    np.testing.assert_array_equal(place.get(source), place.get(out))

    given, dx = place.get(out).astype(np.float64), np.empty_like(y)
    softmax.backward(given, dy.astype(np.float64), dx)
    slopes = place.put(dy)
    place.softmax.backward(out, slopes, slopes)
    np.testing.assert_allclose(place.get(slopes), dx, rtol=40 * eps, atol=10 * eps)


@pytest.mark.parametrize("shape", [(2, 7, 1), (2, 1500, 1), (2, 3, 5)])
def test_softmax_spreads_nan_over_its_own_sum_only(place, shape):
    (x,) = drawn(np.float32, shape, 1)
    x[0, 1, 0] = np.nan
    source = place.put(x)
    place.softmax.forward(source, source)
    y = place.get(source)
    assert np.isnan(y[0, :, 0]).all() and np.isnan(y).sum() == shape[1]
