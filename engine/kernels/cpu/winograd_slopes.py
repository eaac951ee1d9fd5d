"""The gradient of the weights, and of the bias, by Winograd's transforms; see `winograd`."""

import math
from collections import namedtuple

import numba
import numpy as np
from numba import njit, prange

from . import parallel_njit
from .denormals import flush_denormals, restore_denormals
from .simd import LANES, PANEL, ROWS
from .simd_products import multiply
from .winograd_tiles import (
    BIAS,
    SCRATCH,
    apart,
    padded,
    sizes,
    transform_input,
    transform_slopes,
)  # fmt: skip
from .winograd_weights import add_slopes
from .workspace import workspace

# Tiles of a block: at least so many, and more for more channels, so that du, which passes through
# the caches once a block, does not cost more than the products.
WEIGHT_TILES = 192
# While du is at most so large, each thread has one of its own and does whole blocks, of OWN_TILES.
OWN_BYTES, OWN_TILES = 2 << 20, 48
_STRIP = 3 * LANES  # channels side by side in v: a multiple of ROWS

_Plan = namedtuple("_Plan", "way block blocks")
_SHARED, _STRIPS, _OWN = range(3)  # how blocks are dealt to threads: see `_partition`


def backward_weight(x, dy, dw, geometry, db=None, add=True):
    """dw += the gradient of the weight, or = it without `add`; db, if not None, += the bias's."""
    s = sizes(geometry)
    if s.batch * s.down * s.across == 0:
        return
    threads, inputs, outputs = numba.get_num_threads(), padded(s.inputs), padded(s.outputs)
    plan = _partition(s, x.itemsize, threads)
    own = threads if plan.way == _OWN else 1
    v, m, du = workspace(
        x.dtype, (own, 36, apart(plan.block * inputs + ROWS)),
        (own, 36, apart(plan.block * outputs)),
        (threads, 36, apart(_STRIP * PANEL)) if plan.way == _STRIPS
        else (own, 36, apart((inputs + ROWS) * outputs)),
    )  # fmt: skip
    sums = np.zeros((s.group, own, outputs))
    x, dy, dw = x.ravel(), dy.ravel(), dw.ravel()
    for group in range(s.group):
        if plan.way == _OWN:
            _multiply_own(x, dy, dw, s, group, plan, v, m, du, sums[group], add)
        else:
            _multiply_shared(x, dy, dw, s, group, plan, v[0], m[0], du, sums[group, 0], add)
    if db is not None:
        db += sums.sum(axis=1)[:, : s.outputs].reshape(-1)


