"""Learning-rate policies: the rate of an iteration, as Caffe's SGDSolver::GetLearningRate has it.

Rates are computed in single precision like Caffe's, because trained results depend on them.
"""

import numpy as np

from ..engine.errors import SolverError, closest

_f32 = np.float32


def _fixed(p, iteration, step):
    return p.base_lr


def _power_of_step(p, iteration, step):
    return p.base_lr * np.float64(p.gamma) ** step


def _exp(p, iteration, step):
    return p.base_lr * np.float64(p.gamma) ** iteration


def _inv(p, iteration, step):
    return _f32(p.base_lr) * (_f32(1) + _f32(p.gamma) * _f32(iteration)) ** _f32(-p.power)


def _poly(p, iteration, step):
    left = _f32(1) - _f32(iteration) / _f32(p.max_iter)
    if left < 0 and not float(p.power).is_integer():
        raise SolverError(
            "lr_policy 'poly'", f"at most max_iter = {p.max_iter} iterations",
            f"iteration {iteration}", "Raise max_iter: the rate is 0 from there on.",
        )  # fmt: skip
    return _f32(p.base_lr) * left ** _f32(p.power)


def _sigmoid(p, iteration, step):
    exponent = -_f32(p.gamma) * (_f32(iteration) - _f32(p.stepsize))
    return _f32(p.base_lr) * (_f32(1) / (_f32(1) + np.exp(exponent)))


POLICIES = {
    "fixed": _fixed,
    "step": _power_of_step,
    "exp": _exp,
    "inv": _inv,
    "multistep": _power_of_step,
    "poly": _poly,
    "sigmoid": _sigmoid,
}


def check_policy(p):
    """Raise SolverError unless SolverParameter `p` has all that its lr_policy needs."""
    if p.lr_policy not in POLICIES:
        found = repr(p.lr_policy) if p.HasField("lr_policy") else "none"
        hint = closest(p.lr_policy, POLICIES) or f"Known policies: {', '.join(POLICIES)}."
        raise SolverError("solver", "a known lr_policy", found, hint)
    where = f"lr_policy {p.lr_policy!r}"
    if p.lr_policy not in ("fixed", "poly") and p.gamma < 0:
        raise SolverError(where, "gamma of at least 0", p.gamma)
    if p.lr_policy in ("step", "sigmoid") and p.stepsize <= 0:
        raise SolverError(where, "a positive stepsize", p.stepsize, "Write stepsize: ITERATIONS.")
    if p.lr_policy == "poly" and p.max_iter <= 0:
        raise SolverError(where, "a positive max_iter", p.max_iter, "Write max_iter: ITERATIONS.")


def current_step(p, iteration, step):
    """How many steps down the rate has gone at `iteration`, given the count one iteration before.

    Only the policies step and multistep count. With multistep, as in Caffe, the count goes up by
    at most one an iteration, and it is kept in snapshots.
    """
    if p.lr_policy == "step":
        return iteration // p.stepsize
    if p.lr_policy == "multistep" and step < len(p.stepvalue) and iteration >= p.stepvalue[step]:
        return step + 1
    return step


def learning_rate(p, iteration, step):
    """The learning rate of an iteration, a float of single precision.

    Args:
        p: a SolverParameter that `check_policy` accepts.
        iteration: 0 for the first.
        step: what `current_step` gives for this iteration.
    """
    with np.errstate(all="ignore"):  # exp overflows to inf, and 1 / (1 + inf) is the right 0
        return float(_f32(POLICIES[p.lr_policy](p, iteration, step)))
