"""The gradient of the weights by Winograd's transforms; see `winograd`."""

import math

import numba
import numpy as np
from numba import njit, prange

from . import parallel_njit
from .simd import LANES, PANEL, ROWS, multiply
from .winograd_tiles import (
    SCRATCH,
    add_slopes,
    apart,
    padded,
    sizes,
    transform_input,
    transform_slopes,
)  # fmt: skip
from .workspace import workspace

# Tiles of a block: at least so many, and more for more channels, so that du, which passes through
# the caches once a block, does not cost more than the products.
WEIGHT_TILES = 192
_STRIP = 3 * LANES  # channels side by side in v: a multiple of ROWS


def backward_weight(x, dy, dw, geometry):
    """dw += the gradient of the weight."""
    s = sizes(geometry)
    total = s.batch * s.down * s.across
    if total == 0:
        return
    most = max(WEIGHT_TILES, math.isqrt(s.inputs * s.outputs))
    blocks = -(-total // most)
    block = -(-total // blocks)
    threads, inputs, outputs = numba.get_num_threads(), padded(s.inputs), padded(s.outputs)
    strips = -(-inputs // _STRIP) * -(-outputs // PANEL)
    by_strips = blocks == 1 and strips >= 2 * threads
    v, m, du = workspace(
        x.dtype, (36, apart(block * inputs + ROWS)), (36, apart(block * outputs)),
        (threads, 36, apart(_STRIP * PANEL)) if by_strips
        else (1, 36, apart((inputs + ROWS) * outputs)),
    )  # fmt: skip
    x, dy, dw = x.ravel(), dy.ravel(), dw.ravel()
    for group in range(s.group):
        _multiply_slopes(x, dy, dw, s, group, block, blocks, by_strips, v, m, du)


@njit(inline="always")
def _strip(channel, size, channels):
    # Channels in strips of `size`, one after the other: where the strip of a channel begins, and
    # how wide it is.
    begin = channel // size * size
    return begin, min(size, channels - begin)


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


@parallel_njit
def _multiply_slopes(x, dy, dw, s, g, block, blocks, by_strips, v, m, du):
    # dw += G^T du G with du = the sum over all tiles of (B^T d B) * (A dy A^T), block by block.
    # Here v is (36, C in strips, tiles, _STRIP) and m (36, K in panels, tiles, PANEL). A single
    # block is dealt to threads by strips and panels, so that du does not leave the caches.
    depth, width, total = padded(s.inputs), padded(s.outputs), s.batch * s.down * s.across
    inputs, slots = depth // LANES, len(du)
    panels = (width + PANEL - 1) // PANEL
    jobs = (depth + _STRIP - 1) // _STRIP * panels
    for b in range(blocks):
        first, last = b * block, min(b * block + block, total)
        for job in prange(inputs + width // LANES):
            ring = np.empty(SCRATCH, x.dtype)
            if job < inputs:
                c = job * LANES
                begin, pitch = _strip(c, _STRIP, depth)
                place = begin * block + c - begin
                transform_input(x, s, g, c, first, last, ring, v, place, pitch, v.shape[1])
            else:
                k = (job - inputs) * LANES
                begin, pitch = _strip(k, PANEL, width)
                place = begin * block + k - begin
                transform_slopes(dy, s, g, k, first, last, ring, m, place, pitch, m.shape[1])
        if not by_strips:
            for job in prange(36 * panels):
                i, k = job // panels, job % panels * PANEL
                for c in range(0, s.inputs, _STRIP):
                    place = c * width + k
                    _multiply_strip(
                        v, m, s, block, last - first, i, c, k, du[0], place, width, b > 0
                    )  # fmt: skip
    if by_strips:
        for slot in prange(slots):
            for job in range(slot * jobs // slots, (slot + 1) * jobs // slots):
                c, k = job // panels * _STRIP, job % panels * PANEL
                for i in range(36):
                    _multiply_strip(v, m, s, block, total, i, c, k, du[slot], 0, PANEL, False)
                high, end = min(k + PANEL, width), min(c + _STRIP, s.inputs)
                add_slopes(du[slot], 0, PANEL, du.shape[2], s, g, k, high, c, end, dw)
    else:
        for job in prange(inputs):
            c = job * LANES
            end = min(c + LANES, s.inputs)
            add_slopes(du[0], c * width, width, du.shape[2], s, g, 0, width, c, end, dw)
