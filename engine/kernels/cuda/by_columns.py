"""Convolution as matrix products on columns, block by block: im2col and cuBLAS.

Shapes as in kernels/cpu/convolution.py.
"""

import numpy as np

from ...device import device_of
from ...precision import current
from ..columns import blocks as blocks_of
from ..columns import columns, join
from .blas import matmul
from .im2col import col2im, im2col
from .launch import BLOCK, NULL, blocks, launch

BLOCK_BYTES = 256 << 20  # of columns at a time
WORK = {"float16": "half_t", "bfloat16": "bfloat_t"}  # a Precision's math -> type in the text
_ROWS = 65535
_BIAS, _RELU = 1, 2


def forward(x, weight, bias, y, g, relu):
    """y = x convolved with weight, plus bias; then max(y, 0) if `relu`."""
    x, weight = rounded(x), rounded(weight)
    x, y = x.reshape(g.in_shape), y.reshape(g.out_shape)
    xp, w = device_of(y).xp, g.by_group(weight)
    for images, positions in blocks_of(g, x.itemsize, BLOCK_BYTES):
        col = columns(x, images, positions, g, im2col)
        count, part = images.stop - images.start, positions.stop - positions.start
        whole = count == 1 and part == g.out_count
        shape = g.group, g.num_output // g.group, count * part
        sums = y[images].reshape(shape) if whole else xp.empty(shape, y.dtype)
        matmul(w, col, sums)
        del col  # before the next ones are made
        if not whole or bias is not None or relu:
            finish(sums, bias, y[images], (count, g.num_output, part), relu, positions.start)
    round_result(y)


def backward_data(dy, weight, dx, g):
    """dx = the gradient of x."""
    dy, weight = rounded(dy), rounded(weight)
    dx, dy = dx.reshape(g.in_shape), dy.reshape(g.out_shape)
    xp, w = device_of(dx).xp, g.by_group(weight).swapaxes(1, 2)  # (group, K, O/group)
    dx.fill(0)
    for images, positions in blocks_of(g, dx.itemsize, BLOCK_BYTES):
        slopes = join(dy, images, positions, g.num_output, g)
        col = xp.empty((g.group, w.shape[1], slopes.shape[-1]), dx.dtype)
        matmul(w, slopes, col)
        # (group, K, images * positions) -> (group * K, images, positions)
        col = col.reshape(g.group * g.kernel_count, images.stop - images.start, -1)
        col2im(col, g, dx[images], positions.start)
        del col
    round_result(dx)


def backward_weight(x, dy, dw, g):
    """dw += the gradient of the weight."""
    x, dy = rounded(x).reshape(g.in_shape), rounded(dy).reshape(g.out_shape)
    total = g.by_group(dw)
    if current().math in WORK and dw.dtype == np.float32:
        total = device_of(dw).xp.zeros(total.shape, total.dtype)
    for images, positions in blocks_of(g, x.itemsize, BLOCK_BYTES):
        col = columns(x, images, positions, g, im2col)
        slopes = join(dy, images, positions, g.num_output, g)
        matmul(slopes, col.swapaxes(1, 2), total, add=True)
        del col
    if current().math in WORK and dw.dtype == np.float32:
        round_result(total)
        dw += total.reshape(dw.shape)


def finish(sums, bias, y, shape, relu, first=0):
    """Put sums where they belong in y, with bias (or None) and ReLU.

    Args:
        sums: (channels, images, positions of the block) in any shape; may be y of one image.
        y: the images, (images, channels, positions), in any shape with as many.
        shape: (images, channels, positions of the block). first: position that the block begins at.
    """
    images, channels, count = shape
    if not sums.flags.c_contiguous:
        sums = device_of(y).xp.ascontiguousarray(sums)
    flags = _BIAS * (bias is not None) | _RELU * relu
    launch(
        "columns.cu", "finish", (sums, NULL if bias is None else bias, y),
        (blocks(count, BLOCK), min(channels * images, _ROWS)), (BLOCK,),
        (np.int32(channels), np.int32(images), y.size // (images * channels), first, count,
         np.int32(flags)),
        defines=(("AXES", 1),),
    )  # fmt: skip


# ---- halves, where cuDNN does not compute with them


def rounded(x):
    """A copy of float32 x with what the present `Precision` keeps of it, if that is less."""
    work = WORK.get(current().math)
    if work is None or x.dtype != np.float32:
        return x
    out = device_of(x).xp.empty(x.shape, x.dtype)
    _round(x, out, work)
    return out


def round_result(y):
    """`rounded`, in place."""
    work = WORK.get(current().math)
    if work is not None and y.dtype == np.float32:
        _round(y, y, work)


def _round(x, out, work):
    grid = (min(blocks(x.size, BLOCK), _ROWS),)
    launch("orders.cu", "round_to", (x, out), grid, (BLOCK,), (x.size,), defines=(("WORK", work),))
