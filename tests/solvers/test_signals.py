"""Ctrl-C and hang-up while training, and the progress bar."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demitasse.engine.errors import SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver, signals
from demitasse.solvers.progress import progress_bar

SOLVER = """base_lr: 0.1 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "s"
net_param {
  layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
    inner_product_param { num_output: 2 } }
  layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 } }
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(text=""):
    param = parse_text(SOLVER, caffe_pb2.SolverParameter)
    param.MergeFrom(parse_text(text, caffe_pb2.SolverParameter))
    return make_solver(param)


def at(solver, iteration, action):
    """Have `action()` run after an iteration."""
    solver.on_progress.append(lambda s: action() if s.iter == iteration else None)


def send(number):
    return lambda: os.kill(os.getpid(), number)


def files():
    return sorted(p.name for p in Path().glob("s_iter_*.solverstate"))


def test_interrupt_snapshots_and_stops():
    before = signal.getsignal(signal.SIGINT)
    solver = make("snapshot_after_train: false")
    at(solver, 3, send(signal.SIGINT))
    with signals.handled(solver):
        solver.solve()
    assert solver.iter == 3
    assert files() == ["s_iter_3.solverstate"]
    assert signal.getsignal(signal.SIGINT) is before
    solver.solve()  # goes on when asked to
    assert solver.iter == 20


def test_interrupt_at_an_iteration_that_is_snapshotted_anyway():
    solver = make("snapshot: 3")
    at(solver, 3, send(signal.SIGINT))
    with signals.handled(solver):
        solver.solve()
    assert files() == ["s_iter_3.solverstate"]


def test_hang_up_snapshots_and_goes_on():
    solver = make()
    at(solver, 3, send(signal.SIGHUP))
    with signals.handled(solver):
        solver.solve()
    assert files() == ["s_iter_20.solverstate", "s_iter_3.solverstate"]


def test_both_signals():
    solver = make("snapshot_after_train: false")
    at(solver, 3, send(signal.SIGINT))
    at(solver, 3, send(signal.SIGHUP))
    with signals.handled(solver):
        solver.solve()  # the snapshot first, the stop one iteration later
    assert solver.iter == 4
    assert files() == ["s_iter_3.solverstate", "s_iter_4.solverstate"]


def test_interrupt_while_testing():
    solver = make("test_iter: 5 test_interval: 2")
    batches = []
    last = len(solver.test_nets[0].nodes) - 1

    def count(i):
        batches.append(i == last)
        if sum(batches) == 7:  # the second batch of the second test
            os.kill(os.getpid(), signal.SIGINT)

    solver.test_nets[0].after_forward.append(count)
    with signals.handled(solver):
        solver.solve()
    assert sum(batches) == 7
    assert files() == ["s_iter_2.solverstate"]


def test_effects_may_be_chosen():
    solver = make()
    at(solver, 3, send(signal.SIGINT))
    at(solver, 5, send(signal.SIGHUP))
    with signals.handled(solver, "none", "stop"):
        solver.solve()
    assert solver.iter == 5


def test_second_interrupt_is_at_once():
    solver = make()

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at(solver, 3, twice)
    with pytest.raises(KeyboardInterrupt), signals.handled(solver):
        solver.solve()
    assert files() == []


def test_unknown_effect():
    with (
        pytest.raises(SolverError, match=r"sigint_effect.*Did you mean 'stop'"),
        signals.handled(make(), "stopp"),
    ):
        pass


def test_interrupt_of_a_process():
    program = f"""if True:
        import sys
        from demitasse.engine.proto import caffe_pb2
        from demitasse.engine.prototxt import parse_text
        from demitasse.solvers import make_solver, signals
        param = parse_text({SOLVER!r}, caffe_pb2.SolverParameter)
        param.max_iter = 10**9
        solver = make_solver(param)
        solver.on_progress.append(lambda s: s.iter == 10 and print("running", flush=True))
        with signals.handled(solver):
            solver.solve()
        print("stopped", solver.iter, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    word, iteration = output.split()
    assert (word, process.returncode) == ("stopped", 0)
    assert files() == [f"s_iter_{iteration}.solverstate"]
    resumed = make()
    resumed.restore(files()[0])
    assert resumed.iter == int(iteration)


# ---- the bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_on_a_terminal():
    solver, stream = make("snapshot_after_train: false"), Terminal()
    with progress_bar(solver, stream):
        solver.solve()
    assert "20/20" in stream.getvalue()
    assert re.search(r"loss=[-\d.]+, lr=0.1", stream.getvalue())
    assert not solver.on_progress


def test_no_bar_elsewhere():
    solver, stream = make("snapshot_after_train: false"), io.StringIO()
    with progress_bar(solver, stream):
        solver.solve()
    assert stream.getvalue() == ""
