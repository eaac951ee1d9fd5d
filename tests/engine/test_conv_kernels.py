"""Convolution kernels on the CPU: every algorithm, every division into blocks."""

import tracemalloc

import numpy as np
import pytest
from direct_convolution import Direct, close, make, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import convolution, product_slopes, products, strided
from demitasse.engine.kernels.cpu.im2col import col2im, im2col
from demitasse.engine.kernels.geometry import window_extent

rng = np.random.default_rng(0)


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


@pytest.mark.parametrize("name, algorithm, block", CASES)
def test_forward_and_gradients(name, algorithm, block, monkeypatch):
    monkeypatch.setattr(convolution, "BLOCK_BYTES", block)
    monkeypatch.setattr(convolution, "JOIN_COUNT", 8)
    monkeypatch.setattr(products, "PANEL_BYTES", block)
    monkeypatch.setattr(product_slopes, "BLOCK_BYTES", block)
    g = GEOMETRIES[name]
    x, weight, bias = arrays(g, np.float64)
    dy = rng.standard_normal(g.out_shape)
    direct = Direct(x, weight, dy, g)
    y = np.full(g.out_shape, np.nan)
    convolution.forward(x, weight, bias, y, g, algorithm)
    per_channel = (-1,) + (1,) * len(g.kernel)
    close(y, direct.y + bias.reshape(per_channel))
    convolution.forward(x, weight, None, y, g, algorithm)
    close(y, direct.y)

    dx, dw, db = np.full(x.shape, np.nan), np.ones(weight.shape), np.ones(bias.shape)
    for_data = algorithm if products.suits_data(g) else "columns"
    if algorithm == "product" and strided.suits(g):
        for_data = "strided"
    convolution.backward_data(dy, weight, dx, g, for_data)
    close(dx, direct.dx)
    convolution.backward_weight(x, dy, dw, g, algorithm, db)
    close(dw - 1, direct.dw)
    close(db - 1, dy.sum(axis=(0, *range(2, dy.ndim))))
    alone = np.full(weight.shape, np.nan)
    convolution.backward_weight(x, dy, alone, g, algorithm, add=False)
    close(alone, direct.dw)
    gated = np.empty_like(x)
    convolution.backward_data(dy, weight, gated, g, for_data, gate=x)
    np.testing.assert_array_equal(gated, np.where(x > 0, dx, 0))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_direct_gradients(name):
    # Those of a bilinear function follow from its values: <y(x, w), dy> is linear in each.
    g = GEOMETRIES[name]
    x, weight, _ = arrays(g, np.float64)
    dy = rng.standard_normal(g.out_shape)
    direct = Direct(x, weight, dy, g)
    for index in np.ndindex(*x.shape):
        unit = np.zeros(x.shape)
        unit[index] = 1
        assert direct.dx[index] == pytest.approx((Direct(unit, weight, dy, g).y * dy).sum())
    for index in np.ndindex(*weight.shape):
        unit = np.zeros(weight.shape)
        unit[index] = 1
        assert direct.dw[index] == pytest.approx((Direct(x, unit, dy, g).y * dy).sum())


@st.composite
def geometries(draw):
    """Windows of 1 to 5, in padding of any width, also one that sticks out of it."""
    pick = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    axes, group = pick(1, 3), pick(1, 3)
    widest = 5 if axes < 3 else 3
    each = lambda low, high: tuple(pick(low, high) for _ in range(axes))  # noqa: E731
    kernel, stride, pad, dilation = each(1, widest), each(1, 3), each(0, widest + 1), each(1, 2)
    size = tuple(
        max(window_extent(k, d) - 2 * p - (s - 1), 1) + pick(0, 9 - 2 * axes)
        for k, s, p, d in zip(kernel, stride, pad, dilation)
    )
    channels, num_output = group * pick(1, 20 // axes), group * pick(1, 20 // axes)
    return make(pick(0, 3), channels, num_output, size, kernel, stride, pad, dilation, group)


@settings(deadline=None, max_examples=200)
@given(geometries(), st.sampled_from([np.float32, np.float64]), st.booleans(), st.integers(0, 99))
def test_any_shape(g, dtype, by_columns, seed):
    # All are above zero: no sum cancels, so that the error relative to it is the kernel's.
    rng = np.random.default_rng(seed)
    shapes = g.in_shape, (g.num_output, g.channels // g.group, *g.kernel), (g.num_output,)
    x, weight, bias, dy = (
        rng.uniform(0.1, 1, shape).astype(dtype) for shape in (*shapes, g.out_shape)
    )
    direct = Direct(x, weight, dy, g)
    algorithm = "columns" if by_columns else None
    y, dx, alone = (np.full(shape, np.nan, dtype) for shape in (dy.shape, x.shape, weight.shape))
    convolution.forward(x, weight, bias, y, g)
    close(y, direct.y + bias.reshape((-1,) + (1,) * len(g.kernel)))
    convolution.backward_data(dy, weight, dx, g, algorithm)
    close(dx, direct.dx)
    dw, db = np.ones_like(weight), np.ones_like(bias)
    convolution.backward_weight(x, dy, dw, g, algorithm, db)
    close(dw, 1 + direct.dw)
    total = dy.sum(axis=(0, *range(2, dy.ndim)), dtype=np.float64)
    close(db, 1 + total)
    convolution.backward_weight(x, dy, alone, g, algorithm, add=False)
    close(alone, direct.dw)
    db[...] = 0
    convolution.backward_bias(dy, db, g)
    close(db, total)


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
