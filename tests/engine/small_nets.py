"""Small nets built from text, for the tests of `Net`."""

import numpy as np

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


def layer(name, kind, bottoms="", tops="", more=""):
    """One layer; bottoms and tops as words."""
    bottoms = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    tops = " ".join(f'top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {more} }}\n'


def inputs(tops="x", shape=(2, 3), name="in"):
    dims = " ".join(f"dim: {d}" for d in shape)
    return layer(name, "Input", "", tops, f"input_param {{ shape {{ {dims} }} }}")


def ip(name, bottom, top, outputs=3, more="", kind='type: "gaussian" std: 0.5'):
    param = f"inner_product_param {{ num_output: {outputs} weight_filler {{ {kind} }} }}"
    return layer(name, "InnerProduct", bottom, top, f"{param} {more}")


def build(text, phase=TEST, seed=1, **options):
    param = parse_text(text, caffe_pb2.NetParameter, "net.prototxt")
    return Net(param, phase, context=Context(seed), **options)


def randomise(net, names=("x",), seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)


LEARNER = inputs("x t") + ip("a", "x", "h", 4) + layer("r", "ReLU", "h", "h")
LEARNER += ip("b", "h", "y") + layer("l", "EuclideanLoss", "y t", "loss")
# Two layers; %s is what may name their parameters.
TWO = inputs("x t") + ip("a", "x", "h", more="%s") + ip("b", "h", "y", more="%s")
TWO += layer("l", "EuclideanLoss", "y t", "loss")
