"""Initial values of parameters (Caffe: filler.hpp)."""

import math

import numpy as np

from .errors import LayerError, closest


def _fans(shape, norm):
    """The count that variance is divided by: fan in (0), fan out (1), or their average (2)."""
    count = math.prod(shape)
    fan_in = count // shape[0] if shape else 1
    fan_out = count // shape[1] if len(shape) > 1 else count
    return (fan_in, fan_out, (fan_in + fan_out) / 2.0)[norm]


def _uniform(out, low, high, rng):
    values = rng.random(out.size, dtype=out.dtype)
    np.multiply(values, out.dtype.type(high - low), out=out.reshape(-1))
    out += out.dtype.type(low)


def _normal(out, mean, std, rng):
    rng.standard_normal(out=out.reshape(-1), dtype=out.dtype)
    out *= out.dtype.type(std)
    if mean:
        out += out.dtype.type(mean)


def _constant(out, p, rng):
    out[...] = p.value


def _uniform_filler(out, p, rng):
    _uniform(out, p.min, p.max, rng)


def _gaussian(out, p, rng):
    _normal(out, p.mean, p.std, rng)
    if p.sparse >= 0:
        # On average `sparse` inputs of each output stay connected.
        out *= rng.random(out.shape) < p.sparse / out.shape[0]


def _positive_unitball(out, p, rng):
    _uniform(out, 0.0, 1.0, rng)
    rows = out.reshape(out.shape[0] if out.shape else 1, -1)
    rows /= rows.sum(axis=1, keepdims=True)


def _xavier(out, p, rng):
    scale = math.sqrt(3.0 / _fans(out.shape, p.variance_norm))
    _uniform(out, -scale, scale, rng)


def _msra(out, p, rng):
    _normal(out, 0.0, math.sqrt(2.0 / _fans(out.shape, p.variance_norm)), rng)


def _bilinear(out, p, rng):
    # Weights of a deconvolution that enlarges by bilinear interpolation (Caffe: BilinearFiller).
    # NOTE: early Caffe 1.0 puts the centre of some sizes (3, 6, 7, ...) off the middle; this is
    # its later, symmetric form.
    size = out.shape[-1]
    f = math.ceil(size / 2.0)
    centre = (size - 1) / (2.0 * f)
    tent = 1 - np.abs(np.arange(size) / f - centre)
    out[...] = tent[:, None] * tent[None, :]


_fillers = {
    "constant": _constant,
    "uniform": _uniform_filler,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}


def check_filler(filler, shape, where):
    """Raise LayerError for a FillerParameter that cannot fill an array of `shape`."""
    kind = filler.type
    if kind not in _fillers:
        hint = closest(kind, _fillers) or f"Known: {', '.join(sorted(_fillers))}."
        raise LayerError(where, "a known filler type", repr(kind), hint)
    if kind != "gaussian" and filler.sparse != -1:
        raise LayerError(where, "sparse only with a gaussian filler", f"type {kind!r}")
    if filler.sparse < -1:
        raise LayerError(where, "sparse of at least -1", filler.sparse)
    if filler.sparse >= 0 and not shape:
        raise LayerError(where, "sparse only with one axis or more", f"shape {shape}")
    if kind == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise LayerError(where, "a shape (n, c, k, k) for the bilinear filler", f"shape {shape}")
    if math.prod(shape) == 0:
        raise LayerError(where, "at least one element to fill", f"shape {shape}")


def fill(array, filler, rng):
    """Write initial values into `array` by a FillerParameter (checked by `check_filler`)."""
    _fillers[filler.type](array, filler, rng)


def lazy_fill(filler, shape, stream, key):
    """A function that fills a flat array as `fill` would one of `shape`."""

    def run(flat):
        fill(flat.reshape(shape), filler, stream.generator(*key))

    return run
