"""Convolution as a product of matrices, and the gradient of its data: our own product.

For each group, the weights (outputs, depth) multiply the columns (depth, images * positions), where
depth is channels times window positions; see `panels`. A task, one thread's share, packs some
panels of PANEL columns, as many as the second-level cache holds, and takes GROUP rows of weights at
a time through all of them; bias and ReLU are applied while results are written. So no columns
buffer is written and read, and what BLAS would pack of the weights stays where it is.

The gradient of the data of a pointwise convolution is the same with transposed weights, GROUP rows
of which are transposed as they are needed. That of any other of stride 1 is a convolution with
weights that are transposed and turned round before.
"""

import functools
from collections import namedtuple

import numba
import numpy as np
from numba import njit, prange

from . import parallel_njit
from .denormals import flush_denormals, restore_denormals
from .panels import layout, pack, plain, rounded
from .simd import LANES, PANEL, ROWS, prefetch
from .simd_norm import normalise_to
from .simd_products import multiply_to
from .simd_transpose import transpose, transpose_from
from .winograd_tiles import apart
from .workspace import workspace

DEPTH = 128  # rows of a panel that stay in the first-level cache while rows of weights pass
GROUP = 8 * ROWS
PANEL_BYTES = 1 << 20  # of packed panels: half of the second-level cache
JOIN_WASTE = 0.1  # images share panels where more lanes than this would be idle
_LEAST = 2 * PANEL // LANES  # vectors of columns that a thread should have

_Plan = namedtuple("_Plan", "depth together transposed relu")


def suits_data(g):
    """Whether `backward_data` can be computed here."""
    extents = (d * (k - 1) for d, k in zip(g.dilation, g.kernel))
    return set(g.stride) == {1} and all(p <= e for p, e in zip(g.pad, extents))


def forward(x, weight, bias, y, geometry, relu=False, norm=None):
    """y = x convolved with weight, plus bias, normalised, and max(y, 0); see `convolution`."""
    _run(x, weight, bias, y, layout(geometry), relu, None, False, norm)


