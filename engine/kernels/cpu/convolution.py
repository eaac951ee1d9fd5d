"""Convolution as matrix products: forward, and the gradients of data, weights and bias.

A deconvolution is the same three with the roles of x and y swapped: its forward pass is
`backward_data`.

Shapes throughout: x and dx (N, C, *in_size); y and dy (N, O, *out_size), where N may be several
axes; weight (O, C/group, *kernel); bias (O,); all C-contiguous and of one floating dtype.

With K = C/group * window positions and P output positions, each group's weights (O/group, K)
multiply columns (K, P). The columns are the input itself for a pointwise convolution and are
written by im2col otherwise, block by block: several small images, or a part of a large one.
Where `winograd` suits, it takes the place of all that.
"""

import os

import numpy as np

from . import activations, channelwise, winograd
from .blas import matmul
from .im2col import col2im, im2col

BLOCK_BYTES = 4 << 20  # of columns at a time: about what the second-level caches hold
JOIN_COUNT = 256  # pointwise images with fewer positions than this share a matrix product

ALGORITHMS = ("winograd", "pointwise", "im2col")

_direct = os.environ.get("DEMITASSE_DIRECT_CONVOLUTION", "0") not in ("", "0")


def use_direct(direct=True):
    """Compute all convolutions as plain sums of products from now on, or no longer.

    3x3 convolutions then go without Winograd's transforms, whose results differ in rounding.
    The environment variable DEMITASSE_DIRECT_CONVOLUTION=1 does the same from the start.
    """
    global _direct
    _direct = direct


def algorithm_for(geometry, weights=False):
    """The name of the way to compute a convolution, or the gradient of its `weights`.

    It is a function of the geometry, and of `use_direct`, alone.
    """
    if not _direct and winograd.suits(geometry, weights):
        return "winograd"
    return "pointwise" if geometry.is_pointwise else "im2col"


def forward(x, weight, bias, y, geometry, algorithm=None, relu=False):
    """y = x convolved with weight, plus bias (None for none); then max(y, 0) if `relu`."""
    g = geometry
    algorithm = algorithm or algorithm_for(g)
    if algorithm == "winograd":
        winograd.forward(x, weight, bias, y, g, relu)
        return
    x, y, w = x.reshape(g.in_shape), y.reshape(g.out_shape), _grouped_weight(weight, g)
    for images, positions in _blocks(g, algorithm, x.itemsize, BLOCK_BYTES):
        columns = _columns(x, images, positions, g, algorithm)
        out = _grouped(y, images, g.num_output, g)[..., positions]
        result = _product(w, columns, out)
        if bias is not None:
            result += bias.reshape(g.group, -1, 1)
        if len(out) > 1:
            _split(result, out)
    if relu:
        channelwise.relu(channelwise.rows(y), np.zeros(1, y.dtype), channelwise.rows(y))


def backward_data(dy, weight, dx, geometry, algorithm=None, gate=None):
    """dx = the gradient of x: dy convolved with the transposed weight.

    `gate`: an array like x, the result of a ReLU whose gradient dx becomes; None for none.
    """
    g = geometry
    algorithm = algorithm or algorithm_for(g)
    if algorithm == "winograd":
        winograd.backward_data(dy, weight, dx, g, gate)
        return
    _backward_data(dy, weight, dx, g, algorithm)
    if gate is not None:
        dx = dx.reshape(-1)
        activations.relu_backward(gate.reshape(-1), dx, dx.dtype.type(0), dx)


def _backward_data(dy, weight, dx, g, algorithm):
    dx, dy = dx.reshape(g.in_shape), dy.reshape(g.out_shape)
    w = _grouped_weight(weight, g).swapaxes(1, 2)  # (group, K, O/group)
    if algorithm == "im2col":
        dx[...] = 0
    for images, positions in _blocks(g, algorithm, dx.itemsize, BLOCK_BYTES):
        slopes = _join(_grouped(dy, images, g.num_output, g)[..., positions])
        if algorithm == "im2col":
            columns = _flat_columns(_product(w, slopes), images, g)
            col2im(columns, g, dx[images], positions.start)
            del columns  # before the next ones are made
            continue
        out = _grouped(dx, images, g.channels, g)
        result = _product(w, slopes, out)
        if len(out) > 1:
            _split(result, out)


