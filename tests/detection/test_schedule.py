"""Schedules: from solver file and config to a SolverParameter; warming up."""

import itertools

import pytest
import tiny_net
from hypothesis import given
from hypothesis import strategies as st

from caffe.proto import caffe_pb2
from demitasse.detection.config import Solver as SolverConfig
from demitasse.detection.schedule import (
    PUBLISHED_ITERS,
    WarmUp,
    add_warm_up,
    solver_param,
    stage_iters,
    stretch,
)
from demitasse.engine.errors import SolverError
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import Solver, learning_rate

HEAD = "base_lr: 0.001 momentum: 0.9 weight_decay: 0.0005 "
STEP = HEAD + 'lr_policy: "step" gamma: 0.1 '


def read(tmp_path, text, iters=None, kind="rpn", **config):
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    return solver_param(str(path), kind, SolverConfig(**config), iters)


def rates(param, iters):
    """The learning rate of each iteration."""
    found, step = [], 0
    for k in range(iters):
        step = learning_rate.current_step(param, k, step)
        found.append(learning_rate.learning_rate(param, k, step))
    return found


# ---- iterations


def test_a_file_alone_counts_as_it_stands(tmp_path):
    param = read(tmp_path, STEP + "stepsize: 60 max_iter: 80")
    assert (param.max_iter, param.stepsize) == (80, 60)
    assert param.base_lr == pytest.approx(0.001)


@pytest.mark.parametrize("kind", PUBLISHED_ITERS)
def test_py_faster_rcnns_files_leave_the_iterations_to_the_program(kind, tmp_path):
    assert read(tmp_path, STEP + "stepsize: 30000", kind=kind).max_iter == PUBLISHED_ITERS[kind]


def test_steps_move_with_the_number_of_iterations(tmp_path):
    param = read(tmp_path, STEP + "stepsize: 60000", iters=400)
    assert (param.max_iter, param.stepsize) == (400, 300)
    text = HEAD + 'lr_policy: "multistep" gamma: 0.1 stepvalue: 50 stepvalue: 75 max_iter: 100'
    assert list(read(tmp_path, text, iters=1000).stepvalue) == [500, 750]


def test_a_step_is_at_least_one_iteration(tmp_path):
    assert read(tmp_path, STEP + "stepsize: 1 max_iter: 1000", iters=10).stepsize == 1


def test_a_file_for_a_longer_training_keeps_its_steps_and_says_so(tmp_path, caplog):
    param = read(tmp_path, STEP + "stepsize: 350000", iters=490000, kind="end2end")
    assert (param.max_iter, param.stepsize) == (490000, 350000)
    assert "lowers the learning rate at iteration 350000" in caplog.text


def test_no_iterations(tmp_path):
    assert read(tmp_path, STEP + "stepsize: 60 max_iter: 80", iters=0).max_iter == 0
    with pytest.raises(SolverError, match="at least 0"):
        read(tmp_path, STEP + "stepsize: 60", iters=-1)


@pytest.mark.parametrize(
    "policy",
    [
        'lr_policy: "fixed"', 'lr_policy: "step" gamma: 0.5 stepsize: 20',
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 25 stepvalue: 60',
        'lr_policy: "exp" gamma: 0.97', 'lr_policy: "inv" gamma: 0.02 power: 0.75',
        'lr_policy: "poly" power: 2', 'lr_policy: "sigmoid" gamma: -0.1 stepsize: 50',
    ],
)  # fmt: skip
def test_stretched_policies_have_the_same_rates_at_the_same_fractions(policy):
    short = parse_text(f"base_lr: 0.1 max_iter: 100 {policy}", caffe_pb2.SolverParameter)
    long = caffe_pb2.SolverParameter()
    long.CopyFrom(short)
    long.max_iter = 700
    stretch(long, 7)
    assert rates(long, 700)[::7] == pytest.approx(rates(short, 100), rel=1e-4)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_steps_stay_at_their_fraction(step, total):
    param = parse_text(f'lr_policy: "step" stepsize: {step}', caffe_pb2.SolverParameter)
    stretch(param, total / 80000)
    assert param.stepsize >= 1
    assert abs(param.stepsize - step * total / 80000) <= max(0.5, 1 - step * total / 80000)


