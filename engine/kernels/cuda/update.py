"""Solver updates in one pass over parameter, gradient and history.

Arguments are flat arrays of one dtype, float32 or float64, and scalars: `clip` and `mean` scale the
gradient, `decay` is the strength of the regularisation (of L1 if `l1`). The gradient is left with
what was subtracted from the parameter. Operations and their order are those of kernels/cpu/update.

`clip` may also be an array on the device that begins with the factor, such as `clip_factor`
returns: then nothing waits for it. If that is NaN, nothing is changed.
"""

import numpy as np

from ...device import device_of
from .launch import BLOCK, NULL, blocks, elementwise_grid, launch, number

_PART = 1 << 14  # elements whose squares a block sums up
_MOST = 1 << 10  # blocks


def sgd(data, diff, h, clip, mean, decay, l1, rate, momentum):
    """See solvers/updates.py, as for all functions here but the last."""
    _run("sgd", (data, diff, h), clip, mean, decay, l1, rate, momentum)


def nesterov(data, diff, h, clip, mean, decay, l1, rate, momentum):
    """See `sgd`."""
    _run("nesterov", (data, diff, h), clip, mean, decay, l1, rate, momentum)


def adagrad(data, diff, h, clip, mean, decay, l1, rate, delta):
    """See `sgd`."""
    _run("adagrad", (data, diff, h), clip, mean, decay, l1, rate, delta)


def rmsprop(data, diff, h, clip, mean, decay, l1, rate, rms_decay, delta):
    """See `sgd`."""
    _run("rmsprop", (data, diff, h), clip, mean, decay, l1, rate, rms_decay, delta)


def adadelta(data, diff, h, h2, clip, mean, decay, l1, rate, momentum, delta):
    """See `sgd`."""
    _run("adadelta", (data, diff, h, h2), clip, mean, decay, l1, rate, momentum, delta)


def adam(data, diff, m, v, clip, mean, decay, l1, rate, momentum, momentum2, delta):
    """See `sgd`."""
    _run("adam", (data, diff, m, v), clip, mean, decay, l1, rate, momentum, momentum2, delta)


def _run(name, arrays, clip, mean, decay, l1, *constants):
    data = arrays[0]
    given = isinstance(clip, int | float | np.generic)
    factor, clip = (NULL, clip) if given else (clip, 1)
    clip, mean, decay = (number(value, data) for value in (clip, mean, decay))
    constants = [number(value, data) for value in constants]
    args = clip, mean, decay, np.int32(l1), *constants, data.size
    launch("update.cu", name, (*arrays, factor), elementwise_grid(data), (BLOCK,), args)


def clip_factor(grads, limit, scale=1.0, skip=False):
    """The factor that brings the L2 norm of all gradients together down to `limit`, and the norm.

    Args:
        grads: arrays, `scale` times which are the gradients.
        limit: infinity for no clipping.
        skip: have the factor be NaN if the norm is not finite, so that no update is made.

    Returns: both as a float64 array (2,) on the device, for which nothing has waited.
    """
    device = device_of(grads[0])
    counts = [min(blocks(grad.size, _PART), _MOST) for grad in grads]
    sums = device.xp.empty(sum(counts), np.float64)
    start = 0
    for grad, count in zip(grads, counts):
        part = sums[start : start + count]
        launch("update.cu", "squares", (grad, part), (count,), (BLOCK,), (grad.size,))
        start += count
    out = device.xp.empty(2, np.float64)
    args = np.float64(limit), np.float64(scale), np.int32(skip), sums.size
    launch("update.cu", "clip", (sums, out), (1,), (BLOCK,), args, dtype=np.float32)
    return out
