"""Depthwise convolution along two spatial axes: each input channel has output channels of its own.

There is no matrix to multiply. A channel's plane is copied into its padding, and split by the phase
of rows and columns within the strides; then the input of one weight, for all output positions, is
one run of numbers, if outputs are laid out as far apart as the rows of these planes are. So each
weight is one pass over a run, from a plane that stays in the cache, and what lies between the rows
of outputs is computed and not used.

Shapes are those of `convolution`.
"""

from collections import namedtuple

import numba
import numpy as np
from numba import njit, prange

from . import parallel_njit
from .denormals import flush_denormals, restore_denormals
from .sums import dot
from .workspace import workspace

MOST = 4  # output channels of an input channel; of more than these, products are made
_RUN = 2048  # elements of a run that are summed up at a time, in the first-level cache

# down, across: strides. lines, columns: of the plane of a phase.
_Layout = namedtuple(
    "_Layout",
    "channels outputs height width out_height out_width kernel_height kernel_width down across "
    "pad_top pad_left dilation_down dilation_across lines columns rows",
)


def suits(g):
    """Whether a convolution can be computed here."""
    return 1 < g.group == g.channels and g.num_output <= MOST * g.group and len(g.kernel) == 2


def _layout(g):
    down, across = g.stride
    lines, columns = (
        -(-((out - 1) * s + (k - 1) * d + 1) // s)
        for out, s, k, d in zip(g.out_size, g.stride, g.kernel, g.dilation)
    )
    rows = max(_RUN // columns, 1)
    return _Layout(
        g.channels, g.num_output // g.group, *g.in_size, *g.out_size, *g.kernel, down, across,
        *g.pad, *g.dilation, lines, columns, rows,
    )  # fmt: skip


def _memory(dtype, s):
    """For each thread: the planes of a channel, a run of outputs between zeros, and sums."""
    threads, phases = numba.get_num_threads(), s.down * s.across
    return workspace(
        dtype, (threads, phases * s.lines * s.columns),
        (threads, 2 * _margin(s) + s.out_height * s.columns), (threads, s.rows * s.columns),
    )  # fmt: skip


def forward(x, weight, bias, y, geometry, relu=False):
    """y = x convolved with weight, plus bias (None for none); then max(y, 0) if `relu`."""
    g = geometry
    if y.size == 0:
        return
    s = _layout(g)
    planes, _, sums = _memory(y.dtype, s)
    bias = np.zeros(g.num_output, y.dtype) if bias is None else bias
    _forward(
        x.reshape(-1, *g.in_size), weight.reshape(g.num_output, -1), bias,
        y.reshape(-1, *g.out_size), s, relu, planes, sums,
    )  # fmt: skip


def backward_data(dy, weight, dx, geometry, gate=None):
    """dx = the gradient of x, where `gate` (None for none; an array like x) is positive."""
    g = geometry
    if dx.size == 0 or dy.size == 0:
        dx[...] = 0
        return
    s = _layout(g)
    planes, runs, _ = _memory(dx.dtype, s)
    runs[...] = 0
    dx = dx.reshape(-1, *g.in_size)
    gate = dx[:0] if gate is None else gate.reshape(dx.shape)
    _backward_data(
        dy.reshape(-1, *g.out_size), weight.reshape(g.num_output, -1), dx, gate, s, planes, runs
    )


def backward_weight(x, dy, dw, geometry, add=True):
    """dw += the gradient of the weight, or without `add` dw = it."""
    g = geometry
    s = _layout(g)
    planes, runs, _ = _memory(dw.dtype, s)
    runs[...] = 0
    if not add:
        dw[...] = 0
    _backward_weight(
        x.reshape(-1, *g.in_size), dy.reshape(-1, *g.out_size), dw.reshape(g.num_output, -1), s,
        planes, runs,
    )  # fmt: skip


# ---- places


@njit
def _place(s, i, j):
    # Where the run of weight (i, j) begins in the planes.
    y, x = i * s.dilation_down, j * s.dilation_across
    phase = y % s.down * s.across + x % s.across
    return (phase * s.lines + y // s.down) * s.columns + x // s.across


@njit
def _length(s, rows):
    # Of the run of some rows of outputs.
    return (rows - 1) * s.columns + s.out_width


def _margin(s):
    """Zeros before and after a run of outputs, for three weights side by side."""
    return 2 * s.dilation_across


@njit
def _spread(plane, s, planes):
    # planes = the plane in its padding, phase by phase.
    place = 0
    for phase in range(s.down * s.across):
        for line in range(s.lines):
            row = planes[place : place + s.columns]
            place += s.columns
            h = line * s.down + phase // s.across - s.pad_top
            row[:] = 0
            if not 0 <= h < s.height:
                continue
            shift = phase % s.across - s.pad_left  # w = column * across + shift
            first = max(-(shift // s.across), 0)
            last = min((s.width - 1 - shift) // s.across + 1, s.columns)
            if s.across == 1:
                row[first:last] = plane[h, first + shift : last + shift]
            else:
                for q in range(first, last):
                    row[q] = plane[h, q * s.across + shift]


@njit
def _collect(planes, s, gate, plane):
    # plane = what is within the padding of the planes, or 0 where no window has been.
    zero, gated = plane.dtype.type(0), gate.size > 0
    for h in range(s.height):
        line, down = divmod(h + s.pad_top, s.down)
        for w in range(s.width):
            column, across = divmod(w + s.pad_left, s.across)
            v = zero
            if line < s.lines and column < s.columns:
                phase = down * s.across + across
                v = planes[(phase * s.lines + line) * s.columns + column]
            if gated and not gate[h, w] > zero:
                v = v * zero
            plane[h, w] = v


@njit
def _lay_out(plane, s, run):
    # run = rows of outputs, as far apart as those of the planes; what lies between stays zero.
    for h in range(s.out_height):
        begin = h * s.columns
        run[begin : begin + s.out_width] = plane[h]


# ---- sums


@njit(fastmath={"contract"})
def _add_one(total, a, x):
    for i in range(len(total)):
        total[i] += a * x[i]


@njit(fastmath={"contract"})
def _add_three(total, a, x, b, y, c, z):
    for i in range(len(total)):
        total[i] += a * x[i] + b * y[i] + c * z[i]


@parallel_njit
def _forward(x, weight, bias, y, s, relu, planes, sums):
    slots, total, zero = len(planes), len(x), y.dtype.type(0)
    for slot in prange(slots):
        before = flush_denormals()
        planes_ = planes[slot]
        for task in range(slot * total // slots, (slot + 1) * total // slots):
            _spread(x[task], s, planes_)
            for m in range(s.outputs):
                output = task % s.channels * s.outputs + m
                w, out = weight[output], y[task * s.outputs + m]
                for row in range(0, s.out_height, s.rows):
                    rows = min(s.rows, s.out_height - row)
                    run = sums[slot, : _length(s, rows)]
                    run[:] = bias[output]
                    _add_windows(planes_, w, s, row * s.columns, run)
                    for h in range(rows):
                        for q in range(s.out_width):
                            v = run[h * s.columns + q]
                            out[row + h, q] = zero if relu and v < zero else v
        restore_denormals(before)


@njit
def _add_windows(planes, w, s, begin, run):
    # run += the sums of products for the outputs from `begin` on.
    n, kernel = len(run), s.kernel_width
    for i in range(s.kernel_height):
        j = 0
        while j < kernel:
            p, k = begin + _place(s, i, j), i * kernel + j
            if j + 3 <= kernel:
                q, r = begin + _place(s, i, j + 1), begin + _place(s, i, j + 2)
                _add_three(
                    run, w[k], planes[p : p + n], w[k + 1], planes[q : q + n], w[k + 2],
                    planes[r : r + n],
                )  # fmt: skip
                j += 3
            else:
                _add_one(run, w[k], planes[p : p + n])
                j += 1


@parallel_njit
def _backward_data(dy, weight, dx, gate, s, planes, runs):
    slots, total = len(planes), len(dx)
    margin = 2 * s.dilation_across
    for slot in prange(slots):
        before = flush_denormals()
        planes_, run = planes[slot], runs[slot]
        for task in range(slot * total // slots, (slot + 1) * total // slots):
            planes_[:] = 0
            for m in range(s.outputs):
                _lay_out(dy[task * s.outputs + m], s, run[margin:])
                w = weight[task % s.channels * s.outputs + m]
                _add_slopes(run, w, s, margin, planes_)
            _collect(planes_, s, gate[task] if gate.size > 0 else gate[:0, 0], dx[task])
        restore_denormals(before)


@njit
def _add_slopes(run, w, s, margin, planes):
    # planes += each output's gradient times the weights, where its window is.
    n, kernel, step = _length(s, s.out_height), s.kernel_width, s.dilation_across
    for i in range(s.kernel_height):
        j = 0
        while j < kernel:
            p, k = _place(s, i, j), i * kernel + j
            if s.across == 1 and j + 3 <= kernel:  # in the same plane, `step` apart
                long = n + 2 * step
                _add_three(
                    planes[p : p + long], w[k], run[margin : margin + long], w[k + 1],
                    run[margin - step : margin - step + long], w[k + 2],
                    run[margin - 2 * step : margin - 2 * step + long],
                )  # fmt: skip
                j += 3
            else:
                _add_one(planes[p : p + n], w[k], run[margin : margin + n])
                j += 1


@parallel_njit
def _backward_weight(x, dy, dw, s, planes, runs):
    slots, images = len(planes), len(x) // s.channels
    n, margin = _length(s, s.out_height), 2 * s.dilation_across
    for slot in prange(slots):
        before = flush_denormals()
        planes_, run = planes[slot], runs[slot, margin:]
        for c in range(slot * s.channels // slots, (slot + 1) * s.channels // slots):
            for image in range(images):
                plane = image * s.channels + c
                _spread(x[plane], s, planes_)
                for m in range(s.outputs):
                    _lay_out(dy[plane * s.outputs + m], s, run)
                    total = dw[c * s.outputs + m]
                    for i in range(s.kernel_height):
                        for j in range(s.kernel_width):
                            p = _place(s, i, j)
                            total[i * s.kernel_width + j] += dot(run[:n], planes_[p : p + n])
        restore_denormals(before)
