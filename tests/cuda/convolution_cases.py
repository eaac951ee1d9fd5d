"""Convolutions to compare: geometries, arrays for them, and direct sums in float64."""

import itertools

import numpy as np

from demitasse.engine.kernels.geometry import ConvGeometry, conv_size


def geometry(batch, channels, outputs, size, kernel, stride=1, pad=0, dilation=1, group=1):
    """A `ConvGeometry`; single numbers stand for all axes."""
    axes = len(size)
    kernel, stride, pad, dilation = (
        (v,) * axes if isinstance(v, int) else v for v in (kernel, stride, pad, dilation)
    )
    out = tuple(map(conv_size, size, kernel, stride, pad, dilation))
    return ConvGeometry(batch, channels, outputs, size, out, kernel, stride, pad, dilation, group)


CASES = {
    "3x3": geometry(1, 5, 7, (9, 11), 3, pad=1),
    "two images": geometry(2, 3, 4, (7, 6), 3, pad=1),
    "strides": geometry(3, 4, 6, (11, 13), (3, 5), stride=(2, 3), pad=(1, 2)),
    "pointwise": geometry(2, 6, 5, (5, 4), 1),
    "pointwise, strides": geometry(2, 6, 5, (5, 7), 1, stride=2),
    "dilation": geometry(1, 3, 4, (12, 10), 3, pad=2, dilation=2),
    "groups": geometry(2, 6, 9, (8, 7), (5, 3), pad=(2, 1), group=3),
    "depthwise": geometry(1, 8, 8, (9, 9), 3, stride=2, pad=1, group=8),
    "one axis": geometry(2, 3, 4, (17,), 5, stride=2, pad=2),
    "three axes": geometry(2, 3, 4, (5, 6, 7), (2, 3, 3), stride=(1, 2, 1), pad=1),
    "four axes": geometry(1, 2, 3, (3, 4, 3, 5), 2, pad=(0, 1, 0, 1)),
    "the whole image": geometry(3, 4, 5, (6, 5), (6, 5)),
    "many channels": geometry(1, 40, 70, (6, 35), 3, pad=1),
    "sticks out": geometry(1, 2, 3, (5, 5), 7, stride=3),
}


def arrays(g, dtype, seed=0):
    """x, weight, bias, dy of a geometry."""
    rng = np.random.default_rng(seed)
    shapes = (
        g.in_shape, (g.num_output, g.channels // g.group, *g.kernel), (g.num_output,), g.out_shape,
    )  # fmt: skip
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def reference(g, relu=False, gate=None):
    """y, dx, dw, db in float64 of the arrays above; dw and db begin as ones."""
    x, w, bias, dy = arrays(g, np.float64)
    # A window that sticks out of the image meets zeros there, as padding is on the near side.
    beyond = [
        max(d * (k - 1) + 1 + s * (out - 1) - n - 2 * p, 0)
        for n, out, k, s, p, d in zip(g.in_size, g.out_size, g.kernel, g.stride, g.pad, g.dilation)
    ]
    x = np.pad(x, [(0, 0), (0, 0), *((0, n) for n in beyond)])
    sizes = x.shape, w.shape, dy.shape, g.pad, g.stride, g.dilation
    y = convolve("conv_fprop", x, w, *sizes) + bias.reshape(-1, *[1] * len(g.kernel))
    dx = convolve("conv_dgrad", dy, w, *sizes)[(..., *(slice(n) for n in g.in_size))]
    dw = 1 + convolve("conv_wgrad", x, dy, *sizes)
    db = 1 + dy.sum(axis=(0, *range(2, dy.ndim)))
    if gate is not None:
        dx = np.where(gate > 0, dx, 0)
    return [np.maximum(y, 0) if relu else y, dx, dw, db]


def convolve(kind, a, b, x_dim, w_dim, y_dim, padding, stride, dilation):
    """One of cuDNN's three, window position by window position.

    Args: a, b: x and w for "conv_fprop", dy and w for "conv_dgrad", x and dy for "conv_wgrad".
    """
    group = x_dim[1] // w_dim[1]
    wide = [n + 2 * p for n, p in zip(x_dim[2:], padding)]
    inner = tuple(slice(p, p + n) for n, p in zip(x_dim[2:], padding))
    x = np.zeros((*x_dim[:2], *wide))
    w, y = np.zeros(w_dim), np.zeros(y_dim)
    if kind != "conv_dgrad":
        x[(..., *inner)] = a
    if kind != "conv_wgrad":
        w[...] = b
    if kind != "conv_fprop":
        y[...] = a if kind == "conv_dgrad" else b
    x = x.reshape(x_dim[0], group, -1, *wide)  # views, which the sums below write to
    y = y.reshape(y_dim[0], group, -1, *y_dim[2:])
    w = w.reshape(group, -1, *w_dim[1:])
    for place in itertools.product(*map(range, w_dim[2:])):
        at = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(place, dilation, stride, y_dim[2:])
        )
        part, weight = x[(..., *at)], w[(..., *place)]
        if kind == "conv_fprop":
            y += np.einsum("ngc...,goc->ngo...", part, weight)
        elif kind == "conv_dgrad":
            part += np.einsum("ngo...,goc->ngc...", y, weight)
        else:
            ngc, ngo = (v.reshape(*v.shape[:3], -1) for v in (part, y))
            weight += np.einsum("ngcp,ngop->goc", ngc, ngo)
    if kind == "conv_fprop":
        return y.reshape(y_dim)
    if kind == "conv_wgrad":
        return w.reshape(w_dim)
    return x.reshape(*x_dim[:2], *wide)[(..., *inner)]