def _partition(s, itemsize, threads):
    """How work is divided, a function of the sizes, the dtype and the number of threads alone.

    A small du: every thread does blocks of its own (_OWN). Else all threads work on one block
    after the other (_SHARED); and a single block is dealt to them by strips of input channels and
    panels of output channels, so that du does not leave the caches (_STRIPS).
    """
    total, inputs, outputs = s.batch * s.down * s.across, padded(s.inputs), padded(s.outputs)
    if 36 * inputs * outputs * itemsize <= OWN_BYTES and total >= threads * OWN_TILES:
        return _Plan(_OWN, OWN_TILES, -(-total // OWN_TILES))
    most = max(WEIGHT_TILES, math.isqrt(s.inputs * s.outputs))
    blocks = -(-total // most)
    strips = -(-inputs // _STRIP) * -(-outputs // PANEL)
    way = _STRIPS if blocks == 1 and strips >= 2 * threads else _SHARED
    return _Plan(way, -(-total // blocks), blocks)


# ---- transforms
#
# Here v is (36, C in strips, tiles, _STRIP) and m (36, K in panels, tiles, PANEL).


@njit(inline="always")
def _strip(channel, size, channels):
    # Channels in strips of `size`, one after the other: where the strip of a channel begins, and
    # how wide it is.
    begin = channel // size * size
    return begin, min(size, channels - begin)


@njit
def _transform_x(x, s, g, c, first, last, block, ring, v):
    begin, pitch = _strip(c, _STRIP, padded(s.inputs))
    place = begin * block + c - begin
    transform_input(x, s, g, c, first, last, ring, v, place, pitch, v.shape[1])


@njit
def _transform_dy(dy, s, g, k, first, last, block, ring, m, sums):
    # And sums[k] += the sum of dy: that of a tile is one of the elements of A dy A^T.
    begin, pitch = _strip(k, PANEL, padded(s.outputs))
    place = begin * block + k - begin
    transform_slopes(dy, s, g, k, first, last, ring, m, place, pitch, m.shape[1])
    total = ring[:LANES]
    total[:] = 0
    for t in range(last - first):
        tile = m[BIAS, place + t * pitch :]
        for lane in range(LANES):
            total[lane] += tile[lane]
    for lane in range(LANES):
        sums[k + lane] += total[lane]


# ---- products: dw += G^T du G with du = the sum over all tiles of (B^T d B) * (A dy A^T)


@njit
def _multiply_strip(v, m, s, block, tiles, i, c, k, du, place, pitch, add):
    # du = v m, or added to it, for element i and input channels of a strip from c on.
    depth = padded(s.inputs)
    columns = min(PANEL, padded(s.outputs) - k)
    for row in range(c, min(c + _STRIP, s.inputs), ROWS):
        begin, width = _strip(row, _STRIP, depth)
        multiply(
            v, i * v.shape[1] + begin * block + row - begin, 1, width,
            m, i * m.shape[1] + k * block, columns, tiles,
            du, i * du.shape[1] + place + (row - c) * pitch, pitch, columns, add,
        )  # fmt: skip


@njit
def _multiply_element(v, m, s, block, tiles, i, k, du, add):
    # The same for all input channels.
    width = padded(s.outputs)
    for c in range(0, s.inputs, _STRIP):
        _multiply_strip(v, m, s, block, tiles, i, c, k, du, c * width + k, width, add)


@parallel_njit
def _multiply_own(x, dy, dw, s, g, plan, v, m, du, sums, add):
    width, total, slots = padded(s.outputs), s.batch * s.down * s.across, len(du)
    for slot in prange(slots):
        before = flush_denormals()
        ring = np.empty(SCRATCH, x.dtype)
        v_, m_, du_ = v[slot], m[slot], du[slot]
        begin = slot * plan.blocks // slots
        for b in range(begin, (slot + 1) * plan.blocks // slots):
            first, last = b * plan.block, min(b * plan.block + plan.block, total)
            for c in range(0, s.inputs, LANES):
                _transform_x(x, s, g, c, first, last, plan.block, ring, v_)
            for k in range(0, s.outputs, LANES):
                _transform_dy(dy, s, g, k, first, last, plan.block, ring, m_, sums[slot])
            for i in range(36):
                for k in range(0, width, PANEL):
                    _multiply_element(v_, m_, s, plan.block, last - first, i, k, du_, b > begin)
        restore_denormals(before)
    for job in prange((s.inputs + LANES - 1) // LANES):
        c = job * LANES
        end = min(c + LANES, s.inputs)
        for slot in range(slots):
            more = add or slot > 0
            add_slopes(du[slot], c * width, width, du.shape[2], s, g, 0, width, c, end, dw, more)


@parallel_njit
def _multiply_shared(x, dy, dw, s, g, plan, v, m, du, sums, add):
    depth, width, total = padded(s.inputs), padded(s.outputs), s.batch * s.down * s.across
    inputs, slots = depth // LANES, len(du)
    panels = (width + PANEL - 1) // PANEL
    jobs = (depth + _STRIP - 1) // _STRIP * panels
    for b in range(plan.blocks):
        first, last = b * plan.block, min(b * plan.block + plan.block, total)
        for job in prange(inputs + width // LANES):
            before = flush_denormals()
            ring = np.empty(SCRATCH, x.dtype)
            if job < inputs:
                _transform_x(x, s, g, job * LANES, first, last, plan.block, ring, v)
            else:
                k = (job - inputs) * LANES
                _transform_dy(dy, s, g, k, first, last, plan.block, ring, m, sums)
            restore_denormals(before)
        if plan.way == _SHARED:
            for job in prange(36 * panels):
                before = flush_denormals()
                i, k = job // panels, job % panels * PANEL
                _multiply_element(v, m, s, plan.block, last - first, i, k, du[0], b > 0)
                restore_denormals(before)
    if plan.way == _STRIPS:
        for slot in prange(slots):
            before = flush_denormals()
            for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
                c, k = job // panels * _STRIP, job % panels * PANEL
                for i in range(36):
                    _multiply_strip(
                        v, m, s, plan.block, total, i, c, k, du[slot], 0, PANEL, False
                    )  # fmt: skip
                high, end = min(k + PANEL, width), min(c + _STRIP, s.inputs)
                add_slopes(du[slot], 0, PANEL, du.shape[2], s, g, k, high, c, end, dw, add)
            restore_denormals(before)
    else:
        for job in prange(inputs):
            c = job * LANES
            end = min(c + LANES, s.inputs)
            add_slopes(du[0], c * width, width, du.shape[2], s, g, 0, width, c, end, dw, add)
