"""Times and peak memory of several sides on one case, in one run.

Each side has a process of its own, so that no library's threads or memory are another's; they take
turns, so that all meet the same state of the machine. A turn is one pass, or as many short ones as
take TURN seconds, of which the first does not count: after a pause a processor has to wake up,
which on virtual machines takes a third of a pass of 10 ms. First the sides' results are compared.
"""

import multiprocessing
import os
import resource
import statistics
import time
import warnings
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from ours import Unavailable
from peers import SIDES

TORCH = ("torch", "torch-nhwc")
TOLERANCE = 1e-3
LOOSE = 0.1
TURN = 0.1
"""Seconds of a side's turn, at least."""
PAUSE = 0.1
"""Seconds between two sides' turns: threads of OpenBLAS and OpenMP wait actively for a while."""
CONTEXT = multiprocessing.get_context("spawn")


@dataclass
class Measurement:
    """What one side did on one case: seconds of its passes, and the most MB it held."""

    seconds: list
    peak_mb: float

    @property
    def median(self):
        return statistics.median(self.seconds)


class Disagreement(Exception):
    """Two sides that compute different things."""


# ---- the process of a side


def _serve(connection, kind, case, threads):
    """Answer commands until told to stop, or left alone: ("ok", value) or ("failed", reason)."""
    warnings.simplefilter("ignore")
    commands = {}

    def start():
        made = kind(case, threads)
        commands.update(run=lambda: _turn(made.run), results=made.results, peak=_peak_mb)

    commands["start"] = start
    while True:
        try:
            command = connection.recv()
            if command == "stop":
                return
            connection.send(("ok", commands[command]()))
        except EOFError:
            return
        except Unavailable as e:
            connection.send(("failed", str(e)))
        except Exception as e:
            connection.send(("failed", f"{type(e).__name__}: {e}"))


def _turn(function):
    # Seconds of the passes of a turn.
    passes = []
    while sum(passes) < TURN:
        start = time.perf_counter()
        function()
        passes.append(time.perf_counter() - start)
    return passes[1:] or passes


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


