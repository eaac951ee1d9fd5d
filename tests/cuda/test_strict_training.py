"""Whole trainings on the GPU's path: the CPU's weights, with host and device kept apart."""

import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import caffe
from demitasse.engine import device as devices
from demitasse.engine import precision, transfers
from demitasse.engine.errors import OutOfMemoryError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.engine.strict_device import StrictDevice
from demitasse.solvers import make_solver

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))  # for the tiny Faster R-CNN

import test_train
import tiny_net
from tiny_run import weights_of

from demitasse.detection import loss_log, opening, pretrain, recorder, train
from demitasse.detection.config import Config, merge
from demitasse.detection.loss_log import LossLog, read_log
from demitasse.detection.snapshots import Snapshots
from demitasse.detection.test import test_net as detect_all

LEARN = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 }'
DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 12 dim: 12 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "uniform" max: 4.99 } } }
"""
# Of the types that no other test trains, in one net.
NET = f"""{DATA}
layer {{ name: "shifted" type: "Power" bottom: "data" top: "data" power_param {{ shift: 0.1 }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {LEARN} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param {{ local_size: 3 }} }}
layer {{ name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
  pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "pool1" top: "pool1" }}
layer {{ name: "scale" type: "Scale" bottom: "pool1" top: "pool1"
  scale_param {{ bias_term: true }} }}
layer {{ name: "prelu" type: "PReLU" bottom: "pool1" top: "pool1" }}
layer {{ name: "conv2a" type: "Convolution" bottom: "pool1" top: "conv2a"
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 group: 2 {LEARN} }} }}
layer {{ name: "sigmoid" type: "Sigmoid" bottom: "conv2a" top: "conv2a" }}
layer {{ name: "conv2b" type: "Convolution" bottom: "pool1" top: "conv2b"
  convolution_param {{ num_output: 4 kernel_size: 1 {LEARN} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "conv2b" top: "conv2b" }}
layer {{ name: "both" type: "Concat" bottom: "conv2a" bottom: "conv2b" top: "both" }}
layer {{ name: "sum" type: "Eltwise" bottom: "both" bottom: "pool1" top: "sum" }}
layer {{ name: "elu" type: "ELU" bottom: "sum" top: "sum" }}
layer {{ name: "halves" type: "Slice" bottom: "sum" top: "half1" top: "half2" }}
layer {{ name: "largest" type: "Eltwise" bottom: "half1" bottom: "half2" top: "largest"
  eltwise_param {{ operation: MAX }} }}
layer {{ name: "pool2" type: "Pooling" bottom: "largest" top: "pool2"
  pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }} }}
layer {{ name: "up" type: "Deconvolution" bottom: "pool2" top: "up"
  convolution_param {{ num_output: 2 kernel_size: 2 stride: 2 {LEARN} }} }}
layer {{ name: "flat1" type: "Flatten" bottom: "pool2" top: "flat1" }}
layer {{ name: "flat2" type: "Reshape" bottom: "up" top: "flat2"
  reshape_param {{ shape {{ dim: 4 dim: -1 }} }} }}
