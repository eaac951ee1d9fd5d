"""Solver updates in one parallel pass over parameter, gradient and history.

Arguments are flat arrays of one dtype and scalars of the same dtype: `clip` and `mean` scale the
gradient, `decay` is the strength of the regularisation (of L1 if `l1`). The gradient is left with
what was subtracted from the parameter. Operations and their order are those of the array formulas
in solvers/updates.py; without fastmath the results are the same to the last bit.
"""

import numpy as np
from numba import njit, prange

from . import parallel_njit


@njit(inline="always")
def _regularised(g, w, clip, mean, decay, l1):
    g = g * clip * mean
    return g + decay * np.sign(w) if l1 else g + decay * w


@parallel_njit
def sgd(data, diff, h, clip, mean, decay, l1, rate, momentum):
    """See solvers/updates.py, as for all functions here."""
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        h[i] = h[i] * momentum + g * rate
        diff[i] = h[i]
        data[i] -= h[i]


@parallel_njit
def nesterov(data, diff, h, clip, mean, decay, l1, rate, momentum):
    """See `sgd`."""
    ahead = data.dtype.type(1) + momentum
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        back = momentum * h[i]
        h[i] = back + g * rate
        diff[i] = h[i] * ahead - back
        data[i] -= diff[i]


@parallel_njit
def adagrad(data, diff, h, clip, mean, decay, l1, rate, delta):
    """See `sgd`."""
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        h[i] += g * g
        diff[i] = g / (np.sqrt(h[i]) + delta) * rate
        data[i] -= diff[i]


@parallel_njit
def rmsprop(data, diff, h, clip, mean, decay, l1, rate, rms_decay, delta):
    """See `sgd`."""
    rest = data.dtype.type(1) - rms_decay
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        h[i] = h[i] * rms_decay + g * g * rest
        diff[i] = g / (np.sqrt(h[i]) + delta) * rate
        data[i] -= diff[i]


@parallel_njit
def adadelta(data, diff, h, h2, clip, mean, decay, l1, rate, momentum, delta):
    """See `sgd`."""
    rest = data.dtype.type(1) - momentum
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        h[i] = h[i] * momentum + g * g * rest
        step = g * np.sqrt((h2[i] + delta) / (h[i] + delta))
        h2[i] = h2[i] * momentum + step * step * rest
        diff[i] = step * rate
        data[i] -= diff[i]


@parallel_njit
def adam(data, diff, m, v, clip, mean, decay, l1, rate, momentum, momentum2, delta):
    """See `sgd`."""
    rest, rest2 = data.dtype.type(1) - momentum, data.dtype.type(1) - momentum2
    for i in prange(data.size):
        g = _regularised(diff[i], data[i], clip, mean, decay, l1)
        m[i] = m[i] * momentum + g * rest
        v[i] = v[i] * momentum2 + g * g * rest2
        diff[i] = m[i] / (np.sqrt(v[i]) + delta) * rate
        data[i] -= diff[i]
