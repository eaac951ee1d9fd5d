"""Update rules: how a gradient, its history and the learning rate change a parameter.

Each formula is a function on arrays that overwrites the gradient by the update and keeps its
history in place. `update` runs it over a parameter: large ones go through the device's kernel of
the same name, which makes one parallel pass over memory, with equal results to the last bit.
"""

import math

import numpy as np

from ..engine.errors import SolverError, closest

FUSED_FROM = 1 << 18  # elements from which on the kernel pays (and is worth loading)
_BLOCK = 1 << 15  # elements whose intermediate results stay in the processor's cache


# ---- formulas: g is the gradient and becomes what is subtracted from the parameter


def sgd(g, h, rate, momentum):
    """h = momentum h + rate g; update h (Caffe: SGDSolver)."""
    h *= momentum
    g *= rate
    h += g
    g[...] = h


def nesterov(g, h, rate, momentum):
    """h' = momentum h + rate g; update (1 + momentum) h' - momentum h (Caffe: NesterovSolver)."""
    back = momentum * h
    g *= rate
    np.add(back, g, out=h)
    np.multiply(h, 1 + momentum, out=g)
    g -= back


def adagrad(g, h, rate, delta):
    """h = h + g^2; update rate g / (sqrt(h) + delta) (Caffe: AdaGradSolver)."""
    h += g * g
    root = np.sqrt(h)
    root += delta
    g /= root
    g *= rate


def rmsprop(g, h, rate, rms_decay, delta):
    """h = d h + (1 - d) g^2; update rate g / (sqrt(h) + delta) (Caffe: RMSPropSolver)."""
    _blend(h, g * g, rms_decay)
    root = np.sqrt(h)
    root += delta
    g /= root
    g *= rate


def adadelta(g, h, h2, rate, momentum, delta):
    """h, h2: decayed means of squared gradients and of squared steps (Caffe: AdaDeltaSolver).

    The step is g sqrt((h2 + delta) / (h + delta)), the update rate times that.
    """
    _blend(h, g * g, momentum)
    ratio = h2 + delta
    ratio /= h + delta
    g *= np.sqrt(ratio, out=ratio)
    _blend(h2, g * g, momentum)
    g *= rate


def adam(g, m, v, rate, momentum, momentum2, delta):
    """m, v: decayed means of g and g^2; update rate m / (sqrt(v) + delta) (Caffe: AdamSolver).

    `rate` includes the correction for the start from zero.
    """
    _blend(v, g * g, momentum2)
    _blend(m, g, momentum)
    root = np.sqrt(v)
    root += delta
    np.divide(m, root, out=g)
    g *= rate


def _blend(h, values, keep):
    """h = keep h + (1 - keep) values; `values` is overwritten."""
    h *= keep
    values *= 1 - keep
    h += values


# ---- rules


class Rule:
    """An update rule with its settings from a SolverParameter.

    Attributes:
        histories: how many arrays of a parameter's shape it keeps from update to update.
        resting: whether a learning rate of 0 with no history changes nothing at all.
    """

    histories = 1
    resting = False

    def __init__(self, param):
        self.param = param
        self.check(param)

    def check(self, p):
        """Raise SolverError for settings that the rule cannot work with."""

    def constants(self, rate, iteration):
        """The formula's arguments after the arrays; `rate` is the parameter's learning rate."""
        raise TypeError(f"{type(self).__name__} does not say its constants")


class SGD(Rule):
    """Gradient descent with momentum."""

    formula = staticmethod(sgd)
    resting = True

    def constants(self, rate, iteration):
        return rate, self.param.momentum


class Nesterov(SGD):
    """Nesterov's accelerated gradient (Sutskever et al., ICML 2013)."""

    formula = staticmethod(nesterov)


class AdaGrad(Rule):
    """Duchi, Hazan, Singer: Adaptive Subgradient Methods, JMLR 2011."""

    formula = staticmethod(adagrad)

    def check(self, p):
        _refuse_momentum(p, "AdaGrad")

    def constants(self, rate, iteration):
        return rate, self.param.delta


