"""Convolution by cuDNN: which order in memory, which size, which numbers, and the copies for it.

Arrays have channels first. In float32 ("exact") cuDNN reads and writes them as they are. Tensor
cores want channels last, so images are copied to that order and back here, which cuDNN would
otherwise do itself; on the way they are rounded to halves if asked for, and enlarged by zeros to a
size of which there are few, so that images of ever new sizes need few plans (one takes cuDNN
milliseconds to make). Zeros beyond an image are what a convolution's padding is, so results are not
changed by them.
"""

import dataclasses
import math

import numpy as np

from ...device import device_of
from ...precision import current
from ..geometry import conv_size
from .cudnn_library import library_of
from .cudnn_plans import BIAS, Recipe, W, X, Y, channels_first, channels_last, plans
from .launch import BLOCK, NULL, blocks, launch
from .pointers import address

ALIGNMENT = 16  # bytes: what cuDNN takes for granted of each tensor
_TILE, _ROWS, _MOST = 32, 8, 65535  # as in orders.cu; blocks along y or z of a grid
_BIAS, _RELU, _GATE = 1, 2, 4
# What is computed with -> (dtype of its arrays, type in the text)
_WORK = {"float32": ("float32", "float"), "float16": ("float16", "half_t"),
         "bfloat16": ("uint16", "bfloat_t")}  # fmt: skip


def suits(geometry, array):
    """Whether cuDNN may be asked; a function of geometry, dtype and what is installed."""
    g = geometry
    if array.dtype not in (np.float32, np.float16) or library_of(device_of(array)) is None:
        return False
    fits = all(
        conv_size(n, k, s, p, d) == out >= 1 and n + 2 * p >= d * (k - 1) + 1
        for n, out, k, s, p, d in zip(g.in_size, g.out_size, g.kernel, g.stride, g.pad, g.dilation)
    )
    return fits and len(g.kernel) <= 3 and g.batch <= _MOST


def layout_for(geometry, dtype, exact):
    """The order in which cuDNN is given images: "first" or "last", and their geometry.

    Args:
        dtype: what is computed with. exact: whether float32 is.
    """
    if dtype == "float32" and exact:
        return "first", geometry
    return "last", enlarged(geometry)


def enlarged(g):
    """The geometry of a few, larger images: for one or two images with two spatial axes.

    The longer side is rounded up by less than an eighth, the other by less than a thirty-second:
    images are scaled to a fixed shorter side.
    """
    if len(g.in_size) != 2 or g.batch > 2:
        return g
    longer = 0 if g.in_size[0] > g.in_size[1] else 1
    size = tuple(_rounded_up(n, 8 if a == longer else 32) for a, n in enumerate(g.in_size))
    out = tuple(map(conv_size, size, g.kernel, g.stride, g.pad, g.dilation))
    return dataclasses.replace(g, in_size=size, out_size=out)


