"""What a training run writes down as it goes: losses.jsonl and TensorBoard's event files."""

import json
import os
from pathlib import Path

from ..engine.errors import DataError
from ..engine.files import atomic_write
from .strict_json import dumps

FILE = "losses.jsonl"
EVENTS = "tensorboard"  # the folder of the event files


class LossLog:
    """The log of one stage.

    `losses.jsonl` has a line for each iteration, an object with `stage`, `iteration` (from 1) and
    numbers; a validation adds a line with its own. What a killed run has written beyond the
    snapshot that it is resumed from is removed, so that every iteration is there once.

    Args:
        folder: of the run.
        stage: the stage's name.
        iteration: of the snapshot that it begins with, 0 for none.
    """

    def __init__(self, folder, stage, iteration=0):
        self.stage = stage
        path = os.path.join(folder, FILE)
        forget(path, stage, iteration)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._events = _event_writer(os.path.join(folder, EVENTS, stage), iteration)

    def add(self, iteration, values):
        """Write the numbers of an iteration, {name: number}; one that is not finite as null."""
        line = {"stage": self.stage, "iteration": iteration, **values}
        self._file.write(dumps(line) + "\n")
        self._file.flush()  # what has been written survives a kill
        for name, value in values.items():
            self._events.add_scalar(f"{self.stage}/{name}", value, iteration)

    def close(self):
        """Close the files."""
        self._file.close()
        self._events.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_log(path):
    """The lines of a losses.jsonl, as dictionaries.

    Raises: DataError for a line that is none of ours, but the last, which a kill may have cut off.
    """
    entries, lines = [], Path(path).read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            entry["stage"], entry["iteration"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break  # cut off: complete lines end with a line break
            hint = "Move the file away; a new one will be begun."
            raise DataError(
                f"{path}:{number}", 'an object with "stage" and "iteration"', repr(line[:60]), hint
            ) from None
        entries.append(entry)
    return entries


def forget(path, stage, iteration):
    """Remove from a log a stage's lines after `iteration`, and a line that was cut off."""
    if not os.path.exists(path):
        return
    kept = [e for e in read_log(path) if e["stage"] != stage or e["iteration"] <= iteration]
    with atomic_write(path) as file:
        file.write("".join(dumps(entry) + "\n" for entry in kept).encode())


def _event_writer(folder, iteration):
    """A writer of TensorBoard's event files."""
    from tensorboardX import SummaryWriter

    # purge_step has TensorBoard hide what a killed run has written beyond the snapshot.
    return SummaryWriter(folder, purge_step=iteration + 1 if iteration else None)
