"""caffe.get_solver and the six solver classes, as programs written for pycaffe use them."""

import numpy as np
import pytest

import caffe
from demitasse.engine.errors import SolverError

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "label"
        dummy_data_param { shape { dim: 8 dim: 3 } shape { dim: 8 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
        include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.5 lr_policy: "step" gamma: 0.1 stepsize: 4
test_iter: 2 test_interval: 100 test_initialization: false
max_iter: 6 snapshot_prefix: "snap" random_seed: 3
"""
TYPES = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A folder with net.prototxt and solver.prototxt, the working directory of each test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def weights(solver):
    return solver.net.params["ip"][0].data.copy()


def test_training_step_by_step():
    solver = caffe.SGDSolver("solver.prototxt")
    assert solver.iter == 0 and solver.lr == 0.5 and solver.type == "SGD"
    assert isinstance(solver, caffe.Solver) and type(solver.net) is caffe.Net
    assert solver.net is solver.net and len(solver.test_nets) == 1
    assert solver.net.outputs == ["loss"] and solver.test_nets[0].outputs == ["accuracy", "loss"]
    losses = []
    for i in range(5):
        solver.step(1)
        assert solver.iter == i + 1
        losses.append(float(solver.net.blobs["loss"].data))
    assert losses[-1] < losses[0]
    assert solver.lr == pytest.approx(0.05)
    assert solver.param.max_iter == 6 and solver.param.snapshot_prefix == "snap"


@pytest.mark.parametrize("name", TYPES)
def test_each_class_insists_on_its_rule_whatever_the_file_says(name, files):
    extra = "momentum: 0.9 momentum2: 0.999 rms_decay: 0.9 delta: 1e-4"
    if name in ("AdaGrad", "RMSProp"):
        extra = extra.replace("momentum: 0.9 ", "")
    (files / "other.prototxt").write_text(SOLVER + extra + ' type: "SGD"')
    (files / "own.prototxt").write_text(SOLVER + extra + f' type: "{name}"')
    solvers = [getattr(caffe, f"{name}Solver")("other.prototxt"), caffe.get_solver("own.prototxt")]
    before = weights(solvers[0])
    for solver in solvers:
        assert solver.type == name
        solver.step(3)
    assert not np.array_equal(weights(solvers[0]), before)
    np.testing.assert_array_equal(weights(solvers[0]), weights(solvers[1]))


def test_the_six_rules_are_six():
    results = []
    for name in TYPES:
        solver = getattr(caffe, f"{name}Solver")("solver.prototxt")
        solver.step(3)
        results.append(weights(solver).tobytes())
    # Without momentum Nesterov's rule is plain SGD.
    assert len(set(results)) == 5 and results[0] == results[1]


def test_solve_tests_and_writes_a_snapshot_at_the_end(files):
    caffe.get_solver("solver.prototxt").solve()
    written = sorted(p.name for p in files.iterdir())
    assert written == [
        "net.prototxt", "snap_iter_6.caffemodel", "snap_iter_6.solverstate", "solver.prototxt",
    ]  # fmt: skip
    trained = caffe.Net("net.prototxt", "snap_iter_6.caffemodel", caffe.TEST)
    untrained = caffe.Net("net.prototxt", caffe.TEST)
    untrained.params["ip"][0].data[...] = 0
    assert trained.forward()["loss"] < untrained.forward()["loss"]


def test_snapshot_and_restore_go_on_as_if_nothing_had_happened(files):
    whole = caffe.SGDSolver("solver.prototxt")
    whole.step(6)
    first = caffe.SGDSolver("solver.prototxt")
    first.step(2)
    first.snapshot()
    for resume in (lambda s: s.restore(files / "snap_iter_2.solverstate"), None):
        second = caffe.SGDSolver("solver.prototxt")
        if resume:
            resume(second)
            assert second.iter == 2
            second.step(4)
        else:
            second.solve("snap_iter_2.solverstate")
        assert second.iter == 6
        np.testing.assert_array_equal(weights(second), weights(whole))


def test_an_update_by_hand():
    solver = caffe.SGDSolver("solver.prototxt")
    net, before = solver.net, weights(solver)
    net.layers[1].blobs[0].diff[...] = np.ones((3, 3))
    solver.apply_update()
    np.testing.assert_allclose(weights(solver), before - 0.5, rtol=1e-6)
    assert solver.iter == 1


def test_weights_changed_by_the_program_are_trained_on_and_tested_with():
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.params["ip"][0].data[...] = 7
    assert (solver.test_nets[0].params["ip"][0].data == 7).all()
    other = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(other)
    assert (other.params["ip"][0].data == 7).all()
    solver.step(1)
    np.testing.assert_array_equal(other.params["ip"][0].data, weights(solver))


def test_callbacks_of_solver_and_net():
    solver = caffe.SGDSolver("solver.prototxt")
    calls = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("ready"))
    solver.net.before_forward(lambda layer: calls.append(layer))
    before = weights(solver)

    def ready():
        np.testing.assert_array_equal(weights(solver), before)  # not yet updated
        assert solver.net.params["ip"][0].diff.any()

    solver.add_callback(lambda: None, ready)
    solver.step(1)
    assert calls == ["start", 0, 1, 2, "ready"]


def test_nets_outlive_their_solver():
    solver = caffe.SGDSolver("solver.prototxt")
    nets = [solver.net, *solver.test_nets]
    del solver
    for net in nets:
        assert np.isfinite(float(net.forward()["loss"]))
        assert all(np.isfinite(b.data).all() for b in net.params["ip"])


def test_the_programs_mode_counts_and_not_the_files(files):
    (files / "gpu.prototxt").write_text(SOLVER + "solver_mode: GPU")
    caffe.set_mode_cpu()
    caffe.SGDSolver("gpu.prototxt").step(1)


def test_files_as_paths_and_missing_ones(files):
    assert caffe.get_solver(files / "solver.prototxt").iter == 0
    with pytest.raises(RuntimeError, match=r"nowhere\.prototxt"):
        caffe.SGDSolver("nowhere.prototxt")
    (files / "bad.prototxt").write_text(SOLVER + 'type: "SDG"')
    with pytest.raises(SolverError, match="Did you mean 'SGD'"):
        caffe.get_solver("bad.prototxt")
    with pytest.raises(RuntimeError, match=r"nowhere\.solverstate"):
        caffe.SGDSolver("solver.prototxt").restore("nowhere.solverstate")


def test_log_lines_appear_unless_the_program_logs_itself(capfd, files):
    """In another process, because pytest's own handlers count as the program's logging."""
    import subprocess
    import sys

    program = "import caffe; {}; caffe.SGDSolver('solver.prototxt').solve()"
    (files / "solver.prototxt").write_text(SOLVER + "display: 2")
    for first, shown in (("pass", True), ("import logging; logging.basicConfig(level=40)", False)):
        subprocess.run([sys.executable, "-c", program.format(first)], check=True)
        err = capfd.readouterr().err
        assert ("Iteration 4" in err and "] Optimization Done." in err) == shown
