"""A solver's nets: those it tests, their states, their files and their first weights."""

import numpy as np
import pytest
from tiny_solver import NET, SETTINGS, messages, parameters, solver_of

from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver

pytestmark = pytest.mark.usefixtures("whole_log")


def test_test_nets_use_the_training_nets_parameters():
    solver = solver_of("test_iter: 2 test_interval: 100 test_initialization: false")
    (test_net,) = solver.test_nets
    assert np.shares_memory(test_net.params["ip"][0].data, solver.net.params["ip"][0].data)
    solver.step(3)
    weight, bias = (b.data for b in solver.net.params["ip"])
    expected = ((weight.sum(1) + bias - 2) ** 2).sum() / 2  # all data are 1, all targets 2
    (result,) = solver.test_all()
    assert result["l"] == pytest.approx(expected, rel=1e-5)


def test_test_interval(caplog):
    solver_of("test_iter: 1 test_interval: 2").step(5)
    tests = [line for line in messages(caplog) if "Testing net" in line]
    assert tests == [f"Iteration {i}, Testing net (#0)" for i in (0, 2, 4)]


def test_tests_of_no_batches(caplog):
    # As solver files switch tests off; there is nothing to divide by, and no line but the first.
    solver = solver_of("test_iter: 0 test_interval: 1 test_compute_loss: true")
    assert solver.test_all() == [{}]
    assert messages(caplog)[-1] == "Iteration 0, Testing net (#0)"


def test_means_over_batches():
    net = NET.replace(
        'data_filler { type: "constant" value: 2 }', 'data_filler { type: "gaussian" }'
    )
    solver = solver_of("test_iter: 3 test_interval: 100", net)
    losses = []
    last = len(solver.test_nets[0].nodes) - 1
    solver.test_nets[0].after_forward.append(
        lambda i: i == last and losses.append(float(solver.test_nets[0].blobs["l"].data))
    )
    (result,) = solver.test_all()
    assert len(set(losses)) == 3
    assert result["l"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_train_and_test_data_differ_under_one_seed():
    net = NET.replace('layer { name: "test_data"', 'layer { name: "data"')
    net = net.replace('type: "constant" value: 1', 'type: "gaussian" std: 1')
    solver = solver_of("test_iter: 1 test_interval: 1", net)
    solver.net.forward()
    solver.test_nets[0].forward()
    assert (solver.net.blobs["x"].data != solver.test_nets[0].blobs["x"].data).any()


def test_order_and_states_of_test_nets(tmp_path, caplog):
    for name in ("train", "other"):
        (tmp_path / f"{name}.prototxt").write_text(NET.replace("tiny", name))
    inline = parse_text(NET.replace("tiny", "inline"), caffe_pb2.NetParameter)
    param = parse_text(
        f"""{SETTINGS} net: "train.prototxt" test_net: "other.prototxt"
        test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 1
        test_state {{ stage: "a" }} test_state {{ stage: "b" }} test_state {{ level: 7 }}""",
        caffe_pb2.SolverParameter,
    )
    param.test_net_param.add().CopyFrom(inline)
    solver = make_solver(param, tmp_path / "solver.prototxt")
    assert [net.name for net in solver.test_nets] == ["inline", "other", "train"]
    lines = [line for line in messages(caplog) if line.startswith("Creating")]
    assert lines == [
        "Creating training net from net file: train.prototxt",
        "Creating test net (#0) specified by test_net_param",
        "Creating test net (#1) specified by test_net file: other.prototxt",
        "Creating test net (#2) specified by net file: train.prototxt",
    ]


def test_train_state():
    net = NET + 'layer { name: "s" type: "ReLU" bottom: "x" top: "s" include { stage: "extra" } }'
    assert "s" not in solver_of("", net).net.blobs
    assert "s" in solver_of('train_state { stage: "extra" }', net).net.blobs


def test_net_file_is_found_from_the_folders_above(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "models" / "vgg"
    deep.mkdir(parents=True)
    (tmp_path / "models" / "net.prototxt").write_text(NET)
    (deep / "solver.prototxt").write_text(f'{SETTINGS} train_net: "net.prototxt"')
    solver = make_solver(deep / "solver.prototxt")
    assert solver.net.name == "tiny"
    assert solver.net.context.folder == str(tmp_path / "models")
    assert solver.param.snapshot_prefix == str(deep / "solver")


def test_initial_weights(tmp_path):
    source = solver_of("random_seed: 7")
    path = source_path(source, tmp_path)
    solver = solver_of(f'random_seed: 8 weights: "{path}"')
    np.testing.assert_array_equal(parameters(solver)[0], parameters(source)[0])


def source_path(solver, folder):
    from demitasse.engine import weights

    path = str(folder / "w.caffemodel")
    weights.save(solver.net, path)
    return path
