"""Solver definitions that are refused, and what the errors say; the device that one asks for."""

import re

import pytest
from tiny_solver import NET, messages, solver_of

from demitasse.engine.errors import DemitasseError, DeviceError, SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import device_of, make_solver

pytestmark = pytest.mark.usefixtures("whole_log")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Adan"', "Did you mean 'Adam'"),
        ('type: "AdaGrad" momentum: 0.5', "no momentum"),
        ('regularization_type: "L3"', "regularization_type L1 or L2"),
        ("iter_size: 0", "iter_size of at least 1"),
        ("average_loss: 0", "average_loss of at least 1"),
        ("test_iter: 1", "a positive test_interval, because there are test nets"),
        ("test_iter: -1 test_interval: 1", "test_iter of at least 0"),
        ('train_net: "x.prototxt"', "found net_param and train_net"),
        ("test_iter: 1 test_interval: 1 test_state {} test_state {}", "each of 1 test nets"),
        ('lr_policy: "fixd"', "Did you mean 'fixed'"),
        ("snapshot: 5", "snapshot_prefix"),
        ('snapshot: 5 snapshot_prefix: "/no/such/folder/x"', "/no/such/folder"),
        ('weights: "nowhere.caffemodel"', "'nowhere.caffemodel'"),
    ],
)
def test_refused(text, message):
    with pytest.raises(SolverError, match=message):
        solver_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of net, net_param, train_net, train_net_param, found none"),
        ('net: "nowhere.prototxt"', "'nowhere.prototxt'"),
        ('net: "\\000"', "solver field net"),
    ],
)
def test_errors_name_the_file(text, message, tmp_path):
    path = tmp_path / "my_solver.prototxt"
    with pytest.raises(DemitasseError, match=f"^{re.escape(str(path))}: .*{message}"):
        solver_of(text, net=None, path=path)


def test_a_policy_that_is_missing_names_the_file_when_training_starts(tmp_path):
    solver = solver_of("", path=tmp_path / "my_solver.prototxt")
    solver.param.ClearField("lr_policy")
    for start in (solver.solve, lambda: solver.step(1)):
        with pytest.raises(SolverError, match=r"my_solver\.prototxt: solver: .*a known lr_policy"):
            start()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of net, net_param, train_net, train_net_param, found none"),
        ('net: "nowhere.prototxt"', "'nowhere.prototxt'"),
        ('net: "\\000"', "solver field net"),
    ],
)
def test_no_net(text, message):
    with pytest.raises(DemitasseError, match=message):
        solver_of(text, net=None)


def test_test_net_needs_test_iter(tmp_path):
    (tmp_path / "n.prototxt").write_text(NET)
    text = 'train_net: "n.prototxt" test_net: "n.prototxt" test_interval: 1'
    with pytest.raises(SolverError, match="a test_iter for each of 1 test nets, found 0"):
        solver_of(text, None, path=tmp_path / "s.prototxt")
    with pytest.raises(SolverError, match="a test_iter for each of 1 test nets, found 2"):
        solver_of(text + " test_iter: 1 test_iter: 1", None, path=tmp_path / "s.prototxt")


def test_a_missing_learning_rate_is_said(caplog):
    net = parse_text(NET, caffe_pb2.NetParameter)
    make_solver(caffe_pb2.SolverParameter(net_param=net, snapshot_after_train=False))
    assert any("no base_lr" in line for line in messages(caplog))
    caplog.clear()
    solver_of("")
    assert not any("no base_lr" in line for line in messages(caplog))


def test_missing_policy_is_said_when_training_starts():
    solver = solver_of("")
    solver.param.ClearField("lr_policy")
    with pytest.raises(SolverError, match="a known lr_policy, found none"):
        solver.step(1)


def test_unknown_field_names_the_closest(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text("base_lr: 0.1\nmomentun: 0.9\n")
    with pytest.raises(DemitasseError, match=r"solver.prototxt:2:1.*momentun.*momentum"):
        make_solver(path)


def test_solver_mode_counts_only_when_written():
    param = caffe_pb2.SolverParameter()
    assert device_of(param).name == "cpu"
    param.solver_mode = caffe_pb2.SolverParameter.CPU
    assert device_of(param).name == "cpu"
    param.solver_mode = caffe_pb2.SolverParameter.GPU
    param.device_id = 99
    with pytest.raises(DeviceError, match="GPU 99"):
        device_of(param)
