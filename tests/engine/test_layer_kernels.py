"""Kernels of layers: exp, random numbers, softmax and copies, few elements and many."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import activations, copies, dropout, softmax

BOTH = pytest.mark.parametrize("count", [1000, 40000])  # on one thread, and on all


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp(dtype, count):
    # Where x <= 0, ELU with alpha 1 is exp(x) - 1.
    x = -np.linspace(0, 80, count, dtype=dtype)
    x[-3:] = -1e4, -np.inf, np.nan
    y = np.empty_like(x)
    activations.elu(x, dtype(1), y)
    np.testing.assert_allclose(y, np.expm1(x), rtol=0, atol=np.finfo(dtype).eps)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_right_to_the_last_digits_at_both_ends(dtype, count):
    x = np.linspace(-80, 80, count, dtype=dtype)
    y = np.empty_like(x)
    activations.sigmoid(x, y)
    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(dtype).eps)


def test_philox_gives_the_published_numbers():
    # Random123's known answers for philox4x32-10: counter and key all zeros, all ones.
    zero, ones = np.uint64(0), np.uint64(2**64 - 1)
    first = [int(v) for v in dropout._philox(zero, zero, zero)]
    assert first == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    last = [int(v) for v in dropout._philox(ones, ones, ones)]
    assert last == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_dropout_of_the_same_key_agrees_on_any_size():
    x = np.ones(20 * dropout._CHUNK + 5, np.float32)
    many, few = np.empty_like(x), np.empty(5000, np.float32)
    dropout.apply(x, (3, 4), 0.3, 2.0, many)  # on all threads
    dropout.apply(x[:5000], (3, 4), 0.3, 2.0, few)
    np.testing.assert_array_equal(few, many[:5000])
    assert abs((many == 0).mean() - 0.3) < 0.01  # five standard deviations are 0.008


@pytest.mark.parametrize("shape", [(2, 7, 1), (300, 200, 1), (2, 3, 5), (3, 21, 700)])
def test_softmax_spreads_nan_over_its_own_sum_only(shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    x[0, 1, 0] = np.nan
    y = np.empty_like(x)
    softmax.forward(x, y)
    assert np.isnan(y[0, :, 0]).all() and np.isnan(y).sum() == shape[1]
    rest = np.exp(x - x.max(axis=1, keepdims=True))
    rest /= rest.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y, rest, rtol=1e-5)


@pytest.mark.parametrize("rows, columns", [(3, 5), (1, 300000), (7, 40000)])
def test_copies(rows, columns):
    source = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    target = np.full((rows, columns + 3), -1, np.float32)
    copies.copy_columns(source, 1, target, 2, columns - 1)
    np.testing.assert_array_equal(target[:, 2 : columns + 1], source[:, 1:])
    assert (target[:, :2] == -1).all() and (target[:, columns + 1 :] == -1).all()


@BOTH
def test_copy_clear_and_scaled(count):
    x = np.arange(count, dtype=np.float32).reshape(2, -1)
    y = np.full_like(x, np.nan)
    copies.copy(x, y)
    np.testing.assert_array_equal(y, x)
    activations.scaled(x.reshape(-1), np.float32(-2), y.reshape(-1))
    np.testing.assert_array_equal(y, -2 * x)
    y[0, 0] = np.nan
    copies.clear(y)
    assert (y == 0).all()


@BOTH
def test_gradient_of_the_larger_of_two(count):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (2, count)).astype(np.float32)
    dy = rng.standard_normal(count).astype(np.float32)
    dx = np.full_like(dy, np.nan)
    activations.larger_backward(x, y, True, dy, dx)
    np.testing.assert_array_equal(dx, np.where(x > y, dy, 0))
    activations.larger_backward(x, y, False, dy, dy)
    np.testing.assert_array_equal(dx + dy, np.where(x > y, dx, dy))
    assert (dy[x > y] == 0).all()
