"""Learning-rate policies against their formulas, and what they refuse."""

import math

import pytest

from demitasse.engine.errors import SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.solvers.learning_rate import check_policy, current_step, learning_rate


def solver_param(policy, **fields):
    return caffe_pb2.SolverParameter(base_lr=0.1, lr_policy=policy, **fields)


def rates(param, count):
    """The rates of the first iterations, as a training run would see them."""
    check_policy(param)
    step, result = 0, []
    for i in range(count):
        step = current_step(param, i, step)
        result.append(learning_rate(param, i, step))
    return result


FORMULAS = {
    "fixed": ({}, lambda i: 0.1),
    "step": ({"gamma": 0.5, "stepsize": 7}, lambda i: 0.1 * 0.5 ** (i // 7)),
    "exp": ({"gamma": 0.9}, lambda i: 0.1 * 0.9**i),
    "inv": ({"gamma": 0.01, "power": 0.75}, lambda i: 0.1 * (1 + 0.01 * i) ** -0.75),
    "multistep": (
        {"gamma": 0.1, "stepvalue": [3, 10]}, lambda i: 0.1 * 0.1 ** ((i >= 3) + (i >= 10))
    ),
    "poly": ({"power": 1.5, "max_iter": 40}, lambda i: 0.1 * (1 - i / 40) ** 1.5),
    "sigmoid": ({"gamma": 0.4, "stepsize": 9}, lambda i: 0.1 / (1 + math.exp(-0.4 * (i - 9)))),
}  # fmt: skip


@pytest.mark.parametrize("policy", FORMULAS)
def test_formula(policy):
    fields, formula = FORMULAS[policy]
    expected = [formula(i) for i in range(30)]
    assert rates(solver_param(policy, **fields), 30) == pytest.approx(expected, rel=2e-6)


def test_equal_stepvalues_count_one_an_iteration():
    # What Caffe does with a step value given twice: two steps, one iteration apart.
    param = solver_param("multistep", gamma=0.5, stepvalue=[2, 2])
    assert rates(param, 5) == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.025])


def test_multistep_goes_on_from_the_step_of_a_snapshot():
    param = solver_param("multistep", gamma=0.5, stepvalue=[2, 4, 6])
    assert current_step(param, 5, 2) == 2
    assert current_step(param, 6, 2) == 3


def test_extremes_do_not_warn_or_fail(recwarn):
    assert learning_rate(solver_param("sigmoid", gamma=5, stepsize=10**6), 0, 0) == 0
    assert learning_rate(solver_param("exp", gamma=2), 10**6, 0) == math.inf
    assert not recwarn.list


def test_poly_at_and_after_its_end():
    param = solver_param("poly", power=0.5, max_iter=10)
    assert learning_rate(param, 10, 0) == 0
    with pytest.raises(SolverError, match="at most max_iter = 10 iterations"):
        learning_rate(param, 11, 0)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (solver_param("stpe", gamma=1), "Did you mean 'step'"),
        (caffe_pb2.SolverParameter(), "a known lr_policy, found none"),
        (solver_param("step", gamma=0.1), "a positive stepsize"),
        (solver_param("step", gamma=-0.1, stepsize=2), "gamma of at least 0"),
        (solver_param("exp", gamma=-1), "gamma of at least 0"),
        (solver_param("inv", gamma=-1), "gamma of at least 0"),
        (solver_param("multistep", gamma=-1), "gamma of at least 0"),
        (solver_param("sigmoid", gamma=0.1), "a positive stepsize"),
        (solver_param("sigmoid", gamma=-0.1, stepsize=3), "gamma of at least 0"),
        (solver_param("poly", power=1), "a positive max_iter"),
    ],
)
def test_refused(param, message):
    with pytest.raises(SolverError, match=message):
        check_policy(param)
