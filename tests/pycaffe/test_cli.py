"""The command `caffe`, against Caffe's tools/caffe.cpp: its flags, words and exit statuses."""

import logging
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import caffe
from caffe.cli import FLAGS, main
from demitasse.engine import precision

NET = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "x" top: "label"
        dummy_data_param { shape { dim: 8 dim: 3 } shape { dim: 8 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
        include { phase: TEST } }
layer { name: "staged" type: "Power" bottom: "ip" top: "staged" include { stage: "a" stage: "b" } }
layer { name: "levelled" type: "Power" bottom: "ip" top: "levelled" include { min_level: 2 } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" display: 2 max_iter: 4
snapshot_prefix: "snap" test_iter: 2 test_interval: 10 random_seed: 1
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A folder with net.prototxt and solver.prototxt, the working directory of each test; the
    log is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    logger = logging.getLogger("demitasse")
    before = logger.handlers[:], logger.level, logger.propagate
    yield tmp_path
    for handler in set(logger.handlers).difference(before[0]):
        logger.removeHandler(handler)
        handler.close()
    logger.level, logger.propagate = before[1:]


@pytest.fixture
def run(capsys):
    """Runs a command line: (exit status, messages of its log lines and errors on stderr)."""

    def run(line):
        status = main(line.split())
        err = capsys.readouterr().err
        return status, re.sub(r"(?m)^[IWEF]\d{4} \S+ +\d+ \w+\.cpp:\d+\] ", "", err).splitlines()

    return run


@pytest.fixture
def weights(files):
    """A .caffemodel of the net."""
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    return "w.caffemodel"


def fails(run, line, pattern):
    status, err = run(line)
    assert status == 1 and re.match(f"error: .*{pattern}", err[-1]), err[-1]
    assert not any("Traceback" in text for text in err)


# ---- the command line


def test_the_flags_are_those_of_caffes_binary():
    names = {flag.name: flag.default for flag in FLAGS}
    caffes = {
        "gpu": "", "solver": "", "model": "", "phase": "", "level": 0, "stage": "", "snapshot": "",
        "weights": "", "iterations": 50, "sigint_effect": "stop", "sighup_effect": "snapshot",
    }  # fmt: skip
    assert caffes.items() <= names.items()


@pytest.mark.parametrize(
    "form",
    ["-model {} -weights {} -iterations {}", "--model={} --weights={} --iterations={}",
     "-model={} --weights {} -iterations={}"],
)  # fmt: skip
def test_one_dash_two_dashes_and_equals_signs(run, weights, form):
    status, err = run("test " + form.format("net.prototxt", weights, 1))
    assert status == 0 and "Running for 1 iterations." in err


def test_a_command_may_stand_after_its_flags(run, weights):
    status, err = run(f"-model net.prototxt -iterations 1 test -weights {weights}")
    assert status == 0 and "Running for 1 iterations." in err


def test_without_a_command_the_usage_is_shown(run):
    for line in ("", "train test"):
        status, err = run(line)
        assert status == 1 and err[0] == "caffe: command line brew"
        assert [word for word in ("train", "test", "device_query", "time") if any(
            text.split()[:1] == [word] for text in err
        )] == ["train", "test", "device_query", "time"]  # fmt: skip


def test_help_and_version_succeed(capsys):
    assert main(["-help"]) == 0
    assert "-snapshot: " in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "caffe version 1.0.0\n"


@pytest.mark.parametrize(
    "line, pattern",
    [
        ("trian -solver solver.prototxt", "a command, found 'trian'.*'train'"),
        ("train", "-solver, found none"),
        ("train -solvr solver.prototxt", "'-solvr'.*'solver'"),
        ("train -solver nowhere.prototxt", "nowhere.prototxt.*no such file"),
        ("train -solver net.prototxt", r"net\.prototxt:\d+:\d+: expected a field of SolverParam"),
        ("train -solver solver.prototxt -weights a -snapshot b", "-snapshot or -weights.*both"),
        ("train -solver solver.prototxt -weights nowhere", "'nowhere'"),
        ("train -solver solver.prototxt -snapshot nowhere", "nowhere.*no such file"),
        ("train -solver solver.prototxt -sigint_effect stopp", "sigint_effect.*'stop'"),
        ("train -solver solver.prototxt -gpu x", "-gpu: expected a number, or 'all', found 'x'"),
        ("train -solver solver.prototxt -precision tf23", "one of float32, tf32.*found 'tf23'"),
        ("test -model net.prototxt", "-weights, found none"),
        ("test -weights w.caffemodel", "-model, found none"),
        ("test -model net.prototxt -weights nowhere", "nowhere.*no such file"),
        ("test -model net.prototxt -weights w -iterations many", "-iterations.*'many'"),
        ("time", "-model, found none"),
        ("time -model net.prototxt -phase train", "-phase: expected TRAIN or TEST, found 'train'"),
        ("time -model net.prototxt -iterations 0", "-iterations: expected at least 1"),
        ("test -model net.prototxt -weights w -iterations 0", "-iterations: expected at least 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_1(run, line, pattern):
    fails(run, line, pattern)


def test_the_precision_of_products(run, files, monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, "float32")
    assert run("train -solver solver.prototxt -precision tf32")[0] == 0
    assert precision.Precision().math == "tf32"


@pytest.mark.skipif(caffe.cli.devices.gpu_count() > 0, reason="there is a GPU")
def test_a_gpu_that_is_not_there(run, files):
    fails(run, "train -solver solver.prototxt -gpu 0", "GPU 0")
    fails(run, "device_query -gpu 1", "GPU 1")
    (files / "gpu.prototxt").write_text(SOLVER + "solver_mode: GPU")
    fails(run, "train -solver gpu.prototxt", "GPU 0: .*--cpu")
    assert run("train -solver gpu.prototxt --cpu")[0] == 0


def test_device_query(run):
    status, err = run("device_query")
    assert status == 0 and "Querying GPUs " in err
    assert any(re.match(r"CPU: \d+ usable cores$", text) for text in err)


# ---- train


def test_train_in_caffes_words(run, files):
    status, err = run("train -solver solver.prototxt")
    assert status == 0
    expected = [
        r"Use CPU\.",
        r"Initializing solver from parameters: ",
        r"Creating training net from net file: net\.prototxt",
        r"Creating test net \(#0\) specified by net file: net\.prototxt",
        r"Solver scaffolding done\.",
        r"Starting Optimization",
        r"Solving tiny",
        r"Learning Rate Policy: fixed",
        r"Iteration 0, Testing net \(#0\)",
        r"    Test net output #0: accuracy = \S+",
        r"    Test net output #1: loss = \S+ \(\* 1 = \S+ loss\)",
        r"Iteration 0 \(\S+ iter/s, \S+s/2 iters\), loss = \S+",
        r"    Train net output #0: loss = \S+ \(\* 1 = \S+ loss\)",
        r"Iteration 0, lr = 0\.5",
        r"Iteration 2 \(.*",
        r"Snapshotting to binary proto file snap_iter_4\.caffemodel",
        r"Snapshotting solver state to binary proto file snap_iter_4\.solverstate",
        r"Iteration 4, loss = \S+",
        r"Optimization Done\.",
        r"Optimization Done\.",
    ]
    lines = iter(err)
    for pattern in expected:  # in this order, with others between
        assert any(re.fullmatch(pattern, text) for text in lines), pattern
    assert (files / "snap_iter_4.caffemodel").exists()


def test_train_from_a_snapshot(run, files):
    run("train -solver solver.prototxt")
    (files / "longer.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 6"))
    status, err = run("train --solver=longer.prototxt --snapshot=snap_iter_4.solverstate")
    assert status == 0 and "Resuming from snap_iter_4.solverstate" in err
    assert any(text.startswith("Iteration 4 (") for text in err)
    assert not any(text.startswith("Iteration 2 (") for text in err)
    assert (files / "snap_iter_6.solverstate").exists()


def test_train_from_weights_of_several_files(run, files):
    given = caffe.Net("net.prototxt", caffe.TEST)
    given.params["ip"][0].data[...] = 7
    given.save("a.caffemodel")
    (files / "other.prototxt").write_text('input: "other" input_shape { dim: 1 }')
    caffe.Net("other.prototxt", caffe.TEST).save("b.caffemodel")
    (files / "frozen.prototxt").write_text(SOLVER.replace("base_lr: 0.5", "base_lr: 0"))
    status, err = run("train -solver frozen.prototxt -weights a.caffemodel,b.caffemodel")
    assert status == 0
    assert "Finetuning from a.caffemodel" in err and "Finetuning from b.caffemodel" in err
    trained = caffe.Net("net.prototxt", "snap_iter_4.caffemodel", caffe.TEST)
    assert (trained.params["ip"][0].data == 7).all()


def test_stage_and_level_choose_the_training_nets_layers(run, files):
    base = "train -solver solver.prototxt"
    assert not any("#1" in t for t in run(base)[1] if "Train net output" in t)
    for flags, blob in (("-stage a,b", "staged"), ("-level 2", "levelled")):
        status, err = run(f"{base} {flags}")
        assert status == 0
        assert any(re.match(rf"    Train net output #\d+: {blob} = ", text) for text in err)


def test_a_stop_signal_snapshots_and_ends(files):
    (files / "endless.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 100000000"))
    command = [sys.executable, "-m", "caffe", "train", "-solver", "endless.prototxt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while "Iteration 2 (" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 0 and "Optimization stopped early." in err
    assert len(list(files.glob("snap_iter_*.solverstate"))) == 1


# ---- test and time


def test_scores_of_a_model(run, weights):
    status, err = run(f"test -model net.prototxt -weights {weights} -iterations 3")
    assert status == 0 and err[:1] == ["Use CPU."]
    losses = [float(t.split(" = ")[1]) for t in err if re.match(r"Batch \d, loss = ", t)]
    assert len(losses) == 3 and "Batch 2, accuracy = " in "\n".join(err)
    summary = {t.split(" = ")[0]: t for t in err if not t.startswith("Batch")}
    mean = float(summary["loss"].split(" = ")[1].split()[0])
    assert mean == pytest.approx(np.mean(losses), rel=1e-4)
    assert re.fullmatch(r"loss = \S+ \(\* 1 = \S+ loss\)", summary["loss"])
    assert re.fullmatch(r"accuracy = \S+", summary["accuracy"])
    assert f"Loss: {mean:g}" in err


def test_stage_and_level_in_test_and_time(run, weights):
    _, err = run(f"test -model net.prototxt -weights {weights} -iterations 1 -stage a,b -level 2")
    assert any(t.startswith("Batch 0, staged = ") for t in err)
    assert any(t.startswith("Batch 0, levelled = ") for t in err)
    for flags, there in (("", False), ("-stage b,a", True), ("-stage a", False)):
        _, err = run(f"time -model net.prototxt -iterations 1 {flags}")
        assert any("staged\tforward" in t for t in err) == there


def test_times_of_each_layer(run):
    status, err = run("time -model net.prototxt -iterations 2")
    assert status == 0
    for text in (
        r"Use CPU\.", "Performing Forward", r"Initial loss: \S+", "Performing Backward",
        r"\*\*\* Benchmark begins \*\*\*", r"Testing for 2 iterations\.",
        r"Iteration: 1 forward-backward time: \S+ ms\.", "Average time per layer: ",
        r"      data\tforward: \S+ ms\.", r"      data\tbackward: \S+ ms\.",
        r"      loss\tforward: \S+ ms\.", r"Average Forward pass: \S+ ms\.",
        r"Average Backward pass: \S+ ms\.", r"Average Forward-Backward: \S+ ms\.",
        r"Total Time: \S+ ms\.", r"\*\*\* Benchmark ends \*\*\*",
    ):  # fmt: skip
        assert any(re.fullmatch(text, line) for line in err), text
    assert not any("accuracy" in line for line in err)  # TRAIN is the default
    assert any("accuracy\tforward" in t for t in run("time -model net.prototxt -phase TEST")[1])


# ---- the log


def test_log_files_in_glogs_form(run, files):
    (files / "logs").mkdir()
    assert run("train -solver solver.prototxt -log_dir logs")[0] == 0
    time.sleep(1.1)  # the name tells the second
    assert run("train -solver solver.prototxt -log_dir logs")[0] == 0
    link = files / "logs" / "caffe.INFO"
    assert re.match(r"caffe\..+\.log\.INFO\.\d{8}-\d{6}\.\d+$", os.readlink(link))
    assert len(list((files / "logs").iterdir())) == 3
    lines = link.read_text().splitlines()
    assert re.match(r"Log file created at: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d$", lines[0])
    assert re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ caffe\.cpp:\d+\] Use CPU\.$", lines[3])
    assert lines[-1].endswith("] Optimization Done.")


def test_minloglevel_and_glogs_other_flags(run, monkeypatch):
    assert run("train -solver solver.prototxt -minloglevel 2 -logtostderr=1") == (0, [])
    monkeypatch.setenv("GLOG_minloglevel", "1")
    assert run("train -solver solver.prototxt --alsologtostderr") == (0, [])


def test_as_a_module_of_python(files):
    command = [sys.executable, "-m", "caffe"]
    done = subprocess.run([*command, "train", "--solver=solver.prototxt"], capture_output=True)
    assert done.returncode == 0 and b"Optimization Done." in done.stderr and done.stdout == b""
    done = subprocess.run([*command, "tset"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        "error: command line: expected a command, found 'tset'. Did you mean 'test'?\n"
    )
