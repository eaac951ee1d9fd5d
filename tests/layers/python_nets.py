"""Nets of a layer written in Python, for tests of these."""

import textwrap

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers.python import PythonLayer


def make_net(
    module, layer, *, folder=None, param_str="", more="", phase=Phase.TEST, head="", tail=""
):  # fmt: skip
    text = f"""
        {head}
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "mine" type: "Python" bottom: "x" top: "y" {more}
                 python_param {{ module: "{module}" layer: "{layer}" param_str: "{param_str}" }} }}
        {tail}
        """
    context = Context(1, folder=None if folder is None else str(folder))
    return Net(parse_text(text, caffe_pb2.NetParameter, "net"), phase, context=context)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


MINE = """
    import caffe

    class Mine(caffe.Layer):
        def setup(self, bottom, top):
            pass

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].data.shape)

        def forward(self, bottom, top):
            top[0].data[...] = 2 * bottom[0].data
    """


class Affine(PythonLayer):
    """As users write them, with attributes named as they like."""

    def setup(self, bottom, top):
        self.param = self.device = self.dtype = self.context = None
        self.name = "overwritten"
        self.scale, self.shift = (float(v) for v in self.param_str.split(","))
        assert self.param_str_ == self.param_str
        self.blobs.add_blob(1)
        self.blobs.add_blob(*bottom[0].data.shape[1:])
        self.blobs[0].data[...] = self.scale

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.shift + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += top[0].diff.sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff


# Its module and class: this module counts as imported.
AFFINE = __name__, "Affine"
