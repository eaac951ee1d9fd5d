"""Killed at random moments, pretraining included, a run ends as an uninterrupted one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import random_kills
from tiny_run import assert_same, weights_of

from demitasse.detection import snapshots
from demitasse.detection.loss_log import read_log
from demitasse.detection.snapshots import Snapshots


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """The weights of an uninterrupted run."""
    path = random_kills.train(tmp_path_factory.mktemp("uninterrupted"))
    return weights_of(Path(path).with_suffix(".caffemodel"))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_it_ends_with_the_same_weights(seed, detector, tmp_path):
    program = [sys.executable, random_kills.__file__, str(tmp_path), str(seed), "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    killed = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith("killed")}
    assert "pretrain" in killed and len(killed) >= 3
    run = tmp_path / "run"
    assert_same(weights_of(run / "tiny_faster_rcnn_final.caffemodel"), detector)
    logged = [(e["stage"], e["iteration"]) for e in read_log(run / "losses.jsonl")]
    assert logged == [(s, k + 1) for s, n in random_kills.ITERS.items() for k in range(n)]
    assert not (run / "snapshots").exists()


def test_killed_while_snapshots_are_removed(tmp_path, monkeypatch):
    """What is left then has no state that lacks its weights."""
    made = Snapshots(tmp_path / "snapshots" / "stage", 1)
    made.prepare()
    for suffix in ("caffemodel", "solverstate"):
        (made.folder / f"snapshot_iter_8.{suffix}").touch()

    def killed(folder, **_):
        (folder / "snapshot_iter_8.caffemodel").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshots.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        made.remove()
    made.prepare()
    assert made.state is None
