"""The gradient of a convolution's weights as products of matrices; see `products`.

For each group, the outputs' gradient (outputs, columns) multiplies the transposed columns
(columns, depth), block by block of columns. A block of both is packed, that of the columns is
transposed to panels, and its product is added to dw.
"""

from collections import namedtuple

import numba
import numpy as np
from numba import njit, prange

from . import parallel_njit
from .denormals import flush_denormals, restore_denormals
from .panels import layout, pack, plain, rounded
from .products import DEPTH, GROUP, panel_width
from .simd import LANES, ROWS
from .simd_products import multiply_to
from .simd_transpose import transpose, transpose_from
from .workspace import workspace

BLOCK_BYTES = 384 << 10  # of a block's columns, which are in the second-level cache twice
BLOCK = 512  # columns of a block at most
_DEPTH = 512  # rows of the columns that are packed at a time
# Gradients of this many elements are summed up in parts, one a thread, if each has _LEAST columns.
_SPLIT_SIZE, _LEAST = 1 << 16, 512

_Plan = namedtuple("_Plan", "depth channels block width parts channel_parts row_parts")


def backward_weight(x, dy, dw, geometry, add=True):
    """dw += the gradient of the weight, or without `add` dw = it."""
    s, threads = layout(geometry), numba.get_num_threads()
    plan = _partition(s, threads, dw.itemsize)
    rows = plan.channels * s.lines * s.across
    panels = -(-rows // plan.width)
    columns, turned, slopes, nothing = workspace(
        dw.dtype, (threads, rows * plan.block), (threads, panels * plan.width * plan.block),
        (threads, GROUP * plan.block), (ROWS,),
    )  # fmt: skip
    nothing[...] = 0
    total = dw.reshape(1, -1)
    if plan.parts > 1:
        total = np.empty((plan.parts, dw.size), dw.dtype)
    _add_slopes(
        x.ravel(), dy.ravel(), total, add and plan.parts == 1, s, plain(s), plan, columns, turned,
        slopes, nothing,
    )  # fmt: skip
    if plan.parts > 1:
        total = total.sum(0).reshape(dw.shape)
        dw[...] = dw + total if add else total


def _partition(s, threads, itemsize):
    """Blocks, and how threads share columns, input channels or output channels.

    A function of the sizes and the number of threads alone.
    """
    window, total, width = s.lines * s.across, s.batch * s.count, panel_width(itemsize)
    channels = max(min(s.inputs, _DEPTH // window), 1)
    block = min(BLOCK_BYTES // (channels * window * itemsize), BLOCK) // LANES * LANES
    block = min(max(block, LANES), -(-total // LANES) * LANES)
    parts = channel_parts = row_parts = 1
    if s.group % threads:
        size = s.group * s.outputs * s.inputs * window
        if size <= _SPLIT_SIZE and total >= threads * _LEAST:
            parts = threads
        elif s.inputs * window >= 2 * width * threads and s.inputs >= 4 * threads:
            channel_parts = threads
        else:
            row_parts = min(threads, -(-s.outputs // ROWS))
    depth = s.inputs * window
    return _Plan(depth, channels, block, width, parts, channel_parts, row_parts)


@njit
def _share(count, unit, part, parts):
    # The part of `count`, cut at multiples of `unit`: first and last.
    units = (count + unit - 1) // unit
    return units * part // parts * unit, min(units * (part + 1) // parts * unit, count)


@parallel_njit
def _add_slopes(x, dy, total, add, s, sy, plan, columns, turned, slopes, nothing):
    # s and sy are the layouts of the columns and of dy.
    slots, window = len(columns), s.lines * s.across
    tasks = s.group * plan.parts * plan.channel_parts * plan.row_parts
    for slot in prange(slots):
        before = flush_denormals()
        columns_, turned_, slopes_ = columns[slot], turned[slot], slopes[slot]
        for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
            rest, row_part = task // plan.row_parts, task % plan.row_parts
            rest, channel_part = rest // plan.channel_parts, rest % plan.channel_parts
            g, part = rest // plan.parts, rest % plan.parts
            begin, end = _share(s.batch * s.count, plan.block, part, plan.parts)
            first, last = _share(s.inputs, 1, channel_part, plan.channel_parts)
            top, bottom = _share(s.outputs, ROWS, row_part, plan.row_parts)
            for low in range(begin, end, plan.block):
                high = min(low + plan.block, end)
                for c in range(first, last, plan.channels):
                    count = min(plan.channels, last - c)
                    pack(x, s, g, c, c + count, low, high, columns_)
                    _transpose_columns(columns_, count * window, high - low, plan.width, turned_)
                    for row in range(top, bottom, GROUP):
                        rows = min(GROUP, bottom - row)
                        pack(dy, sy, g, row, row + rows, low, high, slopes_)
                        place = (g * s.outputs + row) * plan.depth + c * window
                        _multiply(
                            slopes_, turned_, high - low, rows, count * window, plan,
                            total[part], place, add or low > begin, nothing,
                        )  # fmt: skip
        restore_denormals(before)


@njit
def _multiply(slopes, turned, count, rows, depth, plan, dw, place, add, nothing):
    # dw += slopes (rows, count) turned (count, depth in panels), or without `add` dw = that.
    width, pitch = plan.width, rounded(count)
    for k in range(0, depth, width):
        for d in range(0, count, DEPTH):
            for r in range(0, rows, ROWS):
                multiply_to(
                    slopes, r * pitch + d, pitch, 1,
                    turned, k * pitch + d * width, width, min(DEPTH, count - d),
                    dw, place + r * plan.depth + k, plan.depth,
                    min(ROWS, rows - r), min(width, depth - k), add or d > 0, nothing, 0, False,
                )  # fmt: skip


@njit
def _transpose_columns(columns, depth, count, width, turned):
    # (depth, count) -> panels (count, width), which follow one another.
    pitch = rounded(count)
    for k in range(0, depth, LANES):
        panel = k // width * width
        for d in range(0, pitch, LANES):
            target = panel * pitch + d * width + k - panel
            if k + LANES <= depth:
                transpose(columns, k * pitch + d, pitch, turned, target, width)
            else:
                transpose_from(
                    columns, k * pitch + d, pitch, turned, target, width, depth - k, 0, LANES
                )  # fmt: skip
