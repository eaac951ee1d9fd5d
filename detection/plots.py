"""Curves as pictures: losses of a training run, recall of proposals.

Figures are made without matplotlib.pyplot, which keeps state and chooses a display.
"""

import csv
import os

import numpy as np

from ..engine.errors import DataError
from ..engine.files import atomic_write
from .loss_log import read_log

_ITERATION = ("iteration", "iter", "NumIters")  # ours, others', tools/parse_log's


def loss_curve(log_path, out_path, smoothing=None):
    """Plot the losses in a training log: faint as they are, strong as running means.

    Stages follow each other from left to right, with a line and a name where each begins.

    Args:
        log_path: a losses.jsonl of ours, or a CSV file, such as tools/parse_log writes, with a
            column of iterations and possibly one of stages. What has "loss" in its name is
            plotted.
        out_path: the picture.
        smoothing: iterations over which a running mean forgets; by default 1/50 of a stage.
    Raises: DataError if there is no loss in the file.
    """
    rows = _read_csv(log_path) if str(log_path).endswith((".csv", ".train")) else _read(log_path)
    names = [name for name in dict.fromkeys(k for row in rows for k in row) if _is_loss(name)]
    if not names:
        raise DataError(log_path, "lines with a loss", f"{len(rows)} lines without")
    figure, axes = _figure("iteration", "loss")
    begins, position = _positions(rows)
    top = 0.0  # single values may be higher
    for k, name in enumerate(names):
        values = np.array([row.get(name, np.nan) for row in rows], float)
        known = np.isfinite(values)
        faint = {"color": f"C{k}", "alpha": 0.2, "linewidth": 0.7, "zorder": 1}
        axes.plot(position[known], values[known], **faint)
        label = name
        for first, end in zip(begins, [*begins[1:], len(rows)]):
            part = np.flatnonzero(known[first:end]) + first
            if len(part):
                window = smoothing or max(1, len(part) / 50)
                means = running_mean(values[part], window)
                axes.plot(position[part], means, f"C{k}", label=label, zorder=2)
                label, top = None, max(top, means.max())  # one entry in the legend
    _mark_stages(axes, rows, begins, position)
    axes.set_ylim(bottom=0, top=1.1 * top or 1.0)
    axes.legend(loc="upper right")
    _save(figure, out_path)


def recall_plot(curves, out_path, title=""):
    """Plot recall against overlap, one curve for each set of proposals.

    Args: curves: {name: (overlaps, recalls)}, each from 0 to 1.
    """
    figure, axes = _figure("overlap (IoU)", "recall")
    for name, (overlaps, recalls) in curves.items():
        axes.plot(overlaps, recalls, marker=".", label=name)
    axes.set_ylim(0, 1.02)
    axes.set_title(title)
    axes.legend(loc="lower left")
    _save(figure, out_path)


def running_mean(values, window):
    """Means of all values so far, in which one `window` steps back counts 1/e of the last one.

    The weights of the first ones sum to 1 as well, so the curve begins at the first value.
    """
    decay = np.exp(-1.0 / window)
    means, total, weight = np.empty(len(values)), 0.0, 0.0
    for i, value in enumerate(values):
        total, weight = total * decay + value, weight * decay + 1
        means[i] = total / weight
    return means


# ---- reading


def _read(path):
    """Rows {name: number} and "stage" of a losses.jsonl; what is null is left out."""
    try:
        entries = read_log(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    return [{k: v for k, v in entry.items() if v is not None} for entry in entries]


def _read_csv(path):
    """The same from a CSV file with a header."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None
    rows = []
    for line in table:
        key = next((k for k in _ITERATION if k in line), None)
        if key is None:
            expected = f"a column {' or '.join(_ITERATION)}"
            raise DataError(path, expected, ", ".join(map(str, line)) or "an empty header")
        row = {"stage": line.get("stage", ""), "iteration": _number(line[key], path)}
        row.update({k: _number(v, path) for k, v in line.items() if k and _is_loss(k) and v})
        rows.append(row)
    return rows


def _unreadable(path, error):
    return DataError(path, "a training log", getattr(error, "strerror", None) or str(error))


def _number(text, path):
    try:
        return float(text)
    except (ValueError, TypeError):
        raise DataError(path, "numbers", repr(text)) from None


def _is_loss(name):
    return "loss" in name.lower()


# ---- drawing


def _positions(rows):
    """The numbers of the rows that stages begin at, and each row's place from left to right.

    A stage also begins where the iterations do so anew.
    """
    begins, position, offset = [0], np.zeros(len(rows)), 0.0
    for i, row in enumerate(rows):
        before = rows[i - 1] if i else row
        if row["stage"] != before["stage"] or row["iteration"] < before["iteration"]:
            begins.append(i)
            offset = position[i - 1]
        position[i] = offset + row["iteration"]
    return begins, position


def _mark_stages(axes, rows, begins, position):
    for i in begins:
        left = position[i - 1] if i else position[0]
        if i:
            axes.axvline(left, color="0.6", linestyle="--", linewidth=1)
        axes.annotate(
            rows[i]["stage"], (left, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
            textcoords="offset points", va="top", fontsize=8, color="0.3",
        )  # fmt: skip


def _figure(x_label, y_label):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure, path):
    kind = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise DataError(path, f"a file name that ends in .{', .'.join(known)}", repr(kind))
    with atomic_write(path) as file:
        figure.savefig(file, format=kind, dpi=120)