def backward_weight(x, dy, dw, geometry, algorithm=None, db=None):
    """dw += the gradient of the weight; db (None for none) += that of the bias."""
    g = geometry
    algorithm = algorithm or algorithm_for(g, weights=True)
    if algorithm == "winograd":
        winograd.backward_weight(x, dy, dw, g, db)
        return
    if db is not None:
        backward_bias(dy, db, g)
    x, dy, total = x.reshape(g.in_shape), dy.reshape(g.out_shape), _grouped_weight(dw, g)
    # Each block costs an addition over dw, so blocks grow with it.
    limit = max(BLOCK_BYTES, 2 * dw.nbytes)
    for images, positions in _blocks(g, algorithm, x.itemsize, limit):
        columns = _columns(x, images, positions, g, algorithm)
        slopes = _join(_grouped(dy, images, g.num_output, g)[..., positions])
        matmul(slopes, columns.swapaxes(1, 2), total, add=True)


def add_bias(y, bias, geometry):
    """y += bias, for every channel of y, which may be of x's shape (a deconvolution's top)."""
    _by_channel(y, bias.size, geometry)[...] += bias[:, None]


def backward_bias(dy, db, geometry):
    """db += dy summed over images and positions; dy may be of x's shape, as in `add_bias`."""
    db += channelwise.totals(_by_channel(dy, db.size, geometry))


def _product(w, matrices, out=()):
    # w @ matrices, (group, rows, columns); right into `out` (images, group, ...) of one image.
    group, _, count = matrices.shape
    result = out[0] if len(out) == 1 else np.empty((group, w.shape[1], count), matrices.dtype)
    matmul(w, matrices, result)
    return result


def _by_channel(y, channels, g):
    # (N, O, *size) -> (N, O, positions), a view
    return y.reshape(g.batch, channels, y.size // max(g.batch * channels, 1))


def _blocks(g, algorithm, itemsize, limit):
    # Slices (images, positions) that cover the output: all positions of several images, or parts
    # of one, so that a block's columns stay below `limit` bytes where possible.
    column = g.kernel_count * g.group * itemsize
    together = max(limit // max(column * g.out_count, 1), 1)
    count = g.out_count
    if algorithm == "pointwise":
        if count >= JOIN_COUNT:
            together = 1  # nothing is copied, so a whole image is no burden
    elif together == 1:
        count = max(limit // column, 1)
    for n in range(0, g.batch, together):
        for p in range(0, g.out_count, count):
            yield slice(n, min(n + together, g.batch)), slice(p, min(p + count, g.out_count))


def _columns(x, images, positions, g, algorithm):
    # What the weights meet: (group, K, images * positions).
    if algorithm == "pointwise":
        return _join(_grouped(x, images, g.channels, g)[..., positions])
    shape = (g.kernel_count * g.group, images.stop - images.start, positions.stop - positions.start)
    col = np.empty(shape, x.dtype)
    im2col(x[images], g, col, positions.start)
    return col.reshape(g.group, g.kernel_count, -1)


def _flat_columns(col, images, g):
    # (group, K, images * positions) -> (group * K, images, positions)
    return col.reshape(g.group * g.kernel_count, images.stop - images.start, -1)


def _grouped(y, images, channels, g):
    # (N, O, *size) -> (images, group, O/group, positions), a view
    return y[images].reshape(images.stop - images.start, g.group, channels // g.group, -1)


def _grouped_weight(weight, g):
    # (O, C/group, *kernel) -> (group, O/group, K), a view
    return weight.reshape(g.group, g.num_output // g.group, g.kernel_count)


def _join(y):
    # (images, group, O/group, P) -> (group, O/group, images * P), a view if there is one image
    images, group, rows, count = y.shape
    if images == 1:
        return y[0]
    return y.transpose(1, 2, 0, 3).reshape(group, rows, images * count)


def _split(joined, y):
    # The inverse of _join, written into y (images, group, O/group, P).
    images, group, rows, count = y.shape
    y[...] = joined.reshape(group, rows, images, count).transpose(2, 0, 1, 3)
