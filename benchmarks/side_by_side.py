"""Times and peak memory of several sides on one case, in one run.

Each side has a process of its own, so that no library's threads or memory are another's; they take
turns, so that all meet the same state of the machine. A turn is one pass, or as many short ones as
take TURN seconds, of which the first does not count: after a pause a processor has to wake up,
which on virtual machines takes a third of a pass of 10 ms. First the sides' results are compared.
"""

import statistics
import time
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from workers import TURN, Workers

TORCH = ("torch", "torch-nhwc")
TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 0.1
PAUSE = 0.1
"""Seconds between two sides' turns: threads of OpenBLAS and OpenMP wait actively for a while."""
WIDTH = 25
"""Of a side's column."""


@dataclass
class Measurement:
    """What one side did on one case: seconds of its passes, and the most MB it held.

    `waited`: seconds a pass waits for data on average; None if the side reads none.
    """

    seconds: list
    peak_mb: float
    waited: float | None = None

    @property
    def median(self):
        return statistics.median(self.seconds)


class Disagreement(Exception):
    """Two sides that compute different things."""


# ---- one case


_compared = {}  # (case, threads) -> error, because float64 gradients serve all batch sizes


def compare(case, kinds, threads, note):
    """Check that all sides compute what the first one does.

    Outputs and loss are compared as they are measured. Gradients are, too, but where rounding tips
    a ReLU they differ in float32, by percents in a deep net; so they are compared in float64 as
    well, with one image.

    Returns: the largest relative error of outputs and losses.
    Raises: Disagreement where outputs, losses or float64 gradients differ by more than TOLERANCE,
        or float32 gradients by more than GRADIENT_TOLERANCE.
    """
    case = replace(case, dropout=False)
    if case.mode != "forward":
        single = replace(case, batch=1, dtype="float64", keep=None)
        _compare(single, kinds, threads, note, TOLERANCE)
    return _compare(case, kinds, threads, note, GRADIENT_TOLERANCE)


def _compare(case, kinds, threads, note, gradient_tolerance):
    if (case, threads) not in _compared:
        results = {}
        with Workers(case, kinds, threads, note) as workers:
            workers.live(lambda w: results.setdefault(w.title, w.ask("results")))
        _compared[case, threads] = check(case, results, gradient_tolerance)
    return _compared[case, threads]


def check(case, results, gradient_tolerance=GRADIENT_TOLERANCE):
    """Compare {title: {name: array}} of sides with the first of them.

    Returns: the largest relative error of outputs and losses, nan if there is nothing to compare.
    Raises: Disagreement where these differ by more than TOLERANCE, or gradients by more than
        `gradient_tolerance`.
    """
    worst = nan
    for other in list(results)[1:]:
        errors = relative_errors(next(iter(results.values())), results[other])
        for name, error in errors.items():
            gradient = name.startswith("gradient")
            if not error <= (gradient_tolerance if gradient else TOLERANCE):
                raise Disagreement(f"{case.label()}, {other}: {name} differs by {error:.1e}")
            if not gradient:
                worst = np.fmax(worst, error)
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


def measure(case, kinds, threads, seconds, repeat, note):
    """Take turns: {side: Measurement}.

    Args:
        kinds: {side: class}.
        seconds: about how long all passes of all sides may take together.
        repeat: rounds; None for as many as fit, at least 5 and at most 50.
        note: a function that is told of sides that cannot take part.
    """
    with Workers(case, kinds, threads, note) as workers:
        for _ in range(2):  # kernels are compiled, memory is taken
            warm = {}
            workers.live(lambda w, warm=warm: warm.setdefault(w.side, w.ask("run")))
        a_round = sum(PAUSE + max(TURN, max(turn)) for turn in warm.values())
        rounds = repeat or int(min(50, max(5, seconds / a_round)))
        passes = {worker.side: [] for worker in workers.all}
        for _ in range(rounds):
            workers.live(lambda w: passes[w.side].extend(rested(w)))
        return {
            w.side: Measurement(passes[w.side], w.ask("peak"), w.ask("waited")) for w in workers.all
        }


def rested(worker):
    """Seconds of the passes of a turn, after a pause."""
    time.sleep(PAUSE)
    return worker.ask("run")


# ---- tables


def available(sides, kinds, report):
    """{side: class} of those that can take part; says of the others why not."""
    for side in sides:
        if kinds[side].missing():
            report(f"without {kinds[side].name}: {kinds[side].missing()}")
    return {side: kinds[side] for side in sides if not kinds[side].missing()}


def headings(label, kinds, unit):
    """The two lines above a table."""
    titles = "".join(f"{kind.name:>{WIDTH}}" for kind in kinds.values())
    yield f"\n{label}{titles}{'ratio':>8}{'error':>9}"
    yield " " * len(label) + f"{f'min/median {unit}, MB':>{WIDTH}}" * len(kinds)


def line(label, kinds, measured, error, unit, digits):
    """A line of a table: a cell for each side, then ratio and error; `unit` as of `cell`."""
    cells = "".join(f"{cell(measured.get(side), unit, digits):>{WIDTH}}" for side in kinds)
    return f"{label}{cells}{ratio(measured):>8}{error:>9.0e}"


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