def test_iterations_of_the_stages():
    assert stage_iters(None, None, 4) == [None] * 4
    assert stage_iters(None, (1, 2, 3, 4), 4) == [1, 2, 3, 4]
    assert stage_iters([7], (1, 2, 3, 4), 4) == stage_iters(7, None, 4) == [7] * 4
    assert stage_iters(0, 5, 1) == [0]
    with pytest.raises(SolverError, match="one number, or 4, one a stage"):
        stage_iters([1, 2], None, 4)


# ---- the config


def test_the_config_replaces_what_it_names(tmp_path):
    param = read(
        tmp_path, STEP + "stepsize: 60 max_iter: 80", iters=200, BASE_LR=0.5, TYPE="Adam",
        MOMENTUM=0.8, WEIGHT_DECAY=0.0, CLIP_GRADIENTS=35.0, ITER_SIZE=2, STEPS=(0.75, 0.5),
        GAMMA=0.2,
    )  # fmt: skip
    assert (param.base_lr, param.type, param.iter_size) == (0.5, "Adam", 2)
    assert (param.weight_decay, param.clip_gradients) == (0, 35)
    assert param.momentum == pytest.approx(0.8) and param.gamma == pytest.approx(0.2)
    assert (param.lr_policy, list(param.stepvalue)) == ("multistep", [100, 150])


def test_an_rpn_alone_may_have_a_rate_of_its_own(tmp_path):
    for kind, rate in (("rpn", 0.3), ("fast_rcnn", 0.5), ("end2end", 0.5)):
        param = read(tmp_path, STEP + "stepsize: 60", kind=kind, BASE_LR=0.5, RPN_BASE_LR=0.3)
        assert param.base_lr == pytest.approx(rate)


def test_nets_tests_and_snapshots_of_the_file_are_left_out(tmp_path):
    text = (
        STEP
        + """stepsize: 3 net: "n" test_iter: 2 test_interval: 5 snapshot: 10
                     snapshot_prefix: "p" """
    )
    param = read(tmp_path, text)
    assert not (param.net or param.test_iter or param.snapshot_prefix or param.snapshot)
    assert not param.test_interval and not param.snapshot_after_train


# ---- warming up


def make_solver(warm_up):
    param = parse_text(STEP + "stepsize: 6 max_iter: 10", caffe_pb2.SolverParameter)
    param.net_param.CopyFrom(parse_text(NET, caffe_pb2.NetParameter))
    solver = Solver(param)
    add_warm_up(solver, SolverConfig(WARMUP_ITERS=warm_up, WARMUP_FACTOR=0.2))
    return solver


NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 4 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
layer { name: "sum" type: "Reduction" bottom: "y" top: "sum" loss_weight: 1 }
"""


def test_the_rate_rises_linearly_and_then_is_the_policys():
    solver, plain = make_solver(4), make_solver(0)
    assert isinstance(solver.optimizer, WarmUp) and not isinstance(plain.optimizer, WarmUp)
    found = []
    solver.on_progress.append(lambda s: found.append(s.net.params["ip"][1].data[0]))
    solver.param.momentum = solver.param.weight_decay = 0
    solver.step(8)
    # The gradient of the bias is 4 in every iteration.
    steps = [-b / 4 for b in [found[0], *(b - a for a, b in itertools.pairwise(found))]]
    expected = [0.0002, 0.0004, 0.0006, 0.0008, 0.001, 0.001, 0.0001, 0.0001]
    assert steps == pytest.approx(expected, rel=1e-3)


def test_a_snapshot_in_the_middle_of_warming_up(tmp_path):
    solver = make_solver(5)
    solver.param.snapshot_prefix = str(tmp_path / "s")
    solver.step(2)
    path = solver.snapshot()
    solver.step(5)
    other = make_solver(5)
    other.restore(path)
    other.step(5)
    assert other.net.params["ip"][1].data == solver.net.params["ip"][1].data


def test_tiny_files_are_complete(tmp_path):
    place = tiny_net.write_network(tmp_path / "n")
    param = solver_param(str(place / "end2end_solver.prototxt"), "end2end", SolverConfig())
    assert (param.max_iter, param.iter_size) == (8, 2)
