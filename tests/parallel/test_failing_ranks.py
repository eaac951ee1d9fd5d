"""A rank that fails or dies stops the others, and one line says which it was; signals."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import rank_work
from in_ranks import is_running, needs_mpi, rank_environment, run

from demitasse.solvers.parallel import ParallelError, Plan, launch
from demitasse.solvers.parallel.launch import find_mpirun


def processes(folder):
    return [int((folder / f"pid{rank}").read_text()) for rank in range(2)]


def check_all_ended(folder):
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in processes(folder)):
        assert time.monotonic() < end
        time.sleep(0.05)


def error_lines(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]


@needs_mpi
def test_a_rank_that_fails(tmp_path, monkeypatch, capfd):
    assert run(monkeypatch, "fails", tmp_path) == 1
    check_all_ended(tmp_path)
    assert capfd.readouterr().err == (
        "error: rank 1: iteration 3: expected a finite loss, found nan.\n"
    )


@needs_mpi
def test_a_rank_that_is_killed(tmp_path, monkeypatch, capfd):
    assert run(monkeypatch, "dies", tmp_path) == 1
    check_all_ended(tmp_path)
    (line,) = error_lines(capfd)
    assert line.startswith("error: rank 1 of 2: expected a process that trains to the end, found "
                           "that it has died")  # fmt: skip


def test_a_rank_that_is_killed_without_mpi(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN", "1")
    assert run(monkeypatch, "dies", tmp_path, Plan(2, gpus=(0, 1))) == 1
    check_all_ended(tmp_path)
    assert error_lines(capfd) == [
        "error: rank 1 of 2: expected a process that trains to the end, found that it has died "
        "(SIGKILL). All ranks were stopped; a snapshot can be resumed."
    ]


def test_a_mistake_in_a_rank_shows_where(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN", "1")
    assert run(monkeypatch, "breaks", tmp_path, Plan(2, gpus=(0, 1))) == 1
    text = capfd.readouterr().err
    assert text.endswith("error: rank 1: ZeroDivisionError: division by zero\n")
    assert "Traceback" in text and "rank_work.py" in text


@pytest.mark.parametrize(("work", "thing"), [
    ("differs", r"parameter 0 of layer 'ip2' \(3, 8\)"),
    ("drifts", r"parameter 1 of layer 'ip1' \(8,\)"),
])  # fmt: skip
def test_other_weights_on_a_rank(work, thing, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STAND_IN", "1")
    assert run(monkeypatch, work, tmp_path, Plan(2, gpus=(0, 1))) == 1
    (line,) = error_lines(capfd)
    assert re.match(rf"error: rank 1: expected {thing} as on rank 0, found others\.", line)


@needs_mpi
def test_a_rank_that_fails_under_mpirun(tmp_path):
    command = [find_mpirun(), "-n", "2", sys.executable, "-m", "rank_work", "fails", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | rank_environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert "error: rank 1: iteration 3: expected a finite loss, found nan." in done.stderr
    check_all_ended(tmp_path)


def test_a_program_that_does_not_begin(capfd):
    assert launch("no_such_module", [], Plan(2, gpus=(0, 1))) == 1
    (line,) = error_lines(capfd)
    assert "no word of rank 0, 1 (exit status 1)" in line


# ---- signals

PROGRAM = """
import sys
from demitasse.solvers.parallel import Plan, launch
sys.exit(launch("rank_work", ["waits", sys.argv[1]], Plan(2, gpus=(0, 1))))
"""


@pytest.fixture
def training(tmp_path):
    """A launcher whose two ranks train for long; its standard error."""
    environment = os.environ | rank_environment() | {"STAND_IN": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 150
        while not (tmp_path / "training").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_stops_all_ranks_after_a_snapshot(training, tmp_path):
    training.send_signal(signal.SIGINT)
    assert training.wait(60) == 0
    check_all_ended(tmp_path)
    (state,) = tmp_path.glob("small_iter_*.solverstate")
    iteration = int(re.search(r"_iter_(\d+)", state.name)[1])
    solver = rank_work.small_solver()
    solver.restore(str(state))
    assert solver.iter == iteration and solver.net.passes == 2 * iteration  # of both ranks


def test_termination_stops_all_ranks(training, tmp_path):
    training.terminate()
    assert training.wait(60) == 128 + signal.SIGTERM
    check_all_ended(tmp_path)


def test_ranks_end_when_the_launcher_is_killed(training, tmp_path):
    training.kill()
    training.wait(60)
    check_all_ended(tmp_path)


# ---- what is missing


def test_missing_programs(monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda n: None if n == "mpi4py" else find(n))
        with pytest.raises(ParallelError, match=r"expected mpi4py, found none\. pip install"):
            find_mpirun()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ParallelError, match=r"expected the program mpirun, found none"):
        find_mpirun()
