"""The gradient of the data of convolutions of 1x1 with strides, along two spatial axes.

Each output position has an input position of its own, and most of the input has no output. So the
gradient is that of a pointwise convolution whose input has the output's size, and then spread out.
"""

import numpy as np
from numba import prange

from . import parallel_njit, products


def suits(g):
    """Whether `backward_data` can be computed here."""
    return g.kernel == (1, 1) and g.pad == (0, 0) and max(g.stride) > 1


def backward_data(dy, weight, dx, geometry, gate=None):
    """dx = the gradient of x, where `suits`.

    `gate`: an array like x, where dx is times 0 unless this is positive; None for none.
    """
    g = geometry
    dense = type(g)(
        g.batch, g.channels, g.num_output, g.out_size, g.out_size, (1, 1), (1, 1), (0, 0), (1, 1),
        g.group,
    )  # fmt: skip
    slopes = np.empty((g.batch * g.channels, *g.out_size), dx.dtype)
    products.backward_data(dy, weight, slopes, dense)
    planes = dx.reshape(g.batch * g.channels, *g.in_size)
    gate = slopes[:, :0] if gate is None else gate.reshape(planes.shape)
    _spread(slopes, gate, g.stride[0], g.stride[1], planes)


@parallel_njit
def _spread(slopes, gate, down, across, planes):
    zero, gated = planes.dtype.type(0), gate.size > 0
    for plane in prange(len(planes)):
        for h in range(planes.shape[1]):
            line = planes[plane, h]
            line[:] = 0
            if h % down == 0 and h // down < slopes.shape[1]:
                values = slopes[plane, h // down]
                for q in range(len(values)):
                    v = values[q]
                    if gated:
                        v = v if gate[plane, h, q * across] > zero else v * zero
                    line[q * across] = v