def backward_data(dy, weight, dx, geometry, gate=None):
    """dx = the gradient of x, where `suits_data`.

    `gate`: an array like x, where dx is times 0 unless this is positive; None for none.
    """
    g = geometry
    if g.is_pointwise:
        _run(dy, weight, None, dx, plain(layout(g)), False, gate, True)
        return
    pad = tuple(d * (k - 1) - p for d, k, p in zip(g.dilation, g.kernel, g.pad))
    turned = type(g)(
        g.batch, g.num_output, g.channels, g.out_size, g.in_size, g.kernel, g.stride, pad,
        g.dilation, g.group,
    )  # fmt: skip
    weight = weight.reshape(g.group, g.num_output // g.group, g.channels // g.group, -1)
    around = np.ascontiguousarray(weight[..., ::-1].swapaxes(1, 2))
    _run(dy, around, None, dx, layout(turned), False, gate, False)


# ---- plans


def panel_width(itemsize):
    """Columns of a panel: PANEL, or fewer where registers hold fewer numbers."""
    return PANEL if itemsize == 4 else max(PANEL // 2, LANES)


@functools.lru_cache(1024)
def _partition(batch, group, count, rows, width, threads):
    """How work is divided: panels, and tasks of them.

    Returns:
        bounds: panel p is columns [bounds[p], bounds[p + 1]) of all images' in a row.
        tasks: rows (first panel, last panel, first row of the weights, last row) for one group.
        most: the largest number of panels of a task.
    """
    vectors = -(-count // LANES)
    if batch > 1 and vectors * LANES > (1 + JOIN_WASTE) * count:
        batch, count = 1, batch * count
        vectors = -(-count // LANES)
    total, blocks = batch * vectors, -(-rows // ROWS)
    parts = row_parts = 1
    if group % threads:
        # Threads share the columns, and where these are few, the rows too.
        parts = max(min(threads, total // _LEAST), 1)
        row_parts = min(threads // parts, blocks)
        parts = min(threads // row_parts, total)
    cuts = [min(blocks * r // row_parts * ROWS, rows) for r in range(row_parts)] + [rows]
    bounds, tasks = [0], []
    for part in range(parts):
        first = len(bounds) - 1
        low, end = total * part // parts, total * (part + 1) // parts
        while low < end:
            image = low // vectors
            high = min(end, (image + 1) * vectors)
            pieces = -(-(high - low) * LANES // width)
            for i in range(1, pieces + 1):
                last = (low + (high - low) * i // pieces - image * vectors) * LANES
                bounds.append(image * count + min(last, count))
            low = high
        tasks += [(first, len(bounds) - 1, *cuts[r : r + 2]) for r in range(row_parts)]
    return np.array(bounds), np.array(tasks), max(task[1] - task[0] for task in tasks)


def _run(x, weight, bias, y, s, relu, gate, transposed, norm=None):
    if y.size == 0:
        return
    threads, width = numba.get_num_threads(), panel_width(y.itemsize)
    bounds, tasks, most = _partition(s.batch, s.group, s.count, s.outputs, width, threads)
    depth = s.inputs * s.lines * s.across
    together = min(max(PANEL_BYTES // (depth * width * y.itemsize), 1), most)
    panels, turned, scratch, offset = workspace(
        y.dtype, (threads, together, depth * width),
        (threads, GROUP * apart(depth) if transposed else 0), (threads, GROUP * width),
        (s.group * s.outputs,),
    )  # fmt: skip
    offset[...] = 0 if bias is None else bias
    gate = y.ravel()[:0] if gate is None else gate.ravel()
    norm = np.empty((4, 0), y.dtype) if norm is None else norm
    plan = _Plan(depth, together, transposed, relu)
    _convolve(
        x.ravel(), weight.ravel(), offset, norm, y.ravel(), gate, s, plan, bounds, tasks, panels,
        turned, scratch,
    )  # fmt: skip


# ---- products


@parallel_njit
def _convolve(x, weight, bias, norm, y, gate, s, plan, bounds, tasks, panels, turned, scratch):
    slots, total = len(panels), len(tasks) * s.group
    for slot in prange(slots):
        before = flush_denormals()
        panels_, turned_, scratch_ = panels[slot], turned[slot], scratch[slot]
        for task in range(slot * total // slots, (slot + 1) * total // slots):
            g = task // len(tasks)
            begin, end, top, bottom = tasks[task % len(tasks)]
            for first in range(begin, end, plan.together):
                last = min(first + plan.together, end)
                for p in range(first, last):
                    pack(x, s, g, 0, s.inputs, bounds[p], bounds[p + 1], panels_[p - first])
                for row in range(top, bottom, GROUP):
                    rows = min(GROUP, bottom - row)
                    a, place, pitch = weight, (g * s.outputs + row) * plan.depth, plan.depth
                    if plan.transposed:
                        a, place, pitch = turned_, 0, turned.shape[1] // GROUP
                        _transpose_rows(weight, s, g, row, rows, turned_, pitch)
                    for p in range(first, last):
                        fresh = p == first and not plan.transposed
                        _multiply(
                            a, place, pitch, panels_[p - first], plan, s, g, row, rows, bounds[p],
                            bounds[p + 1], bias, norm, y, gate, scratch_, fresh,
                        )  # fmt: skip
        restore_denormals(before)


@njit
def _multiply(
    a, place, pitch, panel, plan, s, g, row, rows, low, high, bias, norm, y, gate, scratch, fresh
):  # fmt: skip
    # A part of y: output channels from `row` on, columns [low, high), with all that follows the
    # sums. The weights are `fresh` at their first use by a task.
    columns = high - low
    width, output = rounded(columns), g * s.outputs + row
    image, position = low // s.count, low % s.count
    direct = position + columns <= s.count
    c, c_place, c_row = scratch, 0, width
    if direct:
        c, c_row = y, s.count
        c_place = (image * s.group * s.outputs + output) * s.count + position
    for d in range(0, plan.depth, DEPTH):
        n = min(DEPTH, plan.depth - d)
        for r in range(0, rows, ROWS):
            if fresh:
                # The rows that are next come from far, and too few at a time to be foreseen.
                for k in range(ROWS):
                    for i in range(d, d + n, LANES):
                        prefetch(a, place + (r + ROWS + k) * pitch + i)
            multiply_to(
                a, place + r * pitch + d, pitch, 1, panel, d * width, width, n,
                c, c_place + r * c_row, c_row, min(ROWS, rows - r), columns,
                d > 0, bias, output + r,
                plan.relu and d + n == plan.depth and norm.size == 0,
            )  # fmt: skip
    if norm.size > 0:
        for r in range(rows):
            normalise_to(
                c,
                c_place + r * c_row,
                c,
                c_place + r * c_row,
                columns,
                norm,
                output + r,
                norm.shape[1],
                plan.relu,
            )
    done = 0
    while done < columns and not (direct and gate.size == 0):
        image, position = (low + done) // s.count, (low + done) % s.count
        n = min(columns - done, s.count - position)
        for r in range(rows):
            target = (image * s.group * s.outputs + output + r) * s.count + position
            source = c_place + r * c_row + done
            _finish(c[source : source + n], gate[target : target + n], y[target : target + n])
        done += n


@njit
def _finish(values, gate, y):
    # y = values, times 0 where the gate, if there is one, is not positive.
    for i in range(len(y)):
        y[i] = values[i]
    zero = y.dtype.type(0)
    for i in range(len(gate)):
        y[i] = y[i] if gate[i] > zero else y[i] * zero


@njit
def _transpose_rows(weight, s, g, row, rows, turned, pitch):
    # Rows of the transposed weights, of (depth, outputs); each 16 are fetched before their turn.
    for d in range(0, s.inputs, LANES):
        for c in range(row, row + rows, LANES):
            place, target = (g * s.inputs + d) * s.outputs + c, (c - row) * pitch + d
            for i in range(LANES, 2 * LANES):
                prefetch(weight, place + i * s.outputs)
            count, high = min(LANES, s.inputs - d), min(LANES, s.outputs - c)
            if count == high == LANES:
                transpose(weight, place, s.outputs, turned, target, pitch)
            else:
                transpose_from(weight, place, s.outputs, turned, target, pitch, count, 0, high)
