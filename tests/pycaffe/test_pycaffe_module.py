"""What `import caffe` gives beside nets and solvers."""

import copy
import importlib
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from demitasse.engine.device import gpu_count

NET = """
input: "x" input_shape { dim: 2 dim: 3 }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" }
"""
# All that pycaffe 1.0's __init__ has.
NAMES = """
    Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL
    Timer init_log log set_mode_cpu set_mode_gpu set_device Layer get_solver layer_type_list
    set_random_seed solver_count set_solver_count solver_rank set_solver_rank set_multiprocess
    has_nccl __version__ TRAIN TEST Classifier Detector io layers params NetSpec to_proto"""


def run(program):
    """The output of a program in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_every_name_of_pycaffe_is_there():
    names = NAMES.split()
    assert not [name for name in names if not hasattr(caffe, name)]
    assert set(names) <= set(caffe.__all__)
    assert caffe.__version__ == "1.0.0"
    assert not [name for name in caffe._caffe.__all__ if not hasattr(caffe._caffe, name)]


def test_phases_are_numbers():
    assert (caffe.TRAIN, caffe.TEST) == (0, 1) == (caffe.proto.caffe_pb2.TRAIN, 1)
    assert [str(p) for p in (caffe.TRAIN, caffe.TEST)] == ["TRAIN", "TEST"]


def test_layer_types():
    types = list(caffe.layer_type_list())
    assert {"Data", "Convolution", "InnerProduct", "Python", "ROIPooling"} <= set(types)


# ---- messages


def test_every_form_of_importing_the_messages():
    from caffe.proto import caffe_pb2
    from caffe.proto.caffe_pb2 import TEST, NetParameter

    module = importlib.import_module("caffe.proto.caffe_pb2")
    assert caffe_pb2 is caffe.proto.caffe_pb2 is module is caffe.io.caffe_pb2
    assert caffe_pb2.NetParameter is NetParameter and TEST == 1
    assert caffe_pb2.V1LayerParameter.CONVOLUTION == 4
    assert caffe_pb2.SolverParameter.SolverMode.Name(caffe_pb2.SolverParameter.GPU) == "GPU"
    out, _ = run(
        "import caffe.proto.caffe_pb2 as pb; import google.protobuf as g; "
        "p = pb.SolverParameter(); g.text_format.Merge('base_lr: 2', p); print(p.base_lr)"
    )  # fast-rcnn counts on caffe to have loaded text_format
    assert out == "2.0\n"


def test_messages_can_be_copied_pickled_and_printed():
    net = caffe.proto.caffe_pb2.NetParameter()
    text_format.Merge(NET, net)
    assert [layer.name for layer in net.layer] == ["ip", "drop"]
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin == net and twin is not net
        twin.layer[0].inner_product_param.num_output = 9
        assert net.layer[0].inner_product_param.num_output == 3
    assert text_format.Parse(str(net), caffe.proto.caffe_pb2.NetParameter()) == net
    layer = pickle.loads(pickle.dumps(net.layer[1]))
    assert layer.type == "Dropout" and not layer.HasField("dropout_param")


# ---- settings of the process


def test_a_seed_makes_nets_repeat_each_other(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)

    def values(seed):
        caffe.set_random_seed(seed)
        net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
        out = [net.forward(x=np.ones((2, 3)))["drop"].copy() for _ in range(3)]
        return net.params["ip"][0].data, out

    try:
        (w, out), (w2, out2), (w3, _) = values(5), values(5), values(6)
        free, free2 = values(None), values(None)
    finally:
        caffe.set_random_seed(None)
    np.testing.assert_array_equal(w, w2)
    np.testing.assert_array_equal(out, out2)
    assert not np.array_equal(w, w3) and not np.array_equal(free[0], free2[0])
    assert any(not np.array_equal(a, out[0]) for a in out[1:])  # Dropout drops anew each time


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_gpu_mode_without_a_gpu_says_what_to_do(tmp_path):
    for choose in (lambda: caffe.set_device(1), caffe.set_mode_gpu):
        with pytest.raises(RuntimeError, match=r"GPU [01]: expected .*set_mode_cpu"):
            choose()
    caffe.set_mode_cpu()
    (tmp_path / "net.prototxt").write_text(NET)
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).forward()


@pytest.mark.parametrize("index", [-1, 0.5])
def test_a_gpu_that_there_cannot_be(index):
    with pytest.raises(RuntimeError, match=f"set_device: .*found {index}"):
        caffe.set_device(index)


def test_one_device_and_one_solver():
    """As of a Caffe that was built without NCCL, which says so by `has_nccl`."""
    assert caffe.has_nccl() is False
    assert caffe.solver_count() == 1 and caffe.solver_rank() == 0
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    for call in (
        lambda: caffe.set_solver_count(2),
        lambda: caffe.set_solver_rank(1),
        lambda: caffe.NCCL.new_uid(),
        lambda: caffe.NCCL(None, b""),
    ):
        with pytest.raises(RuntimeError, match=r"one device \(caffe\.has_nccl\(\) is False\)"):
            call()


# ---- logging and time


def test_log_lines_go_to_stderr_in_glogs_form():
    glog = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.cpp:\d+\] hello\n"
    out, err = run("import caffe; caffe.init_log(); caffe.log('hello')")
    assert out == "" and re.fullmatch(glog, err)
    for quiet in ("caffe.init_log(2); caffe.log('hello')", "caffe.log('hello')"):
        assert run(f"import caffe; {quiet}") == ("", "")


def test_timer():
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    time.sleep(0.02)
    assert 15 < timer.ms < 5000
    timer.stop()
    stopped = timer.ms
    time.sleep(0.01)
    assert timer.ms == stopped >= 15
    timer.start()
    timer.stop()
    assert timer.ms < stopped