def _rounded_up(n, parts):
    step = max((1 << (n.bit_length() - 1)) // parts, 1)
    return -(-n // step) * step


# ---- the three computations; each returns whether cuDNN has a plan


def forward(x, weight, bias, y, g, relu):
    """y = x convolved with weight, plus bias; then max(y, 0) if `relu`."""
    job = _Job(y, g)
    wanted = _BIAS * (bias is not None) | _RELU * relu
    plan, rest = job.plan("forward", wanted), 0  # of the epilogue
    if plan is None and wanted:
        plan, rest = job.plan("forward"), wanted
    if plan is None or not job.aligned(x, weight, y, *([] if bias is None else [bias])):
        return False
    ends = {X: job.image(x, "in"), W: job.numbers(weight), Y: job.room(y, "out")}
    if bias is not None and not rest:
        ends[BIAS] = job.numbers(bias)
    plan.run({uid: address(array) for uid, array in ends.items()})
    job.store(ends[Y], y, "out", rest, bias=bias)
    return True


def backward_data(dy, weight, dx, g, gate):
    """dx = the gradient of x, where `gate` (or None) is positive, and 0 elsewhere."""
    job = _Job(dx, g)
    plan = job.plan("data")
    if plan is None or not job.aligned(dy, weight, dx):
        return False
    ends = {Y: job.image(dy, "out"), W: job.numbers(weight), X: job.room(dx, "in")}
    plan.run({uid: address(array) for uid, array in ends.items()})
    job.store(ends[X], dx, "in", _GATE * (gate is not None), gate=gate)
    return True


def backward_weight(x, dy, dw, g):
    """dw += the gradient of the weight."""
    job = _Job(dw, g)
    plan = job.plan("weight")
    if plan is None or not job.aligned(x, dy):
        return False
    own = job.device.xp.empty(dw.shape, job.held)
    ends = {X: job.image(x, "in"), Y: job.image(dy, "out"), W: own}
    plan.run({uid: address(array) for uid, array in ends.items()})
    job.run("add_to", (own, dw), dw.dtype)
    return True


class _Job:
    """One computation: what it is computed with, and the copies before and after it.

    `end` is "in" for x and its gradient, "out" for y and its gradient.

    Args: array: one of the device's, of the dtype that is stored.
    """

    def __init__(self, array, g):
        self.device, self.dtype = device_of(array), array.dtype
        precision = current()
        self.work = precision.math if precision.math in ("float16", "bfloat16") else "float32"
        if array.dtype == np.float16:
            self.work = "float16"
        self.held, self.type = _WORK[self.work]
        self.exact = self.work == "float32" and not precision.tensor_cores
        self.layout, larger = layout_for(g, self.work, self.exact)
        self.batch, self.g = g.batch, larger
        # end -> channels, and the sizes of an image and of what cuDNN is given
        self.ends = {
            "in": (g.channels, _plane(g.in_size), _plane(larger.in_size)),
            "out": (g.num_output, _plane(g.out_size), _plane(larger.out_size)),
        }

    def plan(self, kind, epilogue=0):
        """The plan, or None."""
        g, order = self.g, channels_last if self.layout == "last" else channels_first
        ones = (1,) * (len(g.kernel) == 1)  # cuDNN wants two axes or three
        recipe = Recipe(
            kind,
            order((g.batch, g.channels, *ones, *g.in_size)),
            channels_first((g.num_output, g.channels // g.group, *ones, *g.kernel)),
            order((g.batch, g.num_output, *ones, *g.out_size)),
            (0,) * len(ones) + g.pad, ones + g.stride, ones + g.dilation, self.work, self.exact,
            bool(epilogue & _BIAS), bool(epilogue & _RELU),
        )  # fmt: skip
        return plans.get(library_of(self.device), recipe)

    def aligned(self, *arrays):
        """Whether all arrays begin where cuDNN takes for granted that they do."""
        return all(a.flags.c_contiguous and address(a) % ALIGNMENT == 0 for a in arrays)

    def numbers(self, array):
        """Weights or a bias in the numbers that are computed with."""
        if array.dtype.name == self.held:
            return array
        out = self.device.xp.empty(array.shape, self.held)
        self.run("convert", (array, out), array.dtype)
        return out

    def image(self, x, end):
        """Images as cuDNN reads them."""
        if self.layout == "first":
            return x
        last = self.room(x, end)
        channels, size, larger = self.ends[end]
        self._tiles("to_last", (x, last), larger, channels, (*size, *larger))
        return last

    def room(self, array, end):
        """An array for images as cuDNN writes them: `array` itself if it writes there."""
        if self.layout == "first":
            return array
        channels, _, larger = self.ends[end]
        return self.device.xp.empty((self.batch, *larger, channels), self.held)

    def store(self, result, out, end, rest, bias=None, gate=None):
        """Put a result where it is to be, and do what the plan does not (flags in `rest`)."""
        channels, size, larger = self.ends[end]
        extra = tuple(NULL if a is None else a for a in (bias, gate))
        if self.layout == "last":
            ends = (result, *extra, out)
            self._tiles("to_first", ends, size, channels, (*size, *larger, rest))
        elif rest:
            count = size[0] * size[1]
            grid = (blocks(count, BLOCK), min(self.batch * channels, _MOST))
            numbers = (np.int32(channels), self.batch * channels, count, np.int32(rest))
            self._launch("settle", (out, *extra), grid, (BLOCK,), numbers)

    def run(self, name, arrays, dtype):
        """A kernel on two flat arrays, `dtype` being that of the one which is stored."""
        count = arrays[0].size
        self._launch(name, arrays, (min(blocks(count, BLOCK), _MOST),), (BLOCK,), (count,), dtype)

    def _tiles(self, name, arrays, size, channels, numbers):
        grid = (blocks(size[0] * size[1], _TILE), blocks(channels, _TILE), self.batch)
        numbers = [np.int32(n) for n in (channels, *numbers)]
        self._launch(name, arrays, grid, (_TILE, _ROWS), numbers)

    def _launch(self, name, arrays, grid, block, numbers, dtype=None):
        launch(
            "orders.cu", name, arrays, grid, block, numbers, dtype=dtype or self.dtype,
            defines=(("WORK", self.type),),
        )  # fmt: skip


def _plane(size):
    # (lines, width): an image of any number of axes as one of two
    return math.prod(size[:-1]), size[-1]