layer {{ name: "features" type: "Concat" bottom: "flat1" bottom: "flat2" top: "features" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "features" top: "ip1"
  inner_product_param {{ num_output: 16 {LEARN} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }}
layer {{ name: "score" type: "InnerProduct" bottom: "ip1" top: "score"
  inner_product_param {{ num_output: 5 {LEARN} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param {{ ignore_label: 4 }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" }}
"""
SETTINGS = """base_lr: 0.05 lr_policy: "fixed" random_seed: 3 max_iter: 100
snapshot_after_train: false weight_decay: 0.001 """


@pytest.fixture(autouse=True)
def without_tensorboard(monkeypatch):
    """No event files: a machine with a GPU may have no tensorboardX."""
    monkeypatch.setattr(loss_log, "_event_writer", lambda *_: Mock())


def solver_of(text, device, net=NET, **options):
    param = parse_text(SETTINGS + text, caffe_pb2.SolverParameter)
    param.net_param.CopyFrom(parse_text(net, caffe_pb2.NetParameter))
    return make_solver(param, device=device, **options)


def parameters(solver):
    return {
        f"{node.name} {k}": blob.data.copy()
        for node in solver.net.nodes for k, blob in enumerate(node.layer.blobs)
    }  # fmt: skip


def assert_near(found, expected, tolerance):
    """Fail unless arrays differ by at most `tolerance` times the largest number of each."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        most = max(np.abs(values).max(initial=0), 1e-3)
        worst = np.abs(found[name] - values).max(initial=0)
        assert worst <= tolerance * most, f"{name}: off by {worst:g}, the largest is {most:g}"


@pytest.mark.parametrize(
    "text",
    [
        "momentum: 0.9 iter_size: 2 clip_gradients: 0.5",
        'type: "Adam" momentum: 0.9 regularization_type: "L1"',
    ],
    ids=["SGD", "Adam"],
)
@pytest.mark.parametrize("keep", ["all", "minimal"])
def test_training_gives_the_weights_of_the_cpu(place, text, keep):
    solvers = [solver_of(text, device, keep=keep) for device in (devices.CPU, place.device)]
    for solver in solvers:
        solver.step(3)
        solver.net.check()
    expected, found = map(parameters, solvers)
    assert_near(found, expected, 1e-4)
    assert solvers[1].loss == pytest.approx(solvers[0].loss, rel=1e-4)
    assert solvers[1].smoothed_loss == pytest.approx(solvers[0].smoothed_loss, rel=1e-4)


def test_an_iteration_waits_for_nothing_but_losses_that_are_shown(place):
    solver = solver_of("momentum: 0.9 clip_gradients: 0.5 display: 3", place.device)
    solver.step(1)  # memory is taken, and fillers have run
    with transfers.watch(place.device) as log:
        solver.step(5)
    counts = [len(waits) for waits in log.synchronisations()]
    assert counts[0] == counts[1] == counts[3] == counts[4] == 0, log.report()
    # When it is displayed: the checks of labels, the loss, the outputs, the norm of the gradients.
    assert 0 < counts[2] <= 6, log.report()


class Doubled(caffe.Layer):
    """A user's layer, written for NumPy arrays."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        assert isinstance(bottom[0].data, np.ndarray)
        top[0].data[...] = np.float32(bottom[0].data * self.blobs[0].data[0])

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += (top[0].diff * bottom[0].data).sum()
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data[0]


def test_a_users_layer_runs_as_it_is(place):
    caffe.allow_python_layers(__name__)
    net = NET.replace(
        'layer { name: "norm1"',
        'layer { name: "mine" type: "Python" bottom: "conv1" top: "doubled" '
        f'python_param {{ module: "{__name__}" layer: "Doubled" }} }} layer {{ name: "norm1"',
    ).replace('type: "LRN" bottom: "conv1"', 'type: "LRN" bottom: "doubled"')
    solvers = [
        solver_of("momentum: 0.9", device, net, keep="minimal")
        for device in (devices.CPU, place.device)
    ]
    for solver in solvers:
        solver.step(3)
    expected, found = map(parameters, solvers)
    assert expected["mine 0"] != 2
    assert_near(found, expected, 1e-4)


def test_a_snapshot_is_one_of_any_device(place, tmp_path):
    text = f'momentum: 0.9 snapshot_prefix: "{tmp_path}/s"'
    first = solver_of(text, place.device)
    first.step(2)
    state = first.snapshot()
    first.step(2)
    for device, tolerance in ((place.device, 0), (devices.CPU, 1e-4)):
        resumed = solver_of(text, device)
        resumed.restore(state)
        resumed.step(2)
        assert_near(parameters(resumed), parameters(first), tolerance)


def test_pycaffe_runs_as_it_is(place, tmp_path):
    (tmp_path / "net.prototxt").write_text(
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "p" type: "Softmax" bottom: "y" top: "p" } force_backward: true"""
    )
    devices.set_default_device(place.device)
    try:
        net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    finally:
        devices.set_default_device(devices.CPU)
    twin = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    for a, b in zip(net.params["ip"], twin.params["ip"]):
        b.data[...] = a.data
    rng, kept = np.random.default_rng(0), {n: n.blobs["x"].data for n in (net, twin)}
    for k in range(4):
        x = rng.standard_normal((2, 3)).astype(np.float32)
        results = []
        for n in (net, twin):
            if k == 0:
                n.blobs["x"].data[...] = x
            elif k == 1:
                kept[n][...] = x
            elif k == 2:
                n.params["ip"][0].data[0] *= 2
            out = n.forward(x=x) if k == 3 else n.forward()
            n.blobs["p"].diff[...] = np.arange(8).reshape(2, 4)
            back = n.backward()
            results.append((out["p"].copy(), back["x"].copy(), n.blobs["y"].data.copy()))
        for found, expected in zip(*results):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=str(k))


def test_too_little_memory_is_told_with_the_layer():
    with pytest.raises(OutOfMemoryError) as error:
        solver_of("", StrictDevice(memory=7000)).step(1)
    text = str(error.value)
    assert "layer 'conv1' (Convolution), forward" in text and "18,432 bytes" in text
    assert "batch" in text and isinstance(error.value, MemoryError)
    with pytest.raises(OutOfMemoryError, match=r"gradients.*allocating \d+"):
        solver_of("", StrictDevice(memory=18432), keep="minimal").step(1)


class Exhausted(caffe.Layer):
    """As if a library had found no memory, which says so in an error of its own."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")


def test_too_little_memory_for_a_library_is_told_too():
    caffe.allow_python_layers(__name__)
    net = NET.replace(
        'layer { name: "norm1"',
        'layer { name: "mine" type: "Python" bottom: "conv1" top: "exhausted" '
        f'python_param {{ module: "{__name__}" layer: "Exhausted" }} }} layer {{ name: "norm1"',
    )
    with pytest.raises(OutOfMemoryError, match=r"'mine' \(Python\), forward.*ALLOC_FAILED"):
        solver_of("", devices.CPU, net).step(1)


@pytest.mark.gpu
def test_too_little_memory_of_a_gpu_is_told():
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + 10_000)
    try:
        with pytest.raises(OutOfMemoryError, match="layer 'conv1'"):
            solver_of("", devices.gpu_device(0)).step(1)
    finally:
        pool.set_limit(size=0)


# ---- the tiny Faster R-CNN


def make_stage(folder, device, kind="end2end", solver="max_iter: 4"):
    folder.mkdir()
    cfg = merge(tiny_net.CFG, {"TRAIN": {"BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True}})
    return test_train.make_stage(folder, kind, solver=solver, cfg=cfg, device=device)


@pytest.mark.parametrize("kind", ["rpn", "fast_rcnn", "end2end"])
def test_the_tiny_faster_rcnn_is_trained_as_on_the_cpu(place, tmp_path, kind):
    results = []
    for name, device in (("cpu", devices.CPU), ("device", place.device)):
        stage = make_stage(tmp_path / name, device, kind)
        weights = weights_of(tmp_path / name / train.train(stage))
        flat = {f"{n} {k}": v for n, blobs in weights.items() for k, v in enumerate(blobs)}
        results.append((flat, read_log(tmp_path / name / "losses.jsonl")))
    (expected, expected_log), (found, found_log) = results
    assert_near(found, expected, 1e-3)
    assert len(found_log) == len(expected_log) == 4
    for a, b in zip(found_log, expected_log):
        assert a["iteration"] == b["iteration"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.parametrize("math", ["float16", "bfloat16"])
def test_the_tiny_faster_rcnn_learns_in_halves(place, tmp_path, math, monkeypatch):
    losses = {}
    for name in ("float32", math):
        monkeypatch.setenv(precision.VARIABLE, name)
        stage = make_stage(
            tmp_path / name, place.device, solver="max_iter: 50 base_lr: 0.004 clip_gradients: 2"
        )
        weights = weights_of(tmp_path / name / train.train(stage))
        assert all(np.isfinite(blob).all() for blobs in weights.values() for blob in blobs)
        losses[name] = [entry["loss"] for entry in read_log(tmp_path / name / "losses.jsonl")]
    exact, halves = (np.array(losses[name]) for name in ("float32", math))
    assert not np.array_equal(exact, halves)
    assert halves[0] == pytest.approx(exact[0], rel=0.02)
    # Other digits choose other RoIs, so the losses of single iterations differ.
    assert halves[-20:].mean() < 0.8 * halves[:10].mean()
    assert halves[-20:].mean() == pytest.approx(exact[-20:].mean(), rel=0.2)


@pytest.mark.parametrize("math", ["float32", "float16"])
def test_an_iteration_of_faster_rcnn_waits_twice_at_most(place, tmp_path, math, monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, math)
    stage = make_stage(tmp_path / "run", place.device, solver="max_iter: 50")
    solver = train.make_solver(stage, str(tmp_path / "s"))
    assert (solver.scaler.state is None) == (math == "float32")
    solver.step(2)
    with transfers.watch(place.device) as log:
        solver.step(4)
    waits = log.synchronisations()[:-1]
    assert len(waits) == 4
    for iteration in waits:
        assert len(iteration) <= 2, log.report()
        layers = {t.layer for t in iteration}
        assert layers <= {"proposal (Proposal)", "roi-data (ProposalTarget)"}, log.report()


def test_an_image_is_waited_for_once(place, tmp_path):
    stage = make_stage(tmp_path / "run", devices.CPU, solver="max_iter: 1")
    weights = str(tmp_path / "run" / train.train(stage))
    (tmp_path / "tiny.prototxt").write_text(tiny_net.NET)
    dataset = tiny_net.make_dataset("test", 3)
    found = []
    for device in (devices.CPU, place.device):
        net = opening.open_net(
            tmp_path / "tiny.prototxt", weights, stage.cfg, len(dataset.classes), device=device
        )
        found.append(detect_all(net, dataset, stage.cfg, thresh=0.0, progress=False))
    for of_class, expected in zip(*found[::-1]):
        for a, b in zip(of_class, expected):
            np.testing.assert_allclose(a, b, atol=1e-2)
    with transfers.watch(place.device) as log:
        detect_all(net, tiny_net.make_dataset("test", 1), stage.cfg, progress=False)
    (waits,) = log.synchronisations()
    assert [t.layer for t in waits] == [""], log.report()


def test_pretraining_on_crops_reads_its_losses_together(place, tmp_path):
    iters = 2 * recorder._READ_TOGETHER
    crops = {"ITERS": iters, "CROP_SIZES": [24], "MOSAIC_SIZE": 48, "BATCH_SIZE": 2}
    cfg = merge(Config(), {"PRETRAIN": crops})
    snapshots = Snapshots(tmp_path / "snapshots" / "pretrain", 0)
    snapshots.prepare()
    param = parse_text(tiny_net.NET, caffe_pb2.NetParameter)
    dataset = tiny_net.make_dataset("train", 6)
    with transfers.watch(place.device) as log, LossLog(str(tmp_path), "pretrain", 0) as losses:
        pretrain.pretrain(
            param, dataset, cfg, str(tmp_path), losses, snapshots, device=place.device
        )
    reads = [t for waits in log.synchronisations() for t in waits if "recorder.py" in t.place]
    assert len(reads) == 2, log.report()
    assert [entry["iteration"] for entry in read_log(tmp_path / "losses.jsonl")] == [
        *range(1, iters + 1)
    ]
