"""Winograd kernels on the CPU against direct sums in float64."""

import os
import subprocess
import sys

import direct_convolution
import numpy as np
import pytest
from direct_convolution import Direct, close
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from demitasse.engine.device import CPU
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.kernels.cpu import (
    convolution,
    simd,
    simd_products,
    simd_transpose,
    winograd,
    winograd_slopes,
)
from demitasse.engine.kernels.cpu.workspace import workspace
from demitasse.engine.kernels.geometry import ConvGeometry


def make(batch, channels, num_output, size, pad=(1, 1), group=1):
    """A geometry of 3x3 windows."""
    one = (1, 1)
    return direct_convolution.make(
        batch, channels, num_output, size, (3, 3), one, pad, one, group
    )  # fmt: skip


def arrays(g, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = g.in_shape, (g.num_output, g.channels // g.group, 3, 3), g.num_output, g.out_shape
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check(g, dtype=np.float32, seed=0):
    x, weight, bias, dy = arrays(g, dtype, seed)
    direct = Direct(x, weight, dy, g)
    y, dx, dw = np.full(g.out_shape, np.nan, dtype), np.full_like(x, np.nan), np.ones_like(weight)
    winograd.forward(x, weight, None, y, g)
    close(y, direct.y)
    winograd.forward(x, weight, bias, y, g)
    close(y, direct.y + bias.reshape(-1, 1, 1))
    winograd.forward(x, weight, bias, y, g, relu=True)
    close(y, np.maximum(direct.y + bias.reshape(-1, 1, 1), 0))
    assert (y >= 0).all()
    winograd.backward_data(dy, weight, dx, g)
    close(dx, direct.dx)
    gated = np.full_like(x, np.nan)
    winograd.backward_data(dy, weight, gated, g, gate=x)
    np.testing.assert_array_equal(gated, np.where(x > 0, dx, 0))
    db = np.ones_like(bias)
    winograd.backward_weight(x, dy, dw, g, db)
    close(dw, direct.dw + 1)
    close(db, dy.sum(axis=(0, 2, 3), dtype=np.float64) + 1)
    again = np.ones_like(weight)
    winograd.backward_weight(x, dy, again, g)
    np.testing.assert_array_equal(again, dw)
    again[...] = np.nan
    winograd.backward_weight(x, dy, again, g, add=False)
    close(again, direct.dw)


@st.composite
def geometries(draw):
    group = draw(st.sampled_from((1, 1, 1, 2, 3)))
    most = 80 // group
    pad = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    size = tuple(draw(st.integers(max(1, 3 - 2 * p), 26)) for p in pad)
    channels, num_output = (group * draw(st.integers(1, most)) for _ in range(2))
    return make(draw(st.integers(1, 3)), channels, num_output, size, pad, group)


@settings(deadline=None, max_examples=40)
@given(geometries(), st.sampled_from((np.float32, np.float64)), st.integers(0, 99))
def test_any_shape(g, dtype, seed):
    check(g, dtype, seed)


@settings(deadline=None, max_examples=40)
@given(
    geometries(), st.integers(1, 40), st.integers(0, 200), st.integers(1, 40), st.booleans(),
    st.integers(1, 5), st.booleans(),
)  # fmt: skip
def test_any_division_of_the_work(g, forward, fused, weight, own, threads, stream):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "FORWARD_TILES", forward)
        patch.setattr(winograd, "FUSED_TILES", fused)
        patch.setattr(winograd, "STREAM_BYTES", 0 if stream else 1 << 40)
        patch.setattr(winograd_slopes, "WEIGHT_TILES", weight)
        patch.setattr(winograd_slopes, "OWN_TILES", weight)
        patch.setattr(winograd_slopes, "OWN_BYTES", 1 << 40 if own else 0)
        patch.setattr(winograd.numba, "get_num_threads", lambda: threads)
        check(g)


CASES = {
    "one pixel": make(1, 1, 1, (1, 1)),
    "no padding": make(1, 4, 5, (3, 3), (0, 0)),
    "padding wider than the window": make(2, 3, 4, (2, 5), (7, 4)),
    "many channels": make(1, 260, 130, (9, 9)),
    "groups": make(2, 66, 132, (7, 10), (1, 1), 3),
    "one channel a group": make(1, 5, 5, (8, 8), (1, 1), 5),
    "a batch of small images": make(9, 20, 20, (4, 4)),
    "wide": make(1, 8, 8, (4, 301)),
    "aligned rows": make(1, 32, 32, (12, 64)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("g", CASES.values(), ids=list(CASES))
def test_shapes(g, dtype):
    check(g, dtype)


def test_no_images():
    g = make(0, 4, 4, (8, 8))
    x, weight, bias, dy = arrays(g, np.float32)
    dw, db = np.ones_like(weight), np.ones_like(bias)
    winograd.forward(x, weight, bias, np.empty_like(dy), g)
    winograd.backward_data(dy, weight, np.empty_like(x), g)
    winograd.backward_weight(x, dy, dw, g, db)
    assert (dw == 1).all() and (db == 1).all()


def test_aligned_outputs_are_written_past_the_caches(monkeypatch):
    monkeypatch.setattr(winograd, "STREAM_BYTES", 0)
    g = make(2, 16, 32, (16, 48))
    x, weight, bias, dy = arrays(g, np.float32)
    y = CPU.zeros(dy.size, np.float32).reshape(dy.shape)
    assert y.ctypes.data % simd.LINE == 0
    winograd.forward(x, weight, bias, y, g)
    close(y, Direct(x, weight, dy, g).y + bias.reshape(-1, 1, 1))


def test_nan_passes_the_relu():
    # As through the ReLU layer: a tile with NaN is NaN, others are what they were.
    g = make(1, 4, 4, (12, 12))
    x, weight, bias, _ = arrays(g, np.float32)
    x[0, :, 0, 0] = np.nan
    y, rectified = np.empty(g.out_shape, np.float32), np.empty(g.out_shape, np.float32)
    winograd.forward(x, weight, bias, y, g)
    winograd.forward(x, weight, bias, rectified, g, relu=True)
    np.testing.assert_array_equal(rectified, np.where(np.isnan(y), y, np.maximum(y, 0)))
    assert np.isnan(rectified[..., 0, 0]).all()
    assert not np.isnan(rectified[..., 6:, :]).any()


def test_results_are_the_same_each_time():
    g = make(2, 40, 70, (23, 31))
    x, weight, bias, dy = arrays(g, np.float32)
    first = None
    for _ in range(3):
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.zeros_like(weight)
        winograd.forward(x, weight, bias, y, g)
        winograd.backward_data(dy, weight, dx, g)
        winograd.backward_weight(x, dy, dw, g)
        first = first or (y, dx, dw)
        for got, expected in zip((y, dx, dw), first):
            np.testing.assert_array_equal(got, expected)


def test_weights_may_change_at_any_time():
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 12))
    layer, bottom, top = make_layer(layer_text(8), [x], dtype=np.float32)
    layer.forward(bottom, top)
    before = top[0].data.copy()
    layer.blobs[0].data[3, 2] *= -2
    layer.forward(bottom, top)
    assert np.abs(top[0].data[:, 3] - before[:, 3]).max() > 0.1
    np.testing.assert_array_equal(np.delete(top[0].data, 3, 1), np.delete(before, 3, 1))


def layer_text(num_output, group=1):
    return (
        f"type: 'Convolution' convolution_param {{ num_output: {num_output} kernel_size: 3 pad: 1 "
        f"group: {group} weight_filler {{ type: 'gaussian' std: 0.5 }} "
        "bias_filler { type: 'gaussian' } }"
    )


@pytest.mark.parametrize("channels, num_output, group", [(3, 4, 1), (4, 4, 2)])
def test_gradients_of_the_layer(channels, num_output, group, monkeypatch):
    monkeypatch.setattr(convolution, "algorithm_for", lambda g, gradient=None: "winograd")
    x = np.random.default_rng(0).standard_normal((2, channels, 5, 3))
    check_gradients(layer_text(num_output, group), [x])


def test_which_convolutions_go_through_the_transforms(monkeypatch):
    name = convolution.algorithm_for
    large = make(1, 64, 64, (14, 14))
    assert name(large) == name(large, gradient="weight") == "winograd"
    assert name(make(1, 3, 64, (224, 224))) == "winograd"
    assert name(make(1, 32, 32, (14, 14), group=32)) == "depthwise"
    assert name(make(1, 32, 32, (14, 14), group=16)) == "product"
    assert name(make(1, 64, 64, (3, 3))) == "product"  # not worth transforming weights for
    assert name(make(16, 64, 64, (3, 3))) == "winograd"
    assert name(make(99, 64, 64, (2, 2))) == "product"  # tiles of which a quarter is used
    for change in ({"stride": (2, 2)}, {"dilation": (2, 2)}, {"kernel": (5, 5)}):
        fields = {**large.__dict__, **change}
        changed = ConvGeometry(**{k: fields[k] for k in ConvGeometry.__match_args__})
        assert name(changed) == "product"
    monkeypatch.setattr(convolution, "_direct", False)
    convolution.use_direct()
    assert name(large) == name(large, gradient="weight") == "product"
    convolution.use_direct(False)
    assert name(large) == "winograd"


@pytest.mark.parametrize("value, expected", [("1", "product"), ("0", "winograd"), ("", "winograd")])
def test_the_environment_asks_for_direct_convolutions(value, expected):
    code = (
        "from demitasse.engine.kernels.cpu.convolution import algorithm_for\n"
        "from demitasse.engine.kernels.geometry import ConvGeometry as G\n"
        "one = (1, 1)\n"
        "print(algorithm_for(G(1, 8, 8, (16, 16), (16, 16), (3, 3), one, one, one)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"DEMITASSE_DIRECT_CONVOLUTION": value},
    )  # fmt: skip
    assert result.stdout.strip() == expected


# ---- the instructions underneath


@njit
def _product(a, b, c, depth, width, add):
    simd_products.multiply(a, 0, a.shape[1], 1, b, 0, width, depth, c, 0, c.shape[1], width, add)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("add", [False, True])
def test_multiply(dtype, add):
    rng = np.random.default_rng(0)
    for width in range(simd.LANES, simd.PANEL + 1, simd.LANES):
        for depth in (1, 2, 17):
            a = rng.standard_normal((simd.ROWS, depth)).astype(dtype)
            b = rng.standard_normal((depth, width)).astype(dtype)
            c = np.ones((simd.ROWS + 1, width + 3), dtype)
            _product(a, b, c, depth, width, add)
            expected = np.ones_like(c)
            expected[:-1, :width] = a.astype(np.float64) @ b + add
            np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


@njit
def _transposes(a, b, rows, low, high, gate):
    lanes = simd.LANES
    size = lanes * lanes
    simd_transpose.transpose(a, 0, lanes, b, 0, lanes)
    simd_transpose.transpose_from(a, 0, lanes, b, size, lanes, rows, low, high)
    simd_transpose.transpose_to(a, 0, lanes, b, 2 * size, lanes, rows, low, high)
    simd_transpose.transpose_add_to(a, 0, lanes, b, 3 * size, lanes, rows, low, high)
    simd_transpose.transpose_gated(a, 0, lanes, b, 4 * size, lanes, gate)
    simd_transpose.transpose_gated_to(a, 0, lanes, b, 5 * size, lanes, rows, low, high, gate)


@pytest.mark.parametrize("rows, low, high", [(0, 0, 0), (2, -3, 5), (99, 1, 99), (5, 4, 2)])
def test_transpose(rows, low, high):
    n = simd.LANES
    a = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    b = np.full((6, n, n), 7, np.float32)
    gate = np.random.default_rng(1).integers(-1, 2, b.shape).astype(np.float32)
    _transposes(a, b, rows, low, high, gate)
    row, lane = np.indices((n, n))
    inside = (row < rows) & (lane >= low) & (lane < high)
    np.testing.assert_array_equal(b[0], a.T)
    np.testing.assert_array_equal(b[1], np.where(inside, a, 0).T)
    np.testing.assert_array_equal(b[2], np.where(inside, a.T, 7))
    np.testing.assert_array_equal(b[3], np.where(inside, a.T + np.float32(7), 7))
    np.testing.assert_array_equal(b[4], np.where(gate[4] > 0, a.T, 0))
    np.testing.assert_array_equal(b[5], np.where(inside, np.where(gate[5] > 0, a.T, 0), 7))


def test_workspace():
    a, b = workspace(np.float32, (3, 5), (7,))
    assert (a.shape, b.shape, a.dtype) == ((3, 5), (7,), np.float32)
    a[...], b[...] = 1, 2
    assert (a == 1).all()
    assert all(x.ctypes.data % simd.LINE == 0 for x in (a, b))
    place = a.ctypes.data
    assert workspace(np.float64, (2,))[0].ctypes.data == place  # the same memory, not more
    (large,) = workspace(np.float32, (1 << 20,))
    assert workspace(np.float32, (1 << 20,))[0].ctypes.data == large.ctypes.data
