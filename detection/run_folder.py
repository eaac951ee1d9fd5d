"""A training run on disk: which of its steps are finished, and with which settings it was begun.

The folder of a run has a file state.json:

    {"settings": {...}, "steps": {"stage1_rpn": {"weights": "stage1_rpn_final.caffemodel"}, ...}}

A step's files get their names when they are complete, and then the step is put into state.json,
which is replaced as a whole. So whenever the process dies, what state.json lists is there, and a
step that it does not list is done again (or continued from its last snapshot).

Where several ranks train together, rank 0 keeps the folder and tells the others what is in it.
"""

import json
import logging
import re
from pathlib import Path

from ..engine.errors import DataError
from ..engine.files import atomic_write, read_limited
from ..solvers.parallel.communicator import ALONE
from .strict_json import dumps

log = logging.getLogger("demitasse.detection")

FILE = "state.json"
_LIMIT = 64 << 20  # bytes of a state.json


def folder_name(imdb):
    """What the folder of a data set's runs is called: "voc:../my data" -> "voc_.._my_data"."""
    return re.sub(r"[^\w.+-]+", "_", imdb).strip("_") or "data"


class Run:
    """A run's folder.

    Attributes:
        folder: a Path. settings: what the run was begun with. steps: {name: result}.
        communicator: the `Communicator` of the ranks that do the run together.
    """

    def __init__(self, folder, settings, steps=None, communicator=ALONE):
        self.folder = Path(folder)
        self.settings = settings
        self.steps = dict(steps or {})
        self.communicator = communicator

    @classmethod
    def open(cls, folder, settings, resume=False, communicator=ALONE, free=()):
        """The run in `folder`, a new one or one to be continued.

        A folder that holds a run already is left alone: a new run goes to folder_2, folder_3, ...
        With `resume`, the newest of these with the same settings is continued; if there is none at
        all, a run is begun.

        Args:
            settings: a dictionary that JSON can hold; nested.
            communicator: of the ranks, each of which opens the run.
            free: keys, nested ones as "config.RNG_SEED", in which a run that is continued may
                have other settings: its own count.

        Raises:
            DataError: to resume, but every run that is there has other settings: says which; or
                the folder holds other things.
        """
        settings = json.loads(dumps(settings))
        found = None
        if communicator.is_root:
            run = cls._open(folder, settings, resume, free)
            found = [str(run.folder), run.settings, run.steps]
        place, settings, steps = communicator.share(found)
        return cls(place, settings, steps, communicator)

    @classmethod
    def _open(cls, folder, settings, resume, free):
        there = [place for place in _places(folder) if (place / FILE).exists()]
        if resume and there:
            return cls._continue(there, settings, free)
        if resume:
            log.info("Nothing to resume in %s: a new run begins.", folder)
        place = next(p for p in _places(folder, endless=True) if _is_free(p))
        if place != Path(folder):
            log.info("%s holds an earlier run, which stays: this one goes to %s.", folder, place)
        place.mkdir(parents=True, exist_ok=True)
        run = cls(place, settings)
        run._write()
        return run

    @classmethod
    def _continue(cls, places, settings, free):
        runs = [cls._read(place) for place in reversed(places)]  # the newest first
        differing = [differences(run.settings, settings, ignored=free) for run in runs]
        for run, lines in zip(runs, differing):
            if not lines:
                log.info("Resuming the run in %s.", run.folder)
                return run
        raise DataError(
            f"--resume of the run in {runs[0].folder}", "the settings that it was begun with",
            "; ".join(differing[0]),
            "Give the same settings, or leave out --resume to begin a new run.",
        )  # fmt: skip

    @classmethod
    def _read(cls, folder):
        path = folder / FILE
        try:
            state = json.loads(read_limited(path, "the state of a training run", _LIMIT))
            return cls(folder, state["settings"], state["steps"])
        except (ValueError, KeyError, TypeError) as error:
            hint = "Move the folder away to begin anew."
            raise DataError(path, "the state of a training run", f"{error}", hint) from None

    def path(self, name):
        """The path of a file in the folder, as text."""
        return str(self.folder / name)

    def step(self, name, work, together=False):
        """The result of a step, which is done by `work()` unless it is finished already.

        The result is a dictionary that JSON can hold, where what is not a finite number becomes
        None; files in it are named relative to the folder. Of several ranks, rank 0 does the work
        and the others wait for it, or all do it `together`; rank 0's result counts.
        """
        if name in self.steps:
            log.info("%s: finished already.", name)
            return self.steps[name]
        ranks = self.communicator
        result = work() if together or ranks.is_root else None
        self.steps[name] = ranks.share(json.loads(dumps(result)))
        if ranks.is_root:
            self._write()
        return self.steps[name]

    def _write(self):
        state = {"settings": self.settings, "steps": self.steps}
        with atomic_write(self.folder / FILE) as file:
            file.write((dumps(state, indent=1) + "\n").encode())


def _places(folder, endless=False):
    """folder, folder_2, folder_3, ... as long as they exist, or without end."""
    folder = Path(folder)
    number = 1
    while True:
        place = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        if not endless and not place.exists():
            return
        yield place
        number += 1


def _is_free(place):
    if not place.exists():
        return True
    if not place.is_dir():
        raise DataError(place, "a folder for the run", "a file", "Choose another with --output.")
    return not any(place.iterdir())


def differences(before, now, prefix="", ignored=()):
    """["KEY: was X, is Y", ...] for all that differs between two nested dictionaries, but for the
    KEYs that are `ignored`."""
    lines = []
    for key in sorted({*before, *now}):
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{name}.", ignored)
        elif old != new and name not in ignored:
            lines.append(f"{name}: was {old!r}, is {new!r}")
    return lines
