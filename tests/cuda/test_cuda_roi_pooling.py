"""RoI pooling: the CUDA text against the CPU's kernels, to the last bit."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import roi_pooling as cpu
from demitasse.engine.kernels.cuda import host

rng = np.random.default_rng(0)


def made_up(dtype, count=40, size=(12, 17), images=2, channels=35, pooled=(7, 7)):
    """A map with many equal values, RoIs in and out of it, some malformed, and slopes."""
    x = rng.integers(-9, 9, (images, channels, *size)).astype(dtype)
    corners = rng.uniform(-60, 16 * max(size) + 60, (count, 2))
    sides = rng.uniform(-20, 150, (count, 2))
    index = rng.integers(0, images, (count, 1))
    rois = np.concatenate([index, corners, corners + sides], axis=1).astype(dtype)
    rois[:4, 1:] = [8, 8, 8, 8], [-500, 0, -400, 90], [0, 0, 1e9, 1e9], [24, 40, 23.9, 56]
    dy = rng.standard_normal((count, channels, *pooled)).astype(dtype)
    return x, rois, dy


def both_passes(place, x, rois, dy, scale):
    """y, argmax and dx of the place's kernels."""
    y, argmax, dx = place.put(np.ones_like(dy), np.zeros(dy.shape, np.int32), np.ones_like(x))
    place.roi_pooling.forward(*place.put(x, rois), scale, y, argmax)
    place.roi_pooling.backward(place.put(dy), argmax, place.put(rois), scale, dx)
    return place.get(y), place.get(argmax), place.get(dx)


@pytest.mark.parametrize("pooled", [(7, 7), (1, 3), (6, 50)])
@pytest.mark.parametrize("scale", [1 / 16, 0.07])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_passes(place, pooled, scale, dtype):
    x, rois, dy = made_up(dtype, pooled=pooled)
    y, argmax, dx = np.empty_like(dy), np.empty(dy.shape, np.int32), np.empty_like(x)
    cpu.forward(x, rois, scale, y, argmax)
    cpu.backward(dy, argmax, rois, scale, dx)
    found = both_passes(place, x, rois, dy, scale)
    for ours, expected in zip(found, (y, argmax, dx)):
        np.testing.assert_array_equal(ours, expected)
    without = place.put(np.ones_like(dy))
    place.roi_pooling.forward(*place.put(x, rois), scale, without, None)
    np.testing.assert_array_equal(place.get(without), y)


def test_a_map_that_a_block_cannot_hold(place):
    x, rois, dy = made_up(np.float32, size=(110, 120), images=1, channels=2, count=5)
    argmax, dx = np.empty(dy.shape, np.int32), np.empty_like(x)
    cpu.forward(x, rois, 1 / 16, np.empty_like(dy), argmax)
    cpu.backward(dy, argmax, rois, 1 / 16, dx)
    np.testing.assert_array_equal(both_passes(place, x, rois, dy, 1 / 16)[2], dx)
    halves = [v.astype(np.float16) for v in (x, dy)]
    found = place.put(np.ones_like(halves[0]))
    rois = place.put(rois.clip(-6e4, 6e4).astype(np.float16))  # 1e9 is not finite there
    place.roi_pooling.backward(place.put(halves[1]), place.put(argmax), rois, 1 / 16, found)
    cpu.backward(halves[1].astype(np.float32), argmax, place.get(rois).astype("f4"), 1 / 16, dx)
    np.testing.assert_array_equal(place.get(found), dx.astype(np.float16))


def test_the_order_of_threads_does_not_matter(place):
    x, rois, dy = made_up(np.float32)
    first = both_passes(place, x, rois, dy, 1 / 16)
    with host.backwards():
        second = both_passes(place, x, rois, dy, 1 / 16)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


def test_nothing_to_pool(place):
    x, rois, dy = made_up(np.float32)
    dx = place.put(np.ones_like(x))
    nothing = place.put(dy[:0], np.zeros((0, *dy.shape[1:]), np.int32), rois[:0])
    place.roi_pooling.forward(place.put(x), nothing[2], 1 / 16, nothing[0], nothing[1])
    place.roi_pooling.backward(*nothing, 1 / 16, dx)
    assert not place.get(dx).any()
    y, argmax = place.put(np.ones_like(dy), np.zeros(dy.shape, np.int32))
    place.roi_pooling.forward(*place.put(x[:, :, :0], rois), 1 / 16, y, argmax)
    assert not place.get(y).any() and (place.get(argmax) == -1).all()


def test_bad_rois_give_nan_and_harm_no_other(place):
    x, rois, dy = made_up(np.float32)
    y, argmax, dx = both_passes(place, x, rois, dy, 1 / 16)
    bad = {5: (0, np.nan), 6: (0, 2), 7: (0, -1), 8: (3, np.inf), 9: (1, -np.inf)}
    for r, (column, value) in bad.items():
        rois[r, column] = value
    found, winners, slopes = both_passes(place, x, rois, dy, 1 / 16)
    rest = np.delete(np.arange(len(rois)), list(bad))
    np.testing.assert_array_equal(found[rest], y[rest])
    assert np.isnan(found[list(bad)]).all() and (winners[list(bad)] == -1).all()
    cpu.backward(dy[rest], argmax[rest], rois[rest], 1 / 16, dx)
    np.testing.assert_array_equal(slopes, dx)