class Worker:
    """A side's process, seen from here. `kind` is the side's class, `side` what it is called."""

    def __init__(self, side, kind, case, threads):
        self.side, self.title = side, kind.name
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(theirs, kind, case, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.connection.send("start")

    def answer(self):
        """The answer to the last command; Unavailable if there is none."""
        try:
            status, value = self.connection.recv()
        except EOFError:
            raise Unavailable("its process ended (out of memory?)") from None
        if status == "failed":
            raise Unavailable(value)
        return value

    def ask(self, command):
        """Have a command carried out."""
        try:
            self.connection.send(command)
        except OSError:
            raise Unavailable("its process ended") from None
        return self.answer()

    def stop(self):
        """End the process."""
        if self.process.is_alive():
            try:
                self.connection.send("stop")
            except OSError:
                self.process.terminate()
        self.process.join()


class Workers:
    """The workers of a case that could start, as a context manager. `kinds`: {side: class}."""

    def __init__(self, case, sides, threads, note, kinds=SIDES):
        set_threads(threads)
        self.all = [Worker(side, kinds[side], case, threads) for side in sides]
        self.note = note

    def __enter__(self):
        return self.live(lambda worker: worker.answer())

    def live(self, action):
        """Do something with each worker; those that fail are noted and left out from now on."""
        for worker in list(self.all):
            try:
                action(worker)
            except Unavailable as e:
                self.note(f"{worker.title}: {e}")
                worker.stop()
                self.all.remove(worker)
        return self

    def __exit__(self, *_):
        for worker in self.all:
            worker.stop()


def set_threads(count):
    """What the libraries of processes started from now on take as their number of threads."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)


# ---- one case


_compared = {}  # (case, threads) -> error, because float64 gradients serve all batch sizes


def compare(case, sides, threads, note):
    """Check that all sides compute what the first one does.

    Outputs and loss are compared as they are measured. Gradients are, too, but where rounding tips
    a ReLU they differ in float32, by percents in a deep net; so they are compared in float64 as
    well, with one image.

    Returns: the largest relative error of outputs and losses.
    Raises: Disagreement where outputs, losses or float64 gradients differ by more than TOLERANCE,
        or float32 gradients by more than LOOSE.
    """
    case = replace(case, dropout=False)
    if case.mode != "forward":
        single = replace(case, batch=1, dtype="float64", keep=None)
        _compare(single, sides, threads, note, TOLERANCE)
    return _compare(case, sides, threads, note, LOOSE)


def _compare(case, sides, threads, note, gradient_tolerance):
    if (case, threads) in _compared:
        return _compared[case, threads]
    worst = nan  # of nothing
    with Workers(case, sides, threads, note) as workers:
        results = {}
        workers.live(lambda w: results.setdefault(w.title, w.ask("results")))
    for other in list(results)[1:]:
        errors = relative_errors(next(iter(results.values())), results[other])
        for name, error in errors.items():
            gradient = name.startswith("gradient")
            if not error <= (gradient_tolerance if gradient else TOLERANCE):
                raise Disagreement(f"{case.label()}, {other}: {name} differs by {error:.1e}")
        outputs = [e for n, e in errors.items() if not n.startswith("gradient")]
        worst = np.fmax(worst, max(outputs))
    _compared[case, threads] = worst
    return worst


def relative_errors(ours, theirs):
    """{name: error} of the arrays that both sides have.

    The error is max|a - b| / max|b|; for gradients it is |a - b| / |b|, where those that are zero
    but for rounding (a bias before BatchNorm) are compared with a part of the largest of all.
    """
    common = [name for name in ours if name in theirs]
    if not common:
        raise Disagreement(f"nothing in common: {list(ours)[:3]} and {list(theirs)[:3]}")
    norm = np.linalg.norm
    gradients = [norm(theirs[name]) for name in common if name.startswith("gradient")]
    errors = {}
    for name in common:
        a, b = ours[name].reshape(-1), theirs[name].reshape(-1)
        if name.startswith("gradient"):
            errors[name] = float(norm(a - b) / max(norm(b), 1e-4 * max(gradients)))
        else:
            errors[name] = float(np.abs(a - b).max() / np.abs(b).max())
    return errors


def measure(case, sides, threads, seconds, repeat, note, kinds=SIDES):
    """Take turns: {side: Measurement}.

    Args:
        seconds: about how long all passes of all sides may take together.
        repeat: rounds; None for as many as fit, at least 5 and at most 50.
        note: a function that is told of sides that cannot take part.
        kinds: {side: class}, what the sides are.
    """
    with Workers(case, sides, threads, note, kinds) as workers:
        for _ in range(2):  # kernels are compiled, memory is taken
            warm = {}
            workers.live(lambda w, warm=warm: warm.setdefault(w.side, w.ask("run")))
        a_round = sum(PAUSE + max(TURN, max(turn)) for turn in warm.values())
        rounds = repeat or int(min(50, max(5, seconds / a_round)))
        passes = {worker.side: [] for worker in workers.all}
        for _ in range(rounds):
            workers.live(lambda w: passes[w.side].extend(rested(w)))
        return {w.side: Measurement(passes[w.side], w.ask("peak")) for w in workers.all}


def rested(worker):
    """Seconds of the passes of a turn, after a pause."""
    time.sleep(PAUSE)
    return worker.ask("run")


# ---- tables


def cell(measurement, unit, digits):
    """Least and median time, `unit` of which are a second, and peak memory in MB; or "-"."""
    if measurement is None:
        return "-"
    times = (f"{unit * t:.{digits}f}" for t in (min(measurement.seconds), measurement.median))
    return f"{'/'.join(times)}, {measurement.peak_mb:.0f}"


def ratio(measured):
    """The median of PyTorch's faster layout to ours, as text."""
    theirs = [measured[side].median for side in TORCH if side in measured]
    if not theirs or "ours" not in measured:
        return "-"
    return f"{min(theirs) / measured['ours'].median:.2f}"
