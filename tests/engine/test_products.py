"""Convolutions by our own product of matrices, at sizes that fill panels, blocks and tasks."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import convolution, product_slopes, products
from demitasse.engine.kernels.cpu.simd import ROWS
from demitasse.engine.kernels.geometry import ConvGeometry, conv_size


def make(batch, channels, num_output, size, kernel=1, stride=1, pad=0, dilation=1, group=1):
    """A geometry of two axes, square windows."""
    pairs = [(number,) * 2 for number in (kernel, stride, pad, dilation)]
    out = tuple(conv_size(n, kernel, stride, pad, dilation) for n in size)
    return ConvGeometry(batch, channels, num_output, size, out, *pairs, group)


GEOMETRIES = {
    "deep": make(1, 300, 50, (7, 9)),
    "joined": make(5, 140, 100, (7, 7)),
    "wide": make(2, 20, 70, (30, 41)),
    "stem": make(1, 3, 40, (61, 58), 7, 2, 3),
    "stride 4": make(2, 3, 20, (67, 67), 11, 4),
    "stride 3": make(1, 5, 9, (40, 50), 3, 3, 1),
    "strided pointwise": make(3, 33, 21, (28, 28), 1, 2),
    "5x5 in groups": make(2, 24, 40, (27, 13), 5, 1, 2, group=2),
    "dilated": make(1, 30, 10, (20, 20), 3, 1, 2, 2),
    "depthwise": make(2, 6, 6, (33, 30), 3, 1, 1, group=6),
    "pad of the whole window": make(1, 4, 5, (5, 6), 3, 1, 2),
}


def column_matrix(x, g):
    """(N, group, K, positions) in float64, by plain loops."""
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in g.pad)))
    parts = []
    for i, j in np.ndindex(*g.kernel):
        rows, columns = (
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip((i, j), g.dilation, g.stride, g.out_size)
        )
        parts.append(padded[:, :, rows, columns])
    columns = np.stack(parts, 2).astype(np.float64)
    return columns.reshape(g.batch, g.group, g.kernel_count, g.out_count)


def near(got, expected, dtype):
    limit = 1e-5 if dtype == np.float32 else 1e-13
    assert np.abs(got - expected).max() < limit * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_results(name, dtype):
    g, rng = GEOMETRIES[name], np.random.default_rng(0)
    x = rng.standard_normal(g.in_shape).astype(dtype)
    weight = rng.standard_normal((g.num_output, g.channels // g.group, *g.kernel)).astype(dtype)
    bias = rng.standard_normal(g.num_output).astype(dtype)
    columns = column_matrix(x, g)
    w = weight.astype(np.float64).reshape(g.group, -1, g.kernel_count)
    expected = (w @ columns).reshape(g.out_shape)
    y = np.full(g.out_shape, np.nan, dtype)
    products.forward(x, weight, None, y, g)
    near(y, expected, dtype)
    products.forward(x, weight, bias, y, g, relu=True)
    near(y, np.maximum(expected + bias[:, None, None], 0), dtype)

    dy = rng.standard_normal(y.shape).astype(dtype)
    slopes = dy.astype(np.float64).reshape(g.batch, g.group, -1, g.out_count)
    dw = np.ones_like(weight)
    product_slopes.backward_weight(x, dy, dw, g)
    expected = (slopes @ columns.swapaxes(2, 3)).sum(0).reshape(dw.shape)
    near(dw - 1, expected, dtype)
    dw[...] = np.nan
    product_slopes.backward_weight(x, dy, dw, g, add=False)
    near(dw, expected, dtype)
    if not products.suits_data(g):
        return
    dx, gated = np.full_like(x, np.nan), np.full_like(x, np.nan)
    products.backward_data(dy, weight, dx, g)
    products.backward_data(dy, weight, gated, g, gate=x)
    np.testing.assert_array_equal(gated, np.where(x > 0, dx, 0))
    # By definition: the other side of the same product, for any x.
    other = rng.standard_normal(x.shape)
    assert (dx * other).sum() == pytest.approx((w @ column_matrix(other, g) * slopes).sum(), 1e-4)
    check = np.empty_like(dx)
    convolution.backward_data(dy, weight, check, g, "columns")
    near(dx, check, dtype)


DTYPES = st.sampled_from([np.float32, np.float64])


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 90)), st.integers(1, 5), st.integers(1, 4),
    st.integers(0, 6), st.integers(1, 2), DTYPES,
)  # fmt: skip
def test_lines_of_any_length(counts, size, kernel, stride, pad, dilation, dtype):
    batch, group, channels = counts
    pad = max(pad, -(-(dilation * (kernel - 1) + 1 - min(size)) // 2))
    g = make(batch, group * channels, 2 * group, size, kernel, stride, pad, dilation, group)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(g.in_shape).astype(dtype)
    weight = rng.standard_normal((2 * group, channels, kernel, kernel)).astype(dtype)
    w = weight.astype(np.float64).reshape(group, -1, g.kernel_count)
    y = np.full(g.out_shape, np.nan, dtype)
    products.forward(x, weight, None, y, g)
    expected = (w @ column_matrix(x, g)).reshape(g.out_shape)
    limit = 1e-4 if dtype == np.float32 else 1e-10
    assert np.abs(y - expected).max() <= limit * np.abs(expected).max()


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 9), st.integers(1, 40)), st.integers(2, 4), DTYPES,
)  # fmt: skip
def test_strided_pointwise_gradient(counts, size, stride, dtype):
    batch, group, channels, outputs = counts
    g = make(batch, group * channels, group * outputs, size, 1, stride, group=group)
    rng = np.random.default_rng(0)
    dy = rng.standard_normal(g.out_shape).astype(dtype)
    weight = rng.standard_normal((group * outputs, channels, 1, 1)).astype(dtype)
    x, dx, gated = (rng.standard_normal(g.in_shape).astype(dtype) for _ in range(3))
    if channels > 1:  # otherwise it may be depthwise
        assert convolution.algorithm_for(g, "data") == "strided"
    convolution.backward_data(dy, weight, dx, g, "strided")
    convolution.backward_data(dy, weight, gated, g, "strided", gate=x)
    np.testing.assert_array_equal(gated, np.where(x > 0, dx, 0))
    w = weight.astype(np.float64).reshape(group, outputs, channels)
    slopes = w.swapaxes(1, 2) @ dy.astype(np.float64).reshape(batch, group, outputs, -1)
    expected = np.zeros(g.in_shape)
    expected[:, :, ::stride, ::stride] = slopes.reshape(batch, -1, *g.out_size)
    limit = 1e-4 if dtype == np.float32 else 1e-10
    assert np.abs(dx - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("name", ["deep", "joined", "wide", "stem", "5x5 in groups"])
def test_any_number_of_threads(name):
    g, rng = GEOMETRIES[name], np.random.default_rng(0)
    x = rng.standard_normal(g.in_shape)
    weight = rng.standard_normal((g.num_output, g.channels // g.group, *g.kernel))
    dy = rng.standard_normal(g.out_shape)
    most, results = numba.get_num_threads(), []
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            y, dw = np.empty_like(dy), np.zeros_like(weight)
            products.forward(x, weight, None, y, g)
            product_slopes.backward_weight(x, dy, dw, g)
            results.append((y, dw))
    finally:
        numba.set_num_threads(most)
    for y, dw in results:
        near(y, results[0][0], np.float64)
        near(dw, results[0][1], np.float64)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 20), st.integers(1, 5), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([16, 32, 64]), st.integers(1, 70),
)  # fmt: skip
def test_tasks_cover_each_output_once(batch, group, count, rows, width, threads):
    bounds, tasks, _ = products._partition(batch, group, count, rows, width, threads)
    assert (np.diff(bounds) > 0).all() and (np.diff(bounds) <= width).all()
    assert bounds[0] == 0 and bounds[-1] == batch * count
    covered = np.zeros((len(bounds) - 1, rows), int)
    for first, last, top, bottom in tasks:
        assert first < last and top < bottom and top % ROWS == 0
        covered[first:last, top:bottom] += 1
    assert (covered == 1).all()
    assert len(tasks) <= threads


def test_nan_passes():
    g = GEOMETRIES["wide"]
    x, weight = np.ones(g.in_shape, np.float32), np.ones((70, 20, 1, 1), np.float32)
    x[1, 3, 2, 40] = np.nan
    y = np.empty(g.out_shape, np.float32)
    products.forward(x, weight, None, y, g, relu=True)
    assert np.isnan(y[1, :, 2, 40]).all() and np.isnan(y).sum() == 70
