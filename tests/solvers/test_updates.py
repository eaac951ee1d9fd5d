"""Update rules against plain formulas in double precision; the kernels against the formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.device import CPU
from demitasse.engine.errors import SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.solvers import updates

MOMENTUM, MOMENTUM2, RMS_DECAY, DELTA = 0.875, 0.9375, 0.75, 2.0**-10  # exact in float32


class Reference:
    """The papers' update rules, one step at a time, on double-precision arrays."""

    def __init__(self, kind):
        self.step = getattr(self, kind.lower())
        self.h = self.h2 = 0.0

    def sgd(self, g, rate, t):
        self.h = MOMENTUM * self.h + rate * g
        return self.h

    def nesterov(self, g, rate, t):
        old, self.h = self.h, MOMENTUM * self.h + rate * g
        return (1 + MOMENTUM) * self.h - MOMENTUM * old

    def adagrad(self, g, rate, t):
        self.h = self.h + g**2
        return rate * g / (np.sqrt(self.h) + DELTA)

    def rmsprop(self, g, rate, t):
        self.h = RMS_DECAY * self.h + (1 - RMS_DECAY) * g**2
        return rate * g / (np.sqrt(self.h) + DELTA)

    def adadelta(self, g, rate, t):
        self.h = MOMENTUM * self.h + (1 - MOMENTUM) * g**2
        step = g * np.sqrt((self.h2 + DELTA) / (self.h + DELTA))
        self.h2 = MOMENTUM * self.h2 + (1 - MOMENTUM) * step**2
        return rate * step

    def adam(self, g, rate, t):
        self.h = MOMENTUM * self.h + (1 - MOMENTUM) * g
        self.h2 = MOMENTUM2 * self.h2 + (1 - MOMENTUM2) * g**2
        correction = np.sqrt(1 - MOMENTUM2**t) / (1 - MOMENTUM**t)
        return rate * correction * self.h / (np.sqrt(self.h2) + DELTA)


def make_rule(kind):
    fields = {} if kind in ("AdaGrad", "RMSProp") else {"momentum": MOMENTUM}
    return updates.rule_of(
        caffe_pb2.SolverParameter(
            type=kind, momentum2=MOMENTUM2, rms_decay=RMS_DECAY, delta=DELTA, **fields
        )
    )


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", updates.RULES)
def test_against_reference(kind, dtype, l1):
    rng = np.random.default_rng(1)
    rule, reference = make_rule(kind), Reference(kind)
    w = rng.standard_normal((4, 7)).astype(dtype)
    histories = [np.zeros_like(w) for _ in range(rule.histories)]
    expected = w.astype(np.float64)
    clip, mean, decay = 0.75, 0.5, 0.125
    for t in range(1, 21):
        gradient = rng.standard_normal(w.shape).astype(dtype)
        g = gradient.astype(np.float64) * clip * mean
        g += decay * (np.sign(expected) if l1 else expected)
        step = reference.step(g, 0.0625, t)
        expected -= step
        left = gradient.copy()
        constants = rule.constants(0.0625, t - 1)
        updates.update(rule, CPU, w, left, histories, (clip, mean), (decay, l1), constants)
        tolerance = {"rtol": 2e-4, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10}
        np.testing.assert_allclose(w, expected, **tolerance)
        np.testing.assert_allclose(left, step, **tolerance)
    assert w.dtype == dtype
    np.testing.assert_allclose(histories[0], reference.h, **tolerance)
    if rule.histories == 2:
        np.testing.assert_allclose(histories[1], reference.h2, **tolerance)


@pytest.mark.parametrize("kind", updates.RULES)
@settings(deadline=None, max_examples=20)
@given(
    count=st.integers(1, 3000), dtype=st.sampled_from([np.float32, np.float64]), l1=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_kernels_of_any_size(kind, count, dtype, l1, seed):
    rng = np.random.default_rng(seed)
    rule, reference = make_rule(kind), Reference(kind)
    w = rng.standard_normal(count).astype(dtype)
    histories = [np.zeros_like(w) for _ in range(rule.histories)]
    expected = w.astype(np.float64)
    limit = 1e-4 if dtype == np.float32 else 1e-10
    for t in range(1, 4):
        gradient = rng.standard_normal(count).astype(dtype)
        g = gradient.astype(np.float64) * 0.75 * 0.5
        g += 0.125 * (np.sign(expected) if l1 else expected)
        step = reference.step(g, 0.0625, t)
        expected -= step
        constants = rule.constants(0.0625, t - 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updates, "FUSED_FROM", 1)
            updates.update(rule, CPU, w, gradient, histories, (0.75, 0.5), (0.125, l1), constants)
        found = [(w, expected), (gradient, step), (histories[0], reference.h)]
        if rule.histories == 2:
            found.append((histories[1], reference.h2))
        for got, exact in found:
            assert got.dtype == dtype
            assert np.abs(got - exact).max() <= limit * np.abs(exact).max()


@pytest.mark.parametrize("kind", updates.RULES)
def test_kernel_gives_the_same_bits(kind, monkeypatch):
    rng = np.random.default_rng(2)
    rule, n = make_rule(kind), 70_001  # several blocks and a rest
    start = [rng.standard_normal(n, dtype=np.float32) for _ in range(2)]
    start += [np.zeros(n, np.float32) for _ in range(rule.histories)]

    def run(fused_from):
        monkeypatch.setattr(updates, "FUSED_FROM", fused_from)
        w, g, *histories = [a.copy() for a in start]
        for t in range(3):
            for decay in ((0.01, False), (0.01, True), (0.0, False)):
                g[:] = start[1][::-1] * (t + 1)
                constants = rule.constants(0.01, t)
                updates.update(rule, CPU, w, g, histories, (0.7, 1 / 3), decay, constants)
        return [w, g, *histories]

    for formula, kernel in zip(run(1 << 30), run(1)):
        np.testing.assert_array_equal(formula, kernel)


def test_clip_factor():
    grads = [np.full((2, 2), 3, np.float32), np.full(7, 4, np.float32)]
    norm = np.sqrt(4 * 9 + 7 * 16)
    assert updates.clip_factor(grads, 2.0) == pytest.approx((2 / norm, norm))
    assert updates.clip_factor(grads, 100.0) == pytest.approx((1.0, norm))
    assert updates.clip_factor([], 1.0).tolist() == [1.0, 0.0]
    grads[0][0] = np.inf
    assert np.isnan(updates.clip_factor(grads, np.inf, skip=True)[0])
    assert updates.clip_factor(grads, np.inf)[0] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "Adamm"}, "Did you mean 'Adam'"),
        (
            {"type": "AdaGrad", "momentum": 0.9},
            "AdaGrad: expected no momentum, found momentum: 0.9",
        ),
        ({"type": "RMSProp", "momentum": 0.9}, "RMSProp: expected no momentum"),
        ({"type": "RMSProp", "rms_decay": 1}, "rms_decay of at least 0 and below 1"),
        ({"type": "RMSProp", "rms_decay": -0.1}, "rms_decay of at least 0 and below 1"),
        ({"type": "Adam", "momentum": 1}, "momentum of at least 0 and below 1"),
        ({"type": "Adam", "momentum": 0.9, "momentum2": 1}, "momentum2 of at least 0 and below 1"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(SolverError, match=message):
        updates.rule_of(caffe_pb2.SolverParameter(**fields))
