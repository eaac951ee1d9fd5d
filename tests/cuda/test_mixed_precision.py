"""Precision and loss scaling, up to the training of the digits net in halves."""

import logging

import numpy as np
import pytest

from demitasse.engine import precision
from demitasse.engine.device import CPU, gpu_device
from demitasse.engine.errors import DeviceError, SolverError
from demitasse.engine.precision import Precision
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.engine.strict_device import StrictDevice
from demitasse.solvers import make_solver
from demitasse.solvers.loss_scale import LossScale

BATCH = 32
SETTINGS = """
    type: "SGD" base_lr: 0.03 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 random_seed: 1
    max_iter: 1000 snapshot_after_train: false
"""
NET = """
    name: "digits"
    layer { name: "data" type: "Input" top: "data" top: "label"
      input_param { shape { dim: 32 dim: 1 dim: 8 dim: 8 } shape { dim: 32 } } }
    layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {
      num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
    layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
    layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
      pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param {
      num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
    layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
    layer { name: "ip1" type: "InnerProduct" bottom: "conv2" top: "scores"
      inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
TINY = """
    name: "tiny"
    layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
      shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
      data_filler { type: "gaussian" std: 1 } data_filler { type: "uniform" } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" loss_weight: 3 }
"""


def solver_of(net, settings=(), device=CPU, text=""):
    param = parse_text(SETTINGS + text, caffe_pb2.SolverParameter)
    param.net_param.CopyFrom(parse_text(net, caffe_pb2.NetParameter))
    return make_solver(param, device=device, settings=settings)


def weights(solver):
    return [np.array(p.blob.data) for p in solver.net.learnable]


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "host":
        return request.getfixturevalue("strict_device")
    return gpu_device(0)


# ---- the setting


def test_precision_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, "tf32")
    assert Precision().math == "tf32" and Precision().tensor_cores
    monkeypatch.setenv(precision.VARIABLE, "")
    assert Precision().math == "float32" and not Precision().tensor_cores


def test_an_unknown_precision_names_the_closest():
    with pytest.raises(DeviceError, match="float16"):
        Precision("float61")


@pytest.mark.parametrize("options", [{"initial": 1000.0}, {"initial": 0.5}, {"every": -1}])
def test_wrong_loss_scales(options):
    with pytest.raises(SolverError):
        LossScale(**options)


# ---- scaling


@pytest.mark.parametrize("text", ["", "clip_gradients: 0.5", "iter_size: 2"])
def test_a_scale_changes_no_digit(text):
    plain, scaled = solver_of(TINY, text=text), solver_of(TINY, [LossScale(1024.0)], text=text)
    for _ in range(5):
        plain.step(1)
        scaled.step(1)
        assert plain.loss == scaled.loss
    for a, b in zip(weights(plain), weights(scaled)):
        assert np.array_equal(a, b)


def test_gradients_are_scaled():
    plain, scaled = solver_of(TINY), solver_of(TINY, [LossScale(64.0)])
    for solver in (plain, scaled):
        solver.net.forward()
        solver.net.backward()
    for a, b in zip(plain.net.learnable, scaled.net.learnable):
        assert np.array_equal(64 * a.blob.diff, b.blob.diff)


def test_overflow_leaves_an_update_out(caplog):
    caplog.set_level(logging.INFO, "demitasse")
    solver = solver_of(TINY, [LossScale(64.0)])
    solver.step(1)
    before = weights(solver)
    history = [np.array(h.data) for h in solver.optimizer.history]

    def spoil():
        if solver.iter == 1:
            solver.net.learnable[0].blob.diff[0, 1] = np.inf

    solver.add_callback(lambda: None, spoil)
    solver.step(1)
    assert solver.iter == 2 and solver.scaler.scale == 32
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(solver)))
    assert all(np.array_equal(a, b.data) for a, b in zip(history, solver.optimizer.history))
    assert "loss scale 32 from now on" in caplog.text
    solver.step(1)
    assert solver.scaler.scale == 32 and not np.array_equal(before[0], weights(solver)[0])


@pytest.mark.parametrize("text", ["", "clip_gradients: 0.5"])
def test_a_gpu_leaves_an_update_out_by_itself(device, text):
    """The scale follows when the next update is made: nothing waits to know."""
    solver = solver_of(TINY, [LossScale(64.0)], device, text)
    spoilt = []

    def spoil():
        if solver.iter in (1, 2):  # the second has the scale of the first still
            solver.net.learnable[0].blob.diff[0, 1] = np.inf
        spoilt.append((solver.iter, weights(solver)))

    solver.add_callback(lambda: None, spoil)
    solver.step(4)
    (_, first), (_, second), (_, third), (_, fourth) = spoilt
    assert all(np.array_equal(a, b) and np.array_equal(a, c)
               for a, b, c in zip(second, third, fourth))  # fmt: skip
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(fourth[0], weights(solver)[0])
    solver.scaler.settle()
    assert solver.scaler.scale == 32


def test_the_scale_grows_after_a_while():
    solver = solver_of(TINY, [LossScale(4.0, every=3)])
    scales = []
    for _ in range(7):
        scales.append(solver.scaler.scale)
        solver.step(1)
    assert scales == [4, 4, 4, 8, 8, 8, 16]


def test_a_resumed_run_has_the_scale(tmp_path):
    text = f'snapshot_prefix: "{tmp_path / "run"}"'
    first, whole = (solver_of(TINY, [LossScale(4.0, every=3)], text=text) for _ in range(2))
    first.step(4)
    state = first.snapshot()
    resumed = solver_of(TINY, [LossScale(4.0, every=3)], text=text)
    resumed.restore(state)
    assert resumed.scaler.scale == 8
    resumed.step(6)
    whole.step(10)
    assert resumed.scaler.scale == whole.scaler.scale == 32
    assert all(np.array_equal(a, b) for a, b in zip(weights(resumed), weights(whole)))


def test_who_scales_without_being_asked():
    assert solver_of(TINY, [Precision("float16")]).scaler.state is None  # a CPU computes in float32
    strict = StrictDevice()
    scales = {
        math: solver_of(TINY, [Precision(math)], strict).scaler.scale for math in precision.MATHS
    }
    assert scales == {"float32": 1, "tf32": 1, "float16": 65536, "bfloat16": 1}


# ---- training


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets", reason="no scikit-learn for the digits")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], labels[order].astype(np.float32)


def train(solver, digits, iterations):
    images, labels = digits
    for k in range(iterations):
        rows = np.arange(BATCH * k, BATCH * (k + 1)) % 1400
        solver.net.blobs["data"].data[...] = images[rows]
        solver.net.blobs["label"].data[...] = labels[rows]
        solver.step(1)


def accuracy(net, digits):
    """The part of 320 other digits that a net knows."""
    right = 0
    for k in range(1400, 1720, BATCH):
        net.blobs["data"].data[...] = digits[0][k : k + BATCH]
        net.forward()
        found = net.blobs["scores"].data.argmax(axis=1)
        right += (found == digits[1][k : k + BATCH]).sum()
    return right / 320


@pytest.mark.parametrize("math", ["float16", "bfloat16"])
def test_the_digits_net_converges(device, digits, math):
    solver = solver_of(NET, [Precision(math)], device)
    train(solver, digits, 60)
    assert solver.scaler.scale == (65536 if math == "float16" else 1)
    assert all(w.dtype == np.float32 for w in weights(solver))
    assert accuracy(solver.net, digits) > 0.85


def test_without_a_scale_small_gradients_are_lost(device, digits):
    """What the scale is for: gradients below what float16 has (6e-8) come through."""
    weight = NET.replace('top: "loss" }', 'top: "loss" loss_weight: 1e-6 }')
    gradients = {}
    for name, settings in {
        "exact": [Precision("float32")],
        "plain": [Precision("float16"), LossScale(1.0, every=0)],
        "scaled": [Precision("float16")],
    }.items():
        solver = solver_of(weight, settings, device)
        solver.net.blobs["data"].data[...] = digits[0][:BATCH]
        solver.net.blobs["label"].data[...] = digits[1][:BATCH]
        solver.net.forward()
        solver.net.backward()
        gradients[name] = np.array(solver.net.params["conv1"][0].diff) / solver.scaler.scale
    largest = abs(gradients["exact"]).max()
    errors = {n: abs(g - gradients["exact"]).max() / largest for n, g in gradients.items()}
    assert errors["scaled"] < 0.01 < 0.1 < errors["plain"]
