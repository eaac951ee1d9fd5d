"""Python layers written for pycaffe, in a caffe.Net."""

import numpy as np
import pytest

import caffe


class Scale(caffe.Layer):
    """Multiplies by a parameter and by a number in param_str."""

    def __init__(self, param, *args, **kwargs):
        super().__init__(param, *args, **kwargs)
        self.calls = []

    def setup(self, bottom, top):
        self.by = eval(self.param_str)["by"]
        assert self.param_str_ == self.param_str and self.phase in (caffe.TRAIN, caffe.TEST)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 1
        self.param = self.name = self.device = self.random = "names that users take"

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].data[...] = self.by * self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.calls.append(list(propagate_down))
        self.blobs[0].diff[0] += self.by * (top[0].diff * bottom[0].data).sum()
        bottom[0].diff[...] = self.by * self.blobs[0].data[0] * top[0].diff


def test_a_python_layer_learns_and_is_reached_through_the_net(write, tmp_path):
    text = f"""force_backward: true input: "x" input_shape {{ dim: 2 dim: 3 }}
    layer {{ name: "py" type: "Python" bottom: "x" top: "y"
        python_param {{ module: "{__name__}" layer: "Scale" param_str: "{{'by': 3}}" }} }}
    layer {{ name: "sum" type: "Reduction" bottom: "y" top: "sum" loss_weight: 1 }}"""
    net = caffe.Net(write(text), caffe.TRAIN)
    assert net.forward(x=np.ones((2, 3)))["sum"] == 18
    net.backward()
    assert (net.blobs["x"].diff == 3).all() and net.params["py"][0].diff[0] == 18
    assert type(net.params["py"]) is caffe._caffe.BlobVec
    assert net.layers[1].calls == ["forward", [True]]
    net.params["py"][0].data[...] = 2
    net.save(str(tmp_path / "w.caffemodel"))
    again = caffe.Net(write(text), str(tmp_path / "w.caffemodel"), caffe.TEST)
    assert again.forward(x=np.ones((2, 3)))["sum"] == 36


def test_an_exception_in_a_python_layer_comes_through(write, monkeypatch):
    def setup(self, bottom, top):
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(Scale, "setup", setup)
    text = f"""input: "x" input_shape {{ dim: 1 }} layer {{ name: "py" type: "Python" bottom: "x"
        top: "y" python_param {{ module: "{__name__}" layer: "Scale" }} }}"""
    with pytest.raises(ZeroDivisionError, match="mine"):
        caffe.Net(write(text), caffe.TEST)
