"""The lines that a solver logs, and the losses in them."""

import logging
import re

import numpy as np
import pytest
from tiny_solver import messages, solver_of

pytestmark = pytest.mark.usefixtures("whole_log")


def test_words_of_a_run(caplog):
    solver_of("display: 2 max_iter: 3 test_iter: 2 test_interval: 3 average_loss: 2").solve()
    number = r"[-+.\de]+"
    patterns = [
        r"Initializing solver from parameters: \n(.|\n)*base_lr: 0.1(.|\n)*",
        r"Creating training net specified in net_param\.",
        r"Creating test net \(#0\) specified by net_param",
        r"Solver scaffolding done\.",
        r"Solving tiny",
        r"Learning Rate Policy: fixed",
        r"Iteration 0, Testing net \(#0\)",
        rf"    Test net output #0: l = {number} \(\* 3 = {number} loss\)",
        rf"Iteration 0 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Iteration 0, lr = 0\.1",
        rf"Iteration 2 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Iteration 2, lr = 0\.1",
        r"Iteration 3, Testing net \(#0\)",
        rf"    Test net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Optimization Done\.",
    ]
    lines = messages(caplog)
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_last_loss_and_test_loss(caplog):
    text = (
        "display: 2 max_iter: 2 test_iter: 1 test_interval: 5 test_compute_loss: true "
        "test_initialization: false"
    )
    solver = solver_of(text)
    solver.solve()
    lines = messages(caplog)
    assert re.fullmatch(r"Iteration 2, loss = [\d.e-]+", lines[-2])
    assert not any("Testing" in line for line in lines)
    solver.test_all()
    assert re.fullmatch(r"Test loss: [\d.e-]+", messages(caplog)[-2])


def test_clipping_is_told(caplog):
    solver_of("clip_gradients: 1e-3").step(1)
    pattern = (
        r"Gradient clipping: scaling down gradients \(L2 norm [\d.]+ > 0.001\) by scale factor"
    )
    assert any(re.match(pattern, line) for line in messages(caplog))


def test_multistep_is_told(caplog):
    solver_of('lr_policy: "multistep" gamma: 0.1 stepvalue: 2').step(4)
    assert messages(caplog).count("MultiStep Status: Iteration 2, step = 1") == 1


def test_average_loss():
    solver, losses, smoothed = solver_of("average_loss: 3"), [], []
    solver.on_progress.append(lambda s: (losses.append(s.loss), smoothed.append(s.smoothed_loss)))
    solver.step(6)
    expected = [np.mean(losses[max(0, i - 2) : i + 1]) for i in range(6)]
    assert smoothed == pytest.approx(expected)


def test_debug_info_only_when_shown(caplog):
    solver_of("debug_info: true display: 2").step(2)
    lines = [r.getMessage() for r in caplog.records if r.name == "demitasse.net"]
    assert sum("[Backward] All net params" in line for line in lines) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_finite_loss_is_told_once(caplog):
    solver = solver_of("base_lr: 1e30")
    solver.step(6)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert re.match(r"Iteration \d: the loss is (nan|inf)\. ", warnings[0])
