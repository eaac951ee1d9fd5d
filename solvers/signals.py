"""Signals while training: Ctrl-C stops after a snapshot, a hang-up snapshots (Caffe: caffe train).

A signal only leaves a note, which the solver reads between iterations and between test batches.
"""

import contextlib
import signal

from ..engine.errors import SolverError, closest

NONE, STOP, SNAPSHOT = ACTIONS = ("none", "stop", "snapshot")


@contextlib.contextmanager
def handled(solver, sigint_effect=STOP, sighup_effect=SNAPSHOT):
    """While the context lasts, signals have their effect on `solver`: stop, snapshot or none.

    A second Ctrl-C before the solver has taken notice of the first interrupts at once, as a
    KeyboardInterrupt; snapshots on disk stay whole. May be used in the main thread only.

    Raises:
        SolverError: an effect that does not exist.
    """
    effects = {signal.SIGINT: _check("sigint_effect", sigint_effect)}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        effects[signal.SIGHUP] = _check("sighup_effect", sighup_effect)
    received = set()

    def note(number, frame):
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.add(number)

    def requested_action():
        for number in reversed(effects):  # the hang-up first, as in Caffe
            if number in received:
                received.discard(number)
                return effects[number]
        return NONE

    before = {number: signal.signal(number, note) for number in effects}
    solver_before, solver.requested_action = solver.requested_action, requested_action
    try:
        yield
    finally:
        solver.requested_action = solver_before
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _check(name, effect):
    if effect not in ACTIONS:
        hint = closest(effect, ACTIONS) or f"Known: {', '.join(ACTIONS)}."
        raise SolverError(name, "an effect of a signal", repr(effect), hint)
    return effect
