"""The training loop: order of an update, log lines, test nets, and what is refused."""

import logging
import re

import numpy as np
import pytest

from demitasse.engine.errors import DemitasseError, DeviceError, SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import device_of, make_solver

DATA = """
    layer { name: "data" type: "DummyData" top: "x" top: "t" include { phase: TRAIN }
      dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "uniform" } } }
    layer { name: "test_data" type: "DummyData" top: "x" top: "t" include { phase: TEST }
      dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
        data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 2 } } }
"""
NET = f"""name: "tiny" {DATA}
    layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
      inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" loss_weight: 3 }}
"""
SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" random_seed: 1 max_iter: 10 snapshot_after_train: false'


def solver_of(text, net=NET, **options):
    param = parse_text(SETTINGS, caffe_pb2.SolverParameter)
    param.MergeFrom(parse_text(text, caffe_pb2.SolverParameter))
    if net is not None:
        param.net_param.CopyFrom(parse_text(net, caffe_pb2.NetParameter))
    return make_solver(param, **options)


def messages(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "demitasse.solver"]


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "demitasse")


# ---- updates


def parameters(solver):
    return [p.blob.data.copy() for p in solver.net.learnable]


def one_update(text):
    """(weights before, sum of gradients over iter_size, weights after) of one iteration."""
    solver = solver_of(text)
    before, sums = parameters(solver), []
    solver.add_callback(
        lambda: None, lambda: sums.extend(p.blob.diff.copy() for p in solver.net.learnable)
    )
    solver.step(1)
    return before, sums, parameters(solver)


def test_order_of_an_update():
    text = "iter_size: 2 clip_gradients: 0.5 weight_decay: 0.25 momentum: 0.9"
    before, sums, after = one_update(text)
    norm = np.sqrt(sum((g**2).sum() for g in sums))
    assert norm > 0.5  # on the sum, before it is averaged
    for w, g, new, lr, decay in zip(before, sums, after, (0.1, 0.2), (0.25, 0)):
        expected = w - lr * (g * (0.5 / norm) / 2 + decay * w)
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)


def test_l1():
    before, sums, after = one_update('weight_decay: 0.25 regularization_type: "L1"')
    expected = before[0] - 0.1 * (sums[0] + 0.25 * np.sign(before[0]))
    np.testing.assert_allclose(after[0], expected, rtol=1e-5, atol=1e-7)


def test_gradients_of_iter_size_are_summed_over_passes():
    solver = solver_of("iter_size: 3")
    seen = []
    solver.net.after_forward.append(lambda i: seen.append(i))
    solver.step(2)
    assert len(seen) == 2 * 3 * len(solver.net.nodes)
    assert solver.net.passes == 6


def test_diff_holds_the_update():
    solver = solver_of("momentum: 0.9")
    solver.step(2)
    before = parameters(solver)
    solver.step(1)
    for p, old in zip(solver.net.learnable, before):
        np.testing.assert_array_equal(old - p.blob.diff, p.blob.data)


def test_frozen_parameters_take_no_memory():
    net = NET.replace("lr_mult: 1", "lr_mult: 0").replace("lr_mult: 2", "lr_mult: 0")
    solver = solver_of("momentum: 0.9 weight_decay: 1", net)
    before = parameters(solver)
    solver.step(3)
    assert not any(h.has_data for h in solver.optimizer.history)
    for old, new in zip(before, parameters(solver)):
        np.testing.assert_array_equal(old, new)


def test_apply_update_alone():
    solver = solver_of("")
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    before, gradient = parameters(solver), solver.net.learnable[0].blob.diff.copy()
    solver.apply_update()
    assert solver.iter == 1
    np.testing.assert_allclose(parameters(solver)[0], before[0] - 0.1 * gradient, rtol=1e-6)


def test_lr_is_that_of_the_next_update():
    solver = solver_of('lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 3')
    seen = []
    for _ in range(4):
        solver.step(1)
        seen.extend([solver.lr, solver.lr])  # looking changes nothing
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001])


def test_same_seed_same_result():
    runs = []
    for seed in (5, 5, 6):
        solver = solver_of(f"random_seed: {seed}")
        solver.step(3)
        runs.append(parameters(solver)[0])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


# ---- log lines


def test_words_of_a_run(caplog):
    solver_of("display: 2 max_iter: 3 test_iter: 2 test_interval: 3 average_loss: 2").solve()
    number = r"[-+.\de]+"
    patterns = [
        r"Initializing solver from parameters: \n(.|\n)*base_lr: 0.1(.|\n)*",
        r"Creating training net specified in net_param\.",
        r"Creating test net \(#0\) specified by net_param",
        r"Solver scaffolding done\.",
        r"Solving tiny",
        r"Learning Rate Policy: fixed",
        r"Iteration 0, Testing net \(#0\)",
        rf"    Test net output #0: l = {number} \(\* 3 = {number} loss\)",
        rf"Iteration 0 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Iteration 0, lr = 0\.1",
        rf"Iteration 2 \({number} iter/s, {number}s/2 iters\), loss = {number}",
        rf"    Train net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Iteration 2, lr = 0\.1",
        r"Iteration 3, Testing net \(#0\)",
        rf"    Test net output #0: l = {number} \(\* 3 = {number} loss\)",
        r"Optimization Done\.",
    ]
    lines = messages(caplog)
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_last_loss_and_test_loss(caplog):
    text = (
        "display: 2 max_iter: 2 test_iter: 1 test_interval: 5 test_compute_loss: true "
        "test_initialization: false"
    )
    solver = solver_of(text)
    solver.solve()
    lines = messages(caplog)
    assert re.fullmatch(r"Iteration 2, loss = [\d.e-]+", lines[-2])
    assert not any("Testing" in line for line in lines)
    solver.test_all()
    assert re.fullmatch(r"Test loss: [\d.e-]+", messages(caplog)[-2])


def test_clipping_is_told(caplog):
    solver_of("clip_gradients: 1e-3").step(1)
    pattern = (
        r"Gradient clipping: scaling down gradients \(L2 norm [\d.]+ > 0.001\) by scale factor"
    )
    assert any(re.match(pattern, line) for line in messages(caplog))


def test_multistep_is_told(caplog):
    solver_of('lr_policy: "multistep" gamma: 0.1 stepvalue: 2').step(4)
    assert messages(caplog).count("MultiStep Status: Iteration 2, step = 1") == 1


def test_average_loss():
    solver, losses, smoothed = solver_of("average_loss: 3"), [], []
    solver.on_progress.append(lambda s: (losses.append(s.loss), smoothed.append(s.smoothed_loss)))
    solver.step(6)
    expected = [np.mean(losses[max(0, i - 2) : i + 1]) for i in range(6)]
    assert smoothed == pytest.approx(expected)


def test_debug_info_only_when_shown(caplog):
    solver_of("debug_info: true display: 2").step(2)
    lines = [r.getMessage() for r in caplog.records if r.name == "demitasse.net"]
    assert sum("[Backward] All net params" in line for line in lines) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_finite_loss_is_told_once(caplog):
    solver = solver_of("base_lr: 1e30")
    solver.step(6)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert re.match(r"Iteration \d: the loss is (nan|inf)\. ", warnings[0])


# ---- test nets


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


# ---- what is refused


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
