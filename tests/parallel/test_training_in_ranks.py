"""Two ranks train to the weights of one process with the double batch, and nothing else differs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_work
from in_ranks import needs_mpi, run

from demitasse.engine import caffemodel
from demitasse.engine.cores import usable_cores
from demitasse.solvers.parallel import Plan

DETECTION = Path(__file__).parents[1] / "detection"
DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with examples/digits in it, the databases written."""
    pytest.importorskip("lmdb")
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(DIGITS, root / "examples" / "digits", ignore=shutil.ignore_patterns("digits_*"))
    subprocess.run(
        [sys.executable, "examples/digits/make_digits.py"], cwd=root, check=True, timeout=120
    )
    return root


@pytest.fixture(scope="module")
def digits(root):
    """The folder after two ranks have trained the digits net there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            patch.delenv(name, raising=False)
        assert run(patch, "digits", root) == 0
    return root


@needs_mpi
def test_digits_equal_one_process_with_the_double_batch(digits, monkeypatch):
    monkeypatch.chdir(digits)
    first, second = (np.load(digits / f"rank{rank}.npz") for rank in range(2))
    alone = rank_work.digits_solver(digits, iter_size=2)
    alone.solve()
    half = rank_work.digits_solver(digits)
    half.solve()
    expected, other = rank_work.weights_of(alone), rank_work.weights_of(half)
    assert sorted(first) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], values, rtol=0, atol=1e-12 * abs(values).max())
        assert abs(other[name] - values).max() > 1e-5 * abs(values).max()  # the batch counts


@needs_mpi
def test_a_sum_begins_before_backward_ends(digits):
    events = json.loads((digits / "trace.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    backward = [e for e in spans if e["name"] == "backward"]
    assert len(backward) == rank_work.ITERATIONS
    for begun in backward:
        begin, end = begun["ts"], begun["ts"] + begun["dur"]
        during = [e for e in spans if e["name"].startswith("all-reduce") and begin < e["ts"] < end]
        assert any("ip1" in e["name"] for e in during)  # long before conv1 has its gradient
        assert all(e["ts"] + e["dur"] > end for e in during)  # and they are waited for afterwards


@needs_mpi
def test_ranks_share_the_cores(digits):
    threads = [int((digits / f"threads{rank}").read_text()) for rank in range(2)]
    assert threads == [max(1, usable_cores() // 2)] * 2


@needs_mpi
def test_the_detector_equals_one_process_with_the_double_batch(tmp_path, monkeypatch):
    assert run(monkeypatch, "detector", tmp_path) == 0
    monkeypatch.syspath_prepend(str(DETECTION))  # where the tiny net is
    path = rank_work.train_detector(tmp_path / "alone", iter_size=2)
    folders = [tmp_path / "ranks" / "run", tmp_path / "alone" / "run"]
    assert [p.name for p in (tmp_path / "ranks").iterdir() if "run" in p.name] == ["run"]
    logs = [
        [json.loads(line) for line in (f / "losses.jsonl").read_text().splitlines()]
        for f in folders
    ]
    assert [e["stage"] for e in logs[0]] == [e["stage"] for e in logs[1]]
    for entry, alone in zip(*logs):
        for name in ("iteration", "lr", *(n for n in entry if "loss" in n)):
            assert entry[name] == pytest.approx(alone[name], rel=1e-4), (entry["stage"], name)
    stem = Path(path).with_suffix(".caffemodel").name
    found, expected = (read_weights(f / stem) for f in folders)
    for name, blobs in expected.items():
        for left, right in zip(found[name], blobs, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * max(abs(right).max(), 0.01))


def read_weights(path):
    return {n: [b.data.copy() for b in blobs] for n, _, blobs in caffemodel.read_weights(str(path))}


def test_ranks_without_mpi(tmp_path, monkeypatch):
    """As for GPUs: the launcher starts each rank, messages go through it, a stand-in sums."""
    monkeypatch.setenv("STAND_IN", "1")
    assert run(monkeypatch, "small", tmp_path, Plan(2, gpus=(0, 1))) == 0
    first, second = (np.load(tmp_path / f"rank{rank}.npz") for rank in range(2))
    seed = int(first["seed"])
    assert seed == int(second["seed"])
    alone = rank_work.small_solver(text="max_iter: 6 iter_size: 2", seed=seed, dtype=np.float64)
    alone.solve()
    for name, values in rank_work.weights_of(alone).items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], values, rtol=1e-12, atol=1e-14)


# ---- caffe train


def caffe(root, *argv, start=(sys.executable, "-m", "caffe")):
    """The log of a command line that succeeds."""
    done = subprocess.run(
        [*start, "train", "-solver", "examples/digits/short.prototxt", *argv], cwd=root,
        capture_output=True, text=True, timeout=300, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def outcome(root):
    path = root / "examples" / "digits" / "short_iter_4.caffemodel"
    values = path.read_bytes()
    path.unlink()
    return values


@needs_mpi
def test_caffe_train(root, monkeypatch):
    """The flag, mpirun, and a resumed training give the same; rank 0 alone logs."""
    from in_ranks import rank_environment

    from demitasse.solvers.parallel.launch import find_mpirun

    for name, value in rank_environment().items():
        monkeypatch.setenv(name, value)
    text = (root / "examples/digits/lenet_solver.prototxt").read_text()
    for old, new in (
        ("max_iter: 1000", "max_iter: 4"), ("snapshot: 500", "snapshot: 2"),
        ("digits/lenet\"", "digits/short\""), ("display: 100", "display: 1"),
        ("test_interval: 200", "test_interval: 4"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (root / "examples/digits/short.prototxt").write_text(text)
    log = caffe(root, "--ranks", "2")
    assert log.count("Iteration 2 (") == log.count("Optimization Done.") - 1 == 1
    assert log.count("Test net output #0: accuracy") == 2
    flag = outcome(root)
    state = "examples/digits/short_iter_2.solverstate"
    caffe(root, "-ranks=2", "-snapshot", state)
    assert outcome(root) == flag
    mpirun = [find_mpirun(), "-n", "2", sys.executable, "-m", "caffe"]
    log = caffe(root, start=mpirun)
    assert outcome(root) == flag
    assert log.count("Iteration 2 (") == 1
