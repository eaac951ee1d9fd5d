"""Layers written in Python: what they are told and may do, and errors in them.

Those of this very module count as imported.
"""

import re

import numpy as np
import pytest
from python_nets import AFFINE, make_net

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers.python import PythonLayer

pytestmark = pytest.mark.usefixtures("no_python_layers_allowed")
HERE = __name__


def test_a_layer_with_parameters():
    net = make_net(*AFFINE, param_str="2.5,-1", head="force_backward: true")
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, 2.5 * x - 1, rtol=1e-6)
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 2.5)
    assert [b.shape for b in net.params["mine"]] == [(1,), (3,)]
    assert {b.dtype for b in net.params["mine"]} == {np.dtype(np.float32)}
    np.testing.assert_allclose(net.params["mine"][0].diff, x.sum(), rtol=1e-5)
    np.testing.assert_allclose(net.params["mine"][1].diff, 2)


def test_the_gradient_check_works_on_users_layers():
    module, layer = AFFINE
    check_gradients(
        f'type: "Python" python_param {{ module: "{module}" layer: "{layer}" param_str: "2,1" }}',
        [np.ones((2, 3))],
    )


class Facts(PythonLayer):
    """Notes what a layer is told."""

    def setup(self, bottom, top):
        self.seen = {
            "phase": self.phase, "str": str(self.phase), "type": self.type,
            "num": bottom[0].num, "channels": bottom[0].channels, "height": bottom[0].height,
            "count": bottom[0].count, "shape": list(bottom[0].shape), "tops": len(top),
        }  # fmt: skip
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.seen["data"] = bottom[0].data.shape, bottom[0].data.dtype, bottom[0].diff.shape


@pytest.mark.parametrize("phase", Phase)
def test_what_a_layer_is_told(phase):
    net = make_net(HERE, "Facts", phase=int(phase))
    net.forward()
    seen = net.nodes[1].layer.seen
    assert seen["phase"] == int(phase) and seen["str"] == phase.name
    assert (seen["num"], seen["channels"], seen["height"], seen["count"]) == (2, 3, 1, 6)
    assert seen["shape"] == [2, 3] and seen["tops"] == 1 and seen["type"] == "Python"
    assert seen["data"] == ((2, 3), np.float32, (2, 3))
    assert (net.phase, str(net.phase)) == (phase, phase.name)


def test_the_phase_of_the_layer_wins_over_that_of_the_net():
    net = make_net(HERE, "Facts", phase=Phase.TEST, more="phase: TRAIN")
    assert net.nodes[1].layer.seen["str"] == "TRAIN"


class Growing(PythonLayer):
    """Has no setup and no reshape: the size of its top is known in forward only."""

    def forward(self, bottom, top):
        rows = int(bottom[0].data[0, 0])
        top[0].reshape(rows, np.int64(3))
        top[0].data[...] = np.arange(rows * 3).reshape(rows, 3)


def test_a_top_reshaped_in_forward_reaches_later_layers():
    net = parse_text(
        f"""
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "g" type: "Python" bottom: "x" top: "y"
                 python_param {{ module: "{HERE}" layer: "Growing" }} }}
        layer {{ name: "r" type: "ReLU" bottom: "y" top: "z" }}
        """,
        caffe_pb2.NetParameter,
        "net",
    )
    net = Net(net, 1)
    for rows in (4, 2, 7):
        net.blobs["x"].data[...] = rows
        net.forward()
        assert (net.blobs["z"].data == np.arange(rows * 3).reshape(rows, 3)).all()


class Shapeless(PythonLayer):
    """Gives its top a shape neither in reshape nor in forward."""

    def forward(self, bottom, top):
        top[0].data[...] = 1


class Empty(PythonLayer):
    def forward(self, bottom, top):
        top[0].reshape(0)


def test_a_top_without_a_shape_is_an_error_where_it_is_used(caplog):
    message = r"'mine' \(Python\): .*a shape for top 0.*Call top\[0\]\.reshape"
    use = 'layer { name: "use" type: "ReLU" bottom: "y" top: "z" }'
    net = make_net(HERE, "Shapeless", tail=use)
    with pytest.raises(LayerError, match=message):
        net.forward()
    net = make_net(HERE, "Shapeless")
    net.forward()
    net.forward()
    assert len(caplog.records) == 1 and re.search(message, caplog.text)
    net = make_net(HERE, "Empty", tail=use)
    net.forward()
    assert net.blobs["z"].data.shape == (0,)


class NoForward(PythonLayer):
    pass


class NoBackward(PythonLayer):
    def forward(self, bottom, top):
        pass


class OldInit(PythonLayer):
    """Overrides __init__ with the one argument that Caffe gives."""

    def __init__(self, layer_param):
        super().__init__(layer_param)
        self.ready = True

    def setup(self, bottom, top):
        self.blobs.add_blob(2)


class ForgetfulInit(PythonLayer):
    def __init__(self, layer_param):
        pass


class FailingInit(PythonLayer):
    def __init__(self, layer_param):
        raise KeyError("rate")


def test_a_layer_without_forward():
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\): expected a method forward"):
        make_net(HERE, "NoForward").forward()


def test_a_layer_without_backward_is_missed_only_if_a_gradient_is_asked_for():
    net = make_net(HERE, "NoBackward")
    net.forward()
    net.backward()
    net = make_net(HERE, "NoBackward", head="force_backward: true")
    net.forward()
    with pytest.raises(LayerError, match=r"layer 'mine' .*a method backward.*propagate_down"):
        net.backward()


def test_constructors_of_users():
    net = make_net(HERE, "OldInit")
    assert net.nodes[1].layer.ready and net.params["mine"][0].shape == (2,)
    with pytest.raises(LayerError, match=r"layer 'mine' .*super\(\).__init__"):
        make_net(HERE, "ForgetfulInit")
    with pytest.raises(KeyError) as caught:
        make_net(HERE, "FailingInit")
    assert any("layer 'mine'" in note for note in caught.value.__notes__)


class Failing(PythonLayer):
    verb = "setup"

    def __getattribute__(self, name):
        if name == "verb" or name != type(self).verb:
            return super().__getattribute__(name)
        return lambda *args: 1 / 0


@pytest.mark.parametrize("verb", ["setup", "reshape", "forward", "backward"])
def test_errors_in_users_code_name_the_layer(verb, monkeypatch):
    monkeypatch.setattr(Failing, "verb", verb)
    monkeypatch.setattr(Failing, "forward", lambda *args: None)
    with pytest.raises(ZeroDivisionError) as caught:
        net = make_net(HERE, "Failing", head="force_backward: true")
        net.forward()
        net.backward()
    assert caught.value.__notes__ == [f"in {verb} of layer 'mine' (Python)"]


class BadShape(PythonLayer):
    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].num / 4, 1)


def test_errors_of_the_engine_in_users_code_name_the_layer():
    with pytest.raises(LayerError, match=r"layer 'mine' \(Python\): blob: .*integers.*0.5.*//"):
        make_net(HERE, "BadShape")
