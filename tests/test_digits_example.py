"""The example of examples/digits, as its README tells it, with fewer iterations."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "examples" / "digits"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with examples/digits in it, the databases written."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(SOURCE, root / "examples" / "digits", ignore=shutil.ignore_patterns("digits_*"))
    subprocess.run(
        [sys.executable, "examples/digits/make_digits.py"], cwd=root, check=True, timeout=120
    )
    return root


def edit(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def train(root, solver, iterations, *flags):
    """Run `caffe train`; returns its exit status and what it logged."""
    edit(root / solver, ("max_iter: 1000", f"max_iter: {iterations}"))
    done = subprocess.run(
        [sys.executable, "-m", "caffe", "train", "-solver", solver, *flags],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stderr


def last_accuracy(log):
    return float(re.findall(r"accuracy = ([\d.]+)", log)[-1])


def test_training(root):
    status, log = train(root, "examples/digits/lenet_solver.prototxt", 400)
    assert status == 0, log
    assert last_accuracy(log) >= 0.97


def test_reading_hdf5_instead_is_an_edit_of_the_prototxt(root):
    net = root / "examples/digits/lenet_hdf5.prototxt"
    shutil.copy(root / "examples/digits/lenet_train_test.prototxt", net)
    text = re.sub(
        r'data_param {\s*source: "(\S+)_lmdb"(\s*batch_size: \d+)\s*backend: LMDB',
        r'hdf5_data_param { source: "\1.txt"\2',
        net.read_text(),
    )
    text = text.replace('type: "Data"', 'type: "HDF5Data"')
    net.write_text(text.replace("transform_param { scale: 0.0625 }", ""))
    solver = root / "examples/digits/lenet_hdf5_solver.prototxt"
    shutil.copy(SOURCE / "lenet_solver.prototxt", solver)
    edit(solver, ("lenet_train_test.prototxt", net.name))
    status, log = train(root, str(solver.relative_to(root)), 200)
    assert status == 0, log
    assert last_accuracy(log) >= 0.95


def test_a_layer_of_ones_own(root):
    solver = "examples/digits/lenet_python_layer_solver.prototxt"
    status, log = train(root, solver, 200)
    assert status != 0 and "--allow-python-layer scaled_tanh" in log
    shutil.copy(SOURCE / "lenet_python_layer_solver.prototxt", root / solver)
    status, log = train(root, solver, 200, "--allow-python-layer", "scaled_tanh")
    assert status == 0, log
    assert last_accuracy(log) >= 0.95
