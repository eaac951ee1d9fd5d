"""Convolutions as plain sums in float64, for the kernels to be compared with."""

import numpy as np

from demitasse.engine.kernels.geometry import ConvGeometry, conv_size, window_extent


def make(batch, channels, num_output, size, kernel, stride, pad, dilation, group=1):
    """A geometry with the output size that follows."""
    out = tuple(map(conv_size, size, kernel, stride, pad, dilation))
    return ConvGeometry(
        batch, channels, num_output, size, out, kernel, stride, pad, dilation, group
    )  # fmt: skip


def _pads(g):
    # On each axis; after the image, enough for a last window that sticks out of the padding.
    return [(p, p + window_extent(k, d)) for p, k, d in zip(g.pad, g.kernel, g.dilation)]


def _parts(g):
    """(index of a weight in the window, index of what it meets in the padded image)."""
    for k in np.ndindex(*g.kernel):
        part = (
            slice(i * d, i * d + s * (n - 1) + 1, s)
            for i, d, s, n in zip(k, g.dilation, g.stride, g.out_size)
        )
        yield (..., *k, *(slice(None),) * len(k)), (..., *part)


def windows(x, g):
    """What each weight meets: (N, C, *kernel, *out_size), in x's dtype."""
    padded = np.pad(x, ((0, 0), (0, 0), *_pads(g)))
    out = np.empty((*x.shape[:2], *g.kernel, *g.out_size), x.dtype)
    for weight, part in _parts(g):
        out[weight] = padded[part]
    return out


class Direct:
    """The three passes of a convolution without a bias: y, dx and dw."""

    def __init__(self, x, weight, dy, g):
        x, weight, dy = (a.astype(np.float64) for a in (x, weight, dy))
        inputs = g.channels // g.group
        met = windows(x, g).reshape(g.batch, g.group, inputs * np.prod(g.kernel), g.out_count)
        w = weight.reshape(g.group, g.num_output // g.group, -1)
        slopes = dy.reshape(g.batch, *w.shape[:2], g.out_count)
        self.y = (w @ met).reshape(g.out_shape)
        self.dw = (slopes @ met.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape)
        spread = (w.swapaxes(1, 2) @ slopes).reshape(
            g.batch, g.channels, *g.kernel, *g.out_size
        )  # fmt: skip
        pads = _pads(g)
        dx = np.zeros((*x.shape[:2], *(n + sum(p) for n, p in zip(g.in_size, pads))))
        for weight_index, part in _parts(g):
            dx[part] += spread[weight_index]
        self.dx = dx[(..., *(slice(p, p + n) for n, (p, _) in zip(g.in_size, pads)))]


LIMIT = {np.float32: 1e-4, np.float64: 1e-10}


def close(got, expected):
    """Assert that max|a - b| / max|b| is below the dtype's limit."""
    assert got.shape == expected.shape
    if expected.size:
        error = np.abs(got - expected).max()
        assert error <= LIMIT[got.dtype.type] * np.abs(expected).max()
