"""Convolution as matrix products: forward, and the gradients of data, weights and bias.

A deconvolution is the same three with the roles of x and y swapped: its forward pass is
`backward_data`.

Shapes throughout: x and dx (N, C, *in_size); y and dy (N, O, *out_size), where N may be several
axes; weight (O, C/group, *kernel); bias (O,); all C-contiguous and of one floating dtype.

With K = C/group * window positions and P output positions, each group's weights (O/group, K)
multiply columns (K, P). The columns are the input itself for a pointwise convolution and are
written by im2col otherwise, block by block: several small images, or a part of a large one.
"""

import numpy as np

from .im2col import col2im, im2col

BLOCK_BYTES = 4 << 20  # of columns at a time: about what the second-level caches hold
JOIN_COUNT = 256  # pointwise images with fewer positions than this share a matrix product

ALGORITHMS = ("pointwise", "im2col")


def algorithm_for(geometry):
    """The name of the way to compute a convolution: a function of its geometry alone."""
    return "pointwise" if geometry.is_pointwise else "im2col"


def forward(x, weight, bias, y, geometry, algorithm=None):
    """y = x convolved with weight, plus bias (None for none)."""
    g = geometry
    x, y, w = x.reshape(g.in_shape), y.reshape(g.out_shape), _grouped_weight(weight, g)
    algorithm = algorithm or algorithm_for(g)
    for images, positions in _blocks(g, algorithm, x.itemsize, BLOCK_BYTES):
        columns = _columns(x, images, positions, g, algorithm)
        out = _grouped(y, images, g.num_output, g)[..., positions]
        if len(out) == 1:
            result = np.matmul(w, columns, out=out[0])
        else:
            result = w @ columns
        if bias is not None:
            result += bias.reshape(g.group, -1, 1)
        if len(out) > 1:
            _split(result, out)


def backward_data(dy, weight, dx, geometry, algorithm=None):
    """dx = the gradient of x: dy convolved with the transposed weight."""
    g = geometry
    dx, dy = dx.reshape(g.in_shape), dy.reshape(g.out_shape)
    w = _grouped_weight(weight, g).swapaxes(1, 2)  # (group, K, O/group)
    algorithm = algorithm or algorithm_for(g)
    if algorithm == "im2col":
        dx[...] = 0
    for images, positions in _blocks(g, algorithm, dx.itemsize, BLOCK_BYTES):
        slopes = _join(_grouped(dy, images, g.num_output, g)[..., positions])
        if algorithm == "im2col":
            col2im(_flat_columns(w @ slopes, images, g), g, dx[images], positions.start)
            continue
        out = _grouped(dx, images, g.channels, g)
        if len(out) == 1:
            np.matmul(w, slopes, out=out[0])
        else:
            _split(w @ slopes, out)


def backward_weight(x, dy, dw, geometry, algorithm=None):
    """dw += the gradient of the weight."""
    g = geometry
    x, dy, total = x.reshape(g.in_shape), dy.reshape(g.out_shape), _grouped_weight(dw, g)
    algorithm = algorithm or algorithm_for(g)
    # Each block costs an addition over dw, so blocks grow with it.
    for images, positions in _blocks(g, algorithm, x.itemsize, max(BLOCK_BYTES, 2 * dw.nbytes)):
        columns = _columns(x, images, positions, g, algorithm)
        slopes = _join(_grouped(dy, images, g.num_output, g)[..., positions])
        total += slopes @ columns.swapaxes(1, 2)


def add_bias(y, bias, geometry):
    """y += bias, for every channel of y, which may be of x's shape (a deconvolution's top)."""
    _by_channel(y, bias.size, geometry)[...] += bias[:, None]


def backward_bias(dy, db, geometry):
    """db += dy summed over images and positions; dy may be of x's shape, as in `add_bias`."""
    db += _by_channel(dy, db.size, geometry).sum(axis=(0, 2))


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
