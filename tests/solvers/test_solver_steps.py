"""The training loop: the order of an update, and what it depends on."""

import numpy as np
import pytest
from tiny_solver import NET, parameters, solver_of

pytestmark = pytest.mark.usefixtures("whole_log")


def one_update(text):
    """(weights before, sum of gradients over iter_size, weights after) of one iteration."""
    solver = solver_of(text)
    before, sums = parameters(solver), []
    solver.add_callback(
        lambda: None, lambda: sums.extend(p.blob.diff.copy() for p in solver.net.learnable)
    )
    solver.step(1)
    return before, sums, parameters(solver)


def test_order_of_an_update():
    text = "iter_size: 2 clip_gradients: 0.5 weight_decay: 0.25 momentum: 0.9"
    before, sums, after = one_update(text)
    norm = np.sqrt(sum((g**2).sum() for g in sums))
    assert norm > 0.5  # on the sum, before it is averaged
    for w, g, new, lr, decay in zip(before, sums, after, (0.1, 0.2), (0.25, 0)):
        expected = w - lr * (g * (0.5 / norm) / 2 + decay * w)
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)


def test_l1():
    before, sums, after = one_update('weight_decay: 0.25 regularization_type: "L1"')
    expected = before[0] - 0.1 * (sums[0] + 0.25 * np.sign(before[0]))
    np.testing.assert_allclose(after[0], expected, rtol=1e-5, atol=1e-7)


def test_gradients_of_iter_size_are_summed_over_passes():
    solver = solver_of("iter_size: 3")
    seen = []
    solver.net.after_forward.append(lambda i: seen.append(i))
    solver.step(2)
    assert len(seen) == 2 * 3 * len(solver.net.nodes)
    assert solver.net.passes == 6


def test_diff_holds_the_update():
    solver = solver_of("momentum: 0.9")
    solver.step(2)
    before = parameters(solver)
    solver.step(1)
    for p, old in zip(solver.net.learnable, before):
        np.testing.assert_array_equal(old - p.blob.diff, p.blob.data)


def test_frozen_parameters_take_no_memory():
    net = NET.replace("lr_mult: 1", "lr_mult: 0").replace("lr_mult: 2", "lr_mult: 0")
    solver = solver_of("momentum: 0.9 weight_decay: 1", net)
    before = parameters(solver)
    solver.step(3)
    assert not any(h.has_data for h in solver.optimizer.history)
    for old, new in zip(before, parameters(solver)):
        np.testing.assert_array_equal(old, new)


def test_apply_update_alone():
    solver = solver_of("")
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    before, gradient = parameters(solver), solver.net.learnable[0].blob.diff.copy()
    solver.apply_update()
    assert solver.iter == 1
    np.testing.assert_allclose(parameters(solver)[0], before[0] - 0.1 * gradient, rtol=1e-6)


def test_lr_is_that_of_the_next_update():
    solver = solver_of('lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 3')
    seen = []
    for _ in range(4):
        solver.step(1)
        seen.extend([solver.lr, solver.lr])  # looking changes nothing
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001])


def test_same_seed_same_result():
    runs = []
    for seed in (5, 5, 6):
        solver = solver_of(f"random_seed: {seed}")
        solver.step(3)
        runs.append(parameters(solver)[0])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
