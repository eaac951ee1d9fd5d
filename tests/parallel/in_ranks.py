"""Running tests' work in several processes."""

import os
from pathlib import Path

import pytest

from demitasse.solvers.parallel import ParallelError, Plan, launch
from demitasse.solvers.parallel.launch import find_mpirun

HERE = Path(__file__).parent


def _missing():
    try:
        find_mpirun()
    except ParallelError as error:
        return str(error)
    return ""


needs_mpi = pytest.mark.skipif(bool(_missing()), reason=_missing())


def rank_environment():
    """The environment of ranks that import what tests do, in which Open MPI runs as anybody."""
    paths = [str(HERE), str(HERE.parent / "detection"), os.environ.get("PYTHONPATH", "")]
    wanted = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if os.geteuid() == 0:
        wanted |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return wanted


def run(monkeypatch, work, folder, plan=None):
    """Have two ranks do a piece of `rank_work`; returns the exit status."""
    for name, value in rank_environment().items():
        monkeypatch.setenv(name, value)
    return launch("rank_work", [work, str(folder)], plan or Plan(2))


def is_running(pid):
    """Whether there is a process with this number that is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
