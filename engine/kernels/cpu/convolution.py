"""Convolution: forward, and the gradients of data, weights and bias.

A deconvolution is the same three with the roles of x and y swapped: its forward pass is
`backward_data`.

Shapes throughout: x and dx (N, C, *in_size); y and dy (N, O, *out_size), where N may be several
axes; weight (O, C/group, *kernel); bias (O,); all C-contiguous and of one floating dtype.

With K = C/group * window positions and P output positions, each group's weights (O/group, K)
multiply columns (K, P). There are four ways to do so:

    depthwise   `depthwise`: where each input channel has outputs of its own, by one pass a weight
    winograd    `winograd`: 3x3 windows of stride 1, by fewer multiplications
    product     `products` and `product_slopes`: our own product, columns being written bit by bit
    columns     here: BLAS, on columns that are the input itself for a pointwise convolution and are
                written by im2col otherwise, block by block: several small images, or a part of a
                large one

BLAS is as fast where a pointwise convolution's weights learn; where neither of the others has a
gradient of the data, strides are larger than 1 (for windows of 1x1, see `strided`).
"""

import os

import numpy as np

from ..columns import blocks, columns, join
from . import activations, channelwise, depthwise, product_slopes, products, strided, winograd
from .blas import matmul
from .im2col import col2im, im2col

BLOCK_BYTES = 4 << 20  # of columns at a time: about what the second-level caches hold
JOIN_COUNT = 256  # pointwise images with fewer positions than this share a matrix product

_direct = os.environ.get("DEMITASSE_DIRECT_CONVOLUTION", "0") not in ("", "0")


def use_direct(direct=True):
    """Compute all convolutions as plain sums of products from now on, or no longer.

    3x3 convolutions then go without Winograd's transforms, whose results differ in rounding.
    The environment variable DEMITASSE_DIRECT_CONVOLUTION=1 does the same from the start.
    """
    global _direct
    _direct = direct


def algorithm_for(geometry, gradient=None):
    """The name of the way to compute a convolution, or the `gradient` of its "data" or "weight".

    It is a function of the geometry, and of `use_direct`, alone.
    """
    g = geometry
    if depthwise.suits(g):
        return "depthwise"
    if not _direct and winograd.suits(g, gradient):
        return "winograd"
    if gradient == "data":
        if strided.suits(g):
            return "strided"
        return "product" if products.suits_data(g) else "columns"
    return "columns" if gradient == "weight" and g.is_pointwise else "product"


def forward(x, weight, bias, y, geometry, algorithm=None, relu=False, norm=None):
    """y = x convolved with weight, plus bias (None for none); then max(y, 0) if `relu`.

    `norm`: arrays (O,) centre, factor, scale, offset, by which y becomes (y - centre) * factor *
    scale + offset before the maximum is taken, the same bits as `channelwise.normalise` computes;
    None for none.
    """
    algorithm = algorithm or algorithm_for(geometry)
    if algorithm == "depthwise":
        depthwise.forward(x, weight, bias, y, geometry, relu and norm is None)
        if norm is not None:
            rows = geometry.by_channel(y, geometry.num_output)
            channelwise.normalise(rows, *norm, relu, rows)
        return
    kernels = winograd if algorithm == "winograd" else products
    norm = None if norm is None else np.stack(norm)
    kernels.forward(x, weight, bias, y, geometry, relu, norm)


def backward_data(dy, weight, dx, geometry, algorithm=None, gate=None):
    """dx = the gradient of x: dy convolved with the transposed weight.

    `gate`: an array like x, the result of a ReLU whose gradient dx becomes; None for none.
    """
    g = geometry
    algorithm = algorithm or algorithm_for(g, "data")
    if algorithm != "columns":
        kernels = {
            "depthwise": depthwise, "winograd": winograd, "product": products, "strided": strided,
        }[algorithm]  # fmt: skip
        kernels.backward_data(dy, weight, dx, g, gate)
        return
    _backward_data(dy, weight, dx, g)
    if gate is not None:
        dx = dx.reshape(-1)
        activations.relu_backward(gate.reshape(-1), dx, dx.dtype.type(0), dx)


def _backward_data(dy, weight, dx, g):
    dx, dy = dx.reshape(g.in_shape), dy.reshape(g.out_shape)
    w = g.by_group(weight).swapaxes(1, 2)  # (group, K, O/group)
    dx[...] = 0
    for images, positions in blocks(g, dx.itemsize, BLOCK_BYTES, JOIN_COUNT):
        slopes = join(dy, images, positions, g.num_output, g)
        col = np.empty((g.group, w.shape[1], slopes.shape[-1]), dx.dtype)
        matmul(w, slopes, col)
        # (group, K, images * positions) -> (group * K, images, positions)
        col = col.reshape(g.group * g.kernel_count, images.stop - images.start, -1)
        col2im(col, g, dx[images], positions.start)
        del col  # before the next ones are made


def backward_weight(x, dy, dw, geometry, algorithm=None, db=None, add=True):
    """dw += the gradient of the weight; db (None for none) += that of the bias.

    Without `add` dw, whatever it holds, is overwritten.
    """
    g = geometry
    if dy.size == 0 or dw.size == 0:
        if not add:
            dw[...] = 0
        return
    algorithm = algorithm or algorithm_for(g, "weight")
    if algorithm == "winograd":
        winograd.backward_weight(x, dy, dw, g, db, add)
        return
    if db is not None:
        backward_bias(dy, db, g)
    if algorithm == "depthwise":
        depthwise.backward_weight(x, dy, dw, g, add)
        return
    if algorithm == "product":
        product_slopes.backward_weight(x, dy, dw, g, add)
        return
    x, dy, total = x.reshape(g.in_shape), dy.reshape(g.out_shape), g.by_group(dw)
    # Each block costs an addition over dw, so blocks grow with it.
    limit = max(BLOCK_BYTES, 2 * dw.nbytes)
    for images, positions in blocks(g, x.itemsize, limit, JOIN_COUNT):
        col = columns(x, images, positions, g, im2col)
        slopes = join(dy, images, positions, g.num_output, g)
        matmul(slopes, col.swapaxes(1, 2), total, add=add)
        add = True


def add_bias(y, bias, geometry):
    """y += bias, for every channel of y, which may be of x's shape (a deconvolution's top)."""
    geometry.by_channel(y, bias.size)[...] += bias[:, None]


def backward_bias(dy, db, geometry):
    """db += dy summed over images and positions; dy may be of x's shape, as in `add_bias`."""
    db += channelwise.totals(geometry.by_channel(dy, db.size))