class RMSProp(Rule):
    """Tieleman and Hinton: Lecture 6.5, COURSERA 2012."""

    formula = staticmethod(rmsprop)

    def check(self, p):
        _refuse_momentum(p, "RMSProp")
        _check_range(p, "RMSProp", "rms_decay")

    def constants(self, rate, iteration):
        return rate, self.param.rms_decay, self.param.delta


class AdaDelta(Rule):
    """Zeiler: ADADELTA, arXiv:1212.5701. `momentum` is the paper's rho."""

    formula = staticmethod(adadelta)
    histories = 2

    def constants(self, rate, iteration):
        return rate, self.param.momentum, self.param.delta


class Adam(Rule):
    """Kingma and Ba: Adam, ICLR 2015. `momentum` and `momentum2` are the paper's betas."""

    formula = staticmethod(adam)
    histories = 2

    def check(self, p):
        # NOTE: Caffe does not check; here a division by zero is refused before training.
        _check_range(p, "Adam", "momentum")
        _check_range(p, "Adam", "momentum2")

    def constants(self, rate, iteration):
        p, t = self.param, iteration + 1
        correction = math.sqrt(1 - p.momentum2**t) / (1 - p.momentum**t)
        return rate * correction, p.momentum, p.momentum2, p.delta


RULES = {rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}


def rule_of(param):
    """The rule that a SolverParameter's `type` names; an unknown type names the closest."""
    if param.type not in RULES:
        hint = closest(param.type, RULES) or f"Known types: {', '.join(RULES)}."
        raise SolverError("solver", "a known solver type", repr(param.type), hint)
    return RULES[param.type](param)


def _refuse_momentum(p, name):
    if p.momentum != 0:
        raise SolverError(
            f"solver type {name}", "no momentum", f"momentum: {p.momentum:g}",
            "Remove momentum from the solver file, or choose another type.",
        )  # fmt: skip


def _check_range(p, name, field):
    value = getattr(p, field)
    if not 0 <= value < 1:
        raise SolverError(f"solver type {name}", f"{field} of at least 0 and below 1", f"{value:g}")


# ---- running a rule


def update(rule, device, data, grad, histories, scales, decay, constants):
    """Update one parameter in place; `grad` is left with what was subtracted from `data`.

    Args:
        rule: a `Rule`.
        device: where the arrays live.
        data, grad: the parameter and its gradient, contiguous and of one shape.
        histories: the rule's arrays of that shape.
        scales: two factors of the gradient, one after the other (clipping, averaging); on a GPU
            the first may be an array, see kernels/cuda/update.py.
        decay: (strength, whether L1) of the regularisation.
        constants: of the rule.
    """
    flat = [array.reshape(-1) for array in (data, grad, *histories)]
    number = data.dtype.type
    strength, l1 = decay
    numbers = [number(c) for c in constants]
    scales = [number(s) if isinstance(s, float) else s for s in scales]
    fused = data.size >= FUSED_FROM or not device.is_host
    if fused and hasattr(device.kernels, "update"):
        kernel = getattr(device.kernels.update, rule.formula.__name__)
        kernel(*flat, *scales, number(strength), l1, *numbers)
        return
    for start in range(0, data.size, _BLOCK):
        w, g, *h = (array[start : start + _BLOCK] for array in flat)
        regularise(w, g, scales, number(strength), l1)
        rule.formula(g, *h, *numbers)
        w -= g


def regularise(w, g, scales, decay, l1):
    """Scale the gradient `g` of `w` and add that of the regularisation, in place."""
    for scale in scales:
        if scale != 1:
            g *= scale
    g += decay * (np.sign(w) if l1 else w)


def clip_factor(grads, limit, skip=False):
    """The factor that brings the L2 norm of all gradients together down to `limit`, and the norm.

    Each gradient's square is summed in its own precision, the sum of these in double precision.

    Args: limit: infinity for no clipping. skip: have the factor be NaN if the norm is not finite.

    Returns: both as a float64 array (2,).
    """
    square = sum(float(g.ravel().dot(g.ravel())) for g in grads)
    norm = math.sqrt(square)
    factor = limit / norm if norm > limit else 1.0
    return np.array([math.nan if skip and not math.isfinite(norm) else factor, norm])
