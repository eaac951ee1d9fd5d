"""Convolution kernels on the CPU: every algorithm, every division into blocks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import convolution, product_slopes, products, strided
from demitasse.engine.kernels.cpu.im2col import col2im, im2col
from demitasse.engine.kernels.geometry import ConvGeometry, conv_size

rng = np.random.default_rng(0)


def make(batch, channels, num_output, size, kernel, stride, pad, dilation, group=1):
    """A geometry with the output size that follows."""
    out = tuple(map(conv_size, size, kernel, stride, pad, dilation))
    return ConvGeometry(
        batch, channels, num_output, size, out, kernel, stride, pad, dilation, group
    )  # fmt: skip


def windows(x, g):
    """What each weight meets, by plain loops: (N, C, *kernel, *out_size)."""
    space = tuple(range(2, x.ndim))
    pads = ((0, 0), (0, 0), *((p, p) for p in g.pad))
    padded = np.pad(x, pads)
    out = np.empty((*x.shape[:2], *g.kernel, *g.out_size), x.dtype)
    for k in np.ndindex(*g.kernel):
        first = [i * d for i, d in zip(k, g.dilation)]
        part = tuple(
            slice(f, f + s * (n - 1) + 1, s) for f, s, n in zip(first, g.stride, g.out_size)
        )
        out[(slice(None), slice(None), *k)] = padded[(slice(None), slice(None), *part)]
    assert len(space) == len(g.kernel)
    return out


def oracle(x, weight, g):
    """The convolution as one tensor product per group."""
    axes = len(g.kernel)
    met = windows(x, g)
    inputs, outputs = g.channels // g.group, g.num_output // g.group
    parts = []
    for i in range(g.group):
        part = met[:, i * inputs : (i + 1) * inputs]
        w = weight[i * outputs : (i + 1) * outputs]
        summed = range(1, axes + 2)
        y = np.tensordot(w, part, (list(summed), list(summed)))  # (O, N, *out)
        parts.append(y.swapaxes(0, 1))
    return np.concatenate(parts, axis=1)


GEOMETRIES = {
    "1d": make(2, 3, 4, (9,), (3,), (2,), (1,), (1,)),
    "2d": make(2, 3, 4, (6, 5), (3, 2), (1, 2), (1, 0), (1, 1)),
    "dilated": make(2, 2, 3, (9, 7), (3, 3), (2, 1), (2, 3), (2, 3)),
    "3d": make(2, 2, 3, (4, 3, 5), (2, 3, 3), (1, 2, 1), (0, 1, 1), (1, 1, 2)),
    "4d": make(1, 2, 2, (3, 2, 3, 4), (2, 2, 1, 3), (1, 1, 2, 1), (1, 0, 0, 1), (1, 1, 1, 1)),
    "group": make(3, 4, 6, (5, 4), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "depthwise": make(2, 3, 3, (5, 5), (3, 3), (2, 2), (1, 1), (1, 1), 3),
    "pad wider than image": make(1, 1, 2, (2, 2), (3, 3), (1, 1), (4, 4), (1, 1)),
    "pointwise": make(3, 4, 2, (4, 3), (1, 1), (1, 1), (0, 0), (1, 1)),
    "pointwise group": make(2, 4, 6, (3, 2), (1, 1), (1, 1), (0, 0), (1, 1), 2),
    "1x1 with stride": make(2, 3, 2, (5, 5), (1, 1), (2, 2), (0, 0), (1, 1)),
    "one position": make(3, 2, 4, (3, 3), (3, 3), (1, 1), (0, 0), (1, 1)),
}
CASES = [
    (name, algorithm, block)
    for name in GEOMETRIES
    for algorithm, blocks in (("product", (1, 1 << 20)), ("columns", (1, 700, 1 << 22)))
    for block in blocks
]


def arrays(g, dtype):
    x = rng.standard_normal(g.in_shape).astype(dtype)
    weight = rng.standard_normal((g.num_output, g.channels // g.group, *g.kernel)).astype(dtype)
    bias = rng.standard_normal(g.num_output).astype(dtype)
    return x, weight, bias


def close(got, expected, dtype):
    tolerance = 1e-11 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name, algorithm, block", CASES)
def test_forward_and_gradients(name, algorithm, block, monkeypatch):
    # The gradients of a bilinear function follow from its values: <y(x, w), dy> is linear in each.
    monkeypatch.setattr(convolution, "BLOCK_BYTES", block)
    monkeypatch.setattr(convolution, "JOIN_COUNT", 8)
    monkeypatch.setattr(products, "PANEL_BYTES", block)
    monkeypatch.setattr(product_slopes, "BLOCK_BYTES", block)
    g, dtype = GEOMETRIES[name], np.float64
    x, weight, bias = arrays(g, dtype)
    y = np.full(g.out_shape, np.nan)
    convolution.forward(x, weight, bias, y, g, algorithm)
    per_channel = (-1,) + (1,) * len(g.kernel)
    close(y, oracle(x, weight, g) + bias.reshape(per_channel), dtype)
    convolution.forward(x, weight, None, y, g, algorithm)
    close(y, oracle(x, weight, g), dtype)

    dy = rng.standard_normal(y.shape)
    dx, dw, db = np.full(x.shape, np.nan), np.ones(weight.shape), np.ones(bias.shape)
    for_data = algorithm if products.suits_data(g) else "columns"
    if algorithm == "product" and strided.suits(g):
        for_data = "strided"
    convolution.backward_data(dy, weight, dx, g, for_data)
    convolution.backward_weight(x, dy, dw, g, algorithm, db)
    alone = np.full(weight.shape, np.nan)
    convolution.backward_weight(x, dy, alone, g, algorithm, add=False)
    close(alone, dw - 1, dtype)
    gated = np.empty_like(x)
    convolution.backward_data(dy, weight, gated, g, for_data, gate=x)
    np.testing.assert_array_equal(gated, np.where(x > 0, dx, 0))
    for index in np.ndindex(*x.shape):
        unit = np.zeros(x.shape)
        unit[index] = 1
        close(dx[index], (oracle(unit, weight, g) * dy).sum(), dtype)
    for index in np.ndindex(*weight.shape):
        unit = np.zeros(weight.shape)
        unit[index] = 1
        close(dw[index] - 1, (oracle(x, unit, g) * dy).sum(), dtype)
    close(db - 1, dy.sum(axis=(0, *range(2, dy.ndim))), dtype)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_shape_in_float32(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    axes, group = draw(1, 3), draw(1, 3)
    each = lambda low, high: tuple(draw(low, high) for _ in range(axes))  # noqa: E731
    kernel, stride, pad, dilation = each(1, 3), each(1, 3), each(0, 3), each(1, 2)
    size = tuple(
        max(d * (k - 1) + 1 - 2 * p, 1) + draw(0, 4) for k, p, d in zip(kernel, pad, dilation)
    )
    g = make(
        draw(0, 3), group * draw(1, 2), group * draw(1, 2), size, kernel, stride, pad, dilation,
        group,
    )  # fmt: skip
    x, weight, bias = arrays(g, np.float32)
    y = np.empty(g.out_shape, np.float32)
    convolution.forward(x, weight, bias, y, g)
    expected = oracle(x, weight, g) + bias.reshape((-1,) + (1,) * axes)
    close(y, expected, np.float32)
    # The transpose: <conv(x), dy> = <x, backward_data(dy)> = <weight, backward_weight(x, dy)>.
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx, dw, db = np.empty_like(x), np.zeros_like(weight), np.zeros_like(bias)
    convolution.backward_data(dy, weight, dx, g)
    convolution.backward_weight(x, dy, dw, g, db=db)
    alone = np.full_like(dw, np.nan)
    convolution.backward_weight(x, dy, alone, g, add=False)
    close(alone, dw, np.float32)
    total = dy.sum(axis=(0, *range(2, dy.ndim)), dtype=np.float64)
    close(db, total, np.float32)
    db[...] = 0
    convolution.backward_bias(dy, db, g)
    close(db, total, np.float32)
    product = float((oracle(x, weight, g) * dy).sum())
    assert float((x * dx).sum()) == pytest.approx(product, rel=1e-3, abs=1e-3)
    assert float((weight * dw).sum()) == pytest.approx(product, rel=1e-3, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_im2col_in_parts(data):
    g = data.draw(st.sampled_from(list(GEOMETRIES.values())))
    first = data.draw(st.integers(0, g.out_count - 1))
    count = data.draw(st.integers(1, g.out_count - first))
    x = rng.standard_normal(g.in_shape)
    rows = g.kernel_count * g.group
    col = np.full((rows, g.batch, count), np.nan)
    im2col(x, g, col, first)
    whole = windows(x, g).reshape(g.batch, rows, g.out_count).swapaxes(0, 1)
    np.testing.assert_array_equal(col, whole[..., first : first + count])
    # col2im is the transpose, and it adds.
    slopes = rng.standard_normal(col.shape)
    dx = np.ones_like(x)
    col2im(slopes, g, dx, first)
    assert (x * (dx - 1)).sum() == pytest.approx((col * slopes).sum())


def test_large_images_do_not_take_a_column_buffer():
    g = make(1, 32, 8, (256, 256), (3, 3), (1, 1), (1, 1), (1, 1))
    x, weight, _ = arrays(g, np.float32)
    y, dx, dw = np.zeros(g.out_shape, np.float32), np.empty_like(x), np.zeros_like(weight)
    whole = g.kernel_count * g.out_count * 4

    def run():
        convolution.forward(x, weight, None, y, g)
        convolution.backward_data(y, weight, dx, g)
        convolution.backward_weight(x, y, dw, g)

    run()  # compiling, too, takes memory
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6 < whole


def test_results_do_not_depend_on_the_pass():
    g = GEOMETRIES["2d"]
    x, weight, bias = arrays(g, np.float32)
    first, second = np.empty(g.out_shape, np.float32), np.empty(g.out_shape, np.float32)
    convolution.forward(x, weight, bias, first, g)
    convolution.forward(x, weight, bias, second, g)
    np.testing.assert_array_equal(first, second)
