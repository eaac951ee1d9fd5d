"""Snapshots: resumed runs to the last bit, Caffe's files, and dying at any moment."""

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from demitasse.engine import caffemodel, solverstate
from demitasse.engine.errors import DemitasseError, ModelFileError, SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver, updates

# Everything that must go on where it was: random data, shuffled rows and images, crops, dropout
# masks, a recurrent layer's hidden state, and the same in the test net.
NET = """name: "all"
layer { name: "noise" type: "DummyData" top: "noise"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "rows" type: "HDF5Data" top: "rows"
  hdf5_data_param { source: "list.txt" batch_size: 3 shuffle: true } }
layer { name: "cont" type: "DummyData" top: "cont"
  dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "constant" value: 1 } } }
layer { name: "rnn" type: "RNN" bottom: "noise" bottom: "cont" top: "rnn"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "rnn" top: "drop" include { phase: TRAIN } }
layer { name: "flat" type: "Reshape" bottom: "rnn" top: "drop"
  reshape_param { shape { dim: 0 dim: 0 dim: 0 } } include { phase: TEST } }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip" param { name: "w" } param {}
  inner_product_param { num_output: 2 axis: 2 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "ip2" type: "InnerProduct" bottom: "drop" top: "ip2" param { name: "w" } param {}
  inner_product_param { num_output: 2 axis: 2 } }
layer { name: "sum" type: "Reduction" bottom: "ip2" top: "sum" loss_weight: 0.1 }
layer { name: "first" type: "Slice" bottom: "ip" top: "a" top: "b" slice_param { axis: 0 } }
layer { name: "row" type: "Reshape" bottom: "a" top: "a2"
  reshape_param { shape { dim: 3 dim: 2 } } }
layer { name: "unused" type: "Reduction" bottom: "b" top: "bsum" loss_weight: 0.2
  reduction_param { operation: SUMSQ } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a2" bottom: "rows" top: "loss" }
layer { name: "images" type: "ImageData" top: "image" top: "label"
  image_data_param { source: "images.txt" batch_size: 2 shuffle: true rand_skip: 4 }
  transform_param { crop_size: 3 mirror: true } }
layer { name: "ip3" type: "InnerProduct" bottom: "image" top: "ip3"
  inner_product_param { num_output: 2 } }
layer { name: "sum3" type: "Reduction" bottom: "ip3" top: "sum3" loss_weight: 0.001 }
layer { name: "silence" type: "Silence" bottom: "label" }
"""
SETTINGS = """base_lr: 0.05 lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 5
  weight_decay: 0.01 iter_size: 2 max_iter: 7 test_iter: 2 test_interval: 2 snapshot_prefix: "s" """


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    with h5py.File("rows.h5", "w") as f:
        f["rows"] = rng.standard_normal((7, 2)).astype(np.float32)
    Path("list.txt").write_text("rows.h5\n")
    for i in range(5):
        cv2.imwrite(f"{i}.png", rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    Path("images.txt").write_text("".join(f"{i}.png {i}\n" for i in range(5)))


def make(text="", net=NET, settings=SETTINGS):
    param = parse_text(settings, caffe_pb2.SolverParameter)
    param.MergeFrom(parse_text(text, caffe_pb2.SolverParameter))
    param.net_param.CopyFrom(parse_text(net, caffe_pb2.NetParameter))
    return make_solver(param)


def everything(solver):
    """All numbers that a continued run depends on."""
    found = [p.blob.data.copy() for p in solver.net.learnable]
    found += [h.data.copy() for h in solver.optimizer.history]
    for net in [solver.net, *solver.test_nets]:
        found += [b.data.copy() for node in net.nodes for b in node.layer.state_blobs]
        found.append(np.array([net.passes]))
    return [*found, np.array([solver.iter, solver.optimizer.current_step])]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        np.testing.assert_array_equal(a, b)


# ---- going on


@pytest.mark.parametrize("file_format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("kind", updates.RULES)
def test_resumed_equals_uninterrupted(kind, file_format):
    momentum = "" if kind in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    text = f'type: "{kind}" snapshot_format: {file_format} snapshot: 3 {momentum}'
    straight = make(text)  # without a random_seed: each solver draws its own
    straight.solve()
    ending = ".h5" if file_format == "HDF5" else ""
    assert {p.name for p in Path().glob("s_iter_*")} == {
        f"s_iter_{i}.{part}{ending}" for i in (3, 6, 7) for part in ("caffemodel", "solverstate")
    }
    resumed = make(text)
    resumed.solve(f"s_iter_3.solverstate{ending}")
    assert_same(everything(resumed), everything(straight))
    losses = [net.blobs["loss"].data for net in (*resumed.test_nets, *straight.test_nets)]
    assert losses[0] == losses[1]


def test_restoring_a_solver_that_has_run():
    straight = make("momentum: 0.9")
    straight.step(2)
    path = straight.snapshot()
    straight.step(3)
    other = make("momentum: 0.9")
    other.step(2)
    other.restore(path)
    other.step(3)
    assert_same(everything(other), everything(straight))


def test_pair_may_be_moved(tmp_path, monkeypatch):
    solver = make()
    solver.step(1)
    solver.snapshot()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("s_iter_1.caffemodel", "s_iter_1.solverstate"):
        shutil.move(name, moved / name)
    other = make()
    other.restore(moved / "s_iter_1.solverstate")
    assert_same(everything(other), everything(solver))


def test_diffs_are_written_if_asked():
    solver = make("snapshot_diff: true")
    solver.step(1)
    solver.snapshot()
    net = caffe_pb2.NetParameter.FromString(Path("s_iter_1.caffemodel").read_bytes())
    (ip,) = [layer for layer in net.layer if layer.name == "ip"]
    np.testing.assert_array_equal(ip.blobs[0].diff, solver.net.params["ip"][0].diff.ravel())


# ---- Caffe's files


def test_state_in_caffes_schema():
    solver = make("momentum: 0.9 random_seed: 11")
    solver.step(3)
    state = caffe_pb2.SolverState.FromString(Path(solver.snapshot()).read_bytes())
    assert (state.iter, state.current_step) == (3, 1)
    assert state.learned_net == "s_iter_3.caffemodel"
    assert (state.random_seed, state.passes, list(state.test_passes)) == (11, 6, [4])
    for blob, history in zip(state.history, solver.optimizer.history, strict=True):
        assert tuple(blob.shape.dim) == history.shape
        np.testing.assert_array_equal(blob.data, history.data.ravel())


def test_state_in_caffes_hdf5():
    solver = make("snapshot_format: HDF5 momentum: 0.9")
    solver.step(3)
    with h5py.File(solver.snapshot()) as f:
        assert f["iter"][0] == 3 and f["iter"].dtype == np.int32
        assert f["current_step"][0] == 1
        assert f["learned_net"][()] == b"s_iter_3.caffemodel.h5"
        for i, history in enumerate(solver.optimizer.history):
            np.testing.assert_array_equal(f[f"history/{i}"], history.data)


def test_state_of_caffe_without_our_fields():
    solver = make("momentum: 0.9 random_seed: 11")
    solver.step(3)
    path = Path(solver.snapshot())
    state = caffe_pb2.SolverState.FromString(path.read_bytes())
    for field in ("random_seed", "passes", "test_passes", "layer_state"):
        state.ClearField(field)
    path.write_bytes(state.SerializeToString())
    other = make("momentum: 0.9 random_seed: 11")
    other.restore(path)
    assert (other.iter, other.net.passes) == (3, 6)  # iter_size passes an iteration
    np.testing.assert_array_equal(other.net.params["ip"][0].data, solver.net.params["ip"][0].data)


# ---- what is refused


def test_state_of_another_solver():
    adam = make('type: "Adam" momentum: 0.9')
    path = adam.snapshot()
    count = len(adam.optimizer.history)
    with pytest.raises(SolverError, match=rf"{count // 2} history blobs .* SGD, found {count}"):
        make().restore(path)


def test_state_of_another_net():
    path = make().snapshot()
    other = make(net=NET.replace("num_output: 4", "num_output: 5"))
    before = everything(other)
    with pytest.raises(SolverError, match=r"history 0 of shape \(5, 4\), found shape \(4, 4\)"):
        other.restore(path)
    assert_same(everything(other), before)


def test_missing_weights():
    path = make().snapshot()
    os.remove("s_iter_0.caffemodel")
    with pytest.raises(SolverError, match=r"the weights it belongs to, s_iter_0.caffemodel"):
        make().restore(path)


@pytest.mark.parametrize("name", ["none.solverstate", "none.solverstate.h5"])
def test_missing_state(name):
    with pytest.raises(ModelFileError, match=name):
        make().restore(name)


def test_folder_is_checked_before_training():
    solver = make('snapshot_prefix: "nowhere/s"')
    with pytest.raises(SolverError, match="nowhere"):
        solver.solve()
    assert solver.iter == 0


# ---- dying

BIG = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 500 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 400 } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
"""
BIG_SETTINGS = 'base_lr: 1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "big"'


def make_big():
    return make(net=BIG, settings=BIG_SETTINGS)


def marked_blobs(solver):
    return [*(p.blob for p in solver.net.learnable), *solver.optimizer.history]


def snapshot(solver, mark):
    """Write a snapshot in which every weight and every history value is `mark`."""
    for blob in marked_blobs(solver):
        blob.data[...] = mark
    return solver.snapshot()


def marks(path):
    """The marks that a fresh solver finds in a snapshot: one, if weights and state fit."""
    solver = make_big()
    solver.restore(path)
    return set(np.concatenate([np.unique(b.data) for b in marked_blobs(solver)]).tolist())


def fail_at(call, module, name, patch):
    """Have the `call`-th call of a function fail like a full disk; returns the calls so far."""
    real, calls = getattr(module, name), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    patch.setattr(module, name, failing)
    return calls


@pytest.mark.parametrize(
    ("module", "name"),
    [(os, "replace"), (os, "fsync"), (caffemodel, "encode_blob"), (solverstate, "encode_blob")],
)
def test_failing_in_the_middle(module, name, monkeypatch):
    """Whatever call fails, what can be read is whole, and nothing else is left behind."""
    solver = make_big()
    failures = 0
    for call in range(1, 20):
        path = snapshot(solver, 1)
        with monkeypatch.context() as patch:
            calls = fail_at(call, module, name, patch)
            with contextlib.suppress(DemitasseError):
                snapshot(solver, 2)
        if len(calls) < call:
            break
        failures += 1
        if os.path.exists(path):
            assert marks(path) in ({1}, {2})
        assert {p.suffix for p in Path().glob("big*")} <= {".caffemodel", ".solverstate"}
    assert failures >= 2
    assert marks(path) == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment():
    solver = make_big()
    begin = time.perf_counter()
    path = snapshot(solver, 0)
    longest = 8 * (time.perf_counter() - begin)
    draw, found = random.Random(4), set()
    for _ in range(12):
        child = os.fork()
        if child == 0:
            try:
                for mark in range(1, 10_000):
                    snapshot(solver, mark)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if os.path.exists(path):
            whole = marks(path)
            assert len(whole) == 1
            found |= whole
    assert len(found) > 1
