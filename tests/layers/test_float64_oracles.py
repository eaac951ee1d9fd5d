"""Layers over random shapes, in both precisions, against formulas in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.gradient_check import make_layer

LIMIT = {np.float32: 1e-4, np.float64: 1e-10}
EPS = 0.125  # exact in both precisions


def batch_norm(xs, params, dy):
    (x,) = xs
    axes = (0, 2)
    deviation = np.sqrt(x.var(axis=axes, keepdims=True) + EPS)
    y = (x - x.mean(axis=axes, keepdims=True)) / deviation
    mean, slope = (a.mean(axis=axes, keepdims=True) for a in (dy, dy * y))
    return y, [(dy - mean - y * slope) / deviation], []


def scale(xs, params, dy):
    (x,), (factor, offset) = xs, params
    column = (slice(None), None)
    grads = [(dy * x).sum(axis=(0, 2)), dy.sum(axis=(0, 2))]
    return x * factor[column] + offset[column], [dy * factor[column]], grads


def prelu(xs, params, dy):
    (x,), slope = xs, params[0][:, None]
    dslope = (dy * np.minimum(x, 0)).sum(axis=(0, 2))
    return np.where(x > 0, x, x * slope), [np.where(x > 0, dy, dy * slope)], [dslope]


def softmax(xs, params, dy):
    y = np.exp(xs[0] - xs[0].max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    return y, [y * (dy - (y * dy).sum(axis=1, keepdims=True))], []


def inner_product(xs, params, dy):
    (x,), (weight, bias) = xs, params
    flat = x.reshape(len(x), -1)
    return flat @ weight.T + bias, [(dy @ weight).reshape(x.shape)], [dy.T @ flat, dy.sum(axis=0)]


def weighted_sum(xs, params, dy):
    a, b, c = xs
    return 2 * a - 0.5 * b + c, [2 * dy, -0.5 * dy, dy], []


def product(xs, params, dy):
    a, b, c = xs
    return a * b * c, [dy * b * c, dy * a * c, dy * a * b], []


def maximum(xs, params, dy):
    y = np.max(xs, axis=0)
    return y, [np.where(x == y, dy, 0) for x in xs], []


def concat(xs, params, dy):
    return np.concatenate(xs, axis=1), np.split(dy, len(xs), axis=1), []


def of_one_number(function, slope):
    """The oracle of a layer that applies a function to each element; `slope` is of x and y."""

    def oracle(xs, params, dy):
        y = function(xs[0])
        return y, [dy * slope(xs[0], y)], []

    return oracle


FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
# name: (text, number of bottoms, oracle)
CASES = {
    "BatchNorm": (f'type: "BatchNorm" batch_norm_param {{ eps: {EPS} }}', 1, batch_norm),
    "Scale": ('type: "Scale" scale_param { bias_term: true }', 1, scale),
    "PReLU": ('type: "PReLU"', 1, prelu),
    "Softmax": ('type: "Softmax"', 1, softmax),
    "InnerProduct": (
        f'type: "InnerProduct" inner_product_param {{ num_output: 19 {FILLERS} }}',
        1, inner_product,
    ),
    "Eltwise SUM": (
        'type: "Eltwise" eltwise_param { coeff: 2 coeff: -0.5 coeff: 1 }', 3, weighted_sum
    ),
    "Eltwise PROD": ('type: "Eltwise" eltwise_param { operation: PROD }', 3, product),
    "Eltwise MAX": ('type: "Eltwise" eltwise_param { operation: MAX }', 3, maximum),
    "Concat": ('type: "Concat"', 3, concat),
    "ReLU": (
        'type: "ReLU"', 1, of_one_number(lambda x: np.maximum(x, 0), lambda x, y: x > 0)
    ),
    "ELU": (
        'type: "ELU"', 1,
        of_one_number(
            lambda x: np.where(x > 0, x, np.expm1(x)), lambda x, y: np.exp(np.minimum(x, 0))
        ),
    ),
    "Sigmoid": (
        'type: "Sigmoid"', 1,
        of_one_number(lambda x: 1 / (1 + np.exp(-x)), lambda x, y: y * (1 - y)),
    ),
    "TanH": ('type: "TanH"', 1, of_one_number(np.tanh, lambda x, y: 1 - y * y)),
}  # fmt: skip

SHAPES = st.tuples(
    st.integers(1, 4), st.integers(1, 40), st.one_of(st.integers(1, 40), st.just(700))
)
DTYPES = st.sampled_from([np.float32, np.float64])


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, dtype=DTYPES, seed=st.integers(0, 99))
def test_any_shape(name, shape, dtype, seed):
    text, count, oracle = CASES[name]
    rng = np.random.default_rng(seed)
    xs = [rng.normal(1, 2, shape).astype(dtype) for _ in range(count)]
    layer, bottom, top = make_layer(text, xs, dtype=dtype)
    learnt = layer.blobs if name != "BatchNorm" else []  # its statistics are not
    for blob in learnt:
        blob.array[...] = rng.normal(1, 2, blob.shape)
        blob.grad[...] = 1
    dy = rng.normal(1, 2, top[0].shape).astype(dtype)
    layer.forward(bottom, top)
    top[0].grad[...] = dy
    for blob in bottom:
        blob.grad[...] = np.nan
    layer.backward(top, [True] * count, bottom)
    exact = [[a.astype(np.float64) for a in group] for group in (xs, [b.array for b in learnt])]
    y, dxs, dparams = oracle(*exact, dy.astype(np.float64))
    close(top[0].array, y, dtype)
    for blob, dx in zip(bottom, dxs, strict=True):
        close(blob.grad, dx, dtype)
    for blob, dparam in zip(learnt, dparams, strict=True):
        close(blob.grad, 1 + dparam, dtype)


def close(got, expected, dtype):
    assert got.dtype == dtype and got.shape == expected.shape
    # Of a softmax of one channel, or a norm of one element, the gradient is zero but for rounding.
    assert np.abs(got - expected).max() <= LIMIT[dtype] * max(np.abs(expected).max(), 1e-2)
