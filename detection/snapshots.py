"""The snapshots that a stage of training is resumed from; only the last one is kept."""

import contextlib
import logging
import re
import shutil
from pathlib import Path

from .finite import check_parameters

log = logging.getLogger("demitasse.detection")


class Snapshots:
    """Snapshots of one stage, in a folder of their own.

    Args:
        folder: the folder, which need not be there, in one for those of all stages.
        every: iterations between two; 0 for none but those that are asked for.
    """

    def __init__(self, folder, every):
        self.folder = Path(folder)
        self.every = every
        self.prefix = str(self.folder / "snapshot")
        self.state = None

    def prepare(self):
        """Find `state`, the path of the one to continue from, or None; removes all but it and its
        weights.

        What else is there, a kill has left behind: a state is the last file of its snapshot to get
        its name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        states = sorted(self.folder.glob("snapshot_iter_*.solverstate"), key=_iteration)
        self._keep(states[-1:])
        self.state = str(states[-1]) if states else None

    def after_iteration(self, solver):
        """For `Solver.on_progress`: write a snapshot if one is due."""
        if self.every > 0 and solver.iter % self.every == 0 and solver.iter < solver.param.max_iter:
            self.write(solver)

    def write(self, solver):
        """Write a snapshot, then remove earlier ones.

        Raises: SolverError if a parameter is not finite: the last good snapshot stays.
        """
        check_parameters(solver)
        state = Path(solver.snapshot())
        if solver.communicator.is_root:
            self._keep([state])

    def restore(self, solver):
        """Have a solver continue from the state that `prepare` has found, if any."""
        if self.state is not None:
            log.info("%s: continues from %s", self.folder.name, self.state)
            solver.restore(self.state)

    @property
    def iteration(self):
        """The iteration of the state that `prepare` has found, 0 for none."""
        return 0 if self.state is None else _iteration(Path(self.state))

    def remove(self):
        """Remove them all, and the folder for all stages if that is empty then: the stage is
        finished."""
        for state in self.folder.glob("*.solverstate"):
            state.unlink()  # first: without its weights, none can be continued after a kill
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another stage's are in it
            self.folder.parent.rmdir()

    def _keep(self, states):
        kept = {path for state in states for path in (state, state.with_suffix(".caffemodel"))}
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()


def _iteration(path):
    return int(re.search(r"_iter_(\d+)\.", path.name)[1])
