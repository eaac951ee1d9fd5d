"""Nets of one of the detector's layers, for tests of these."""

import json
from pathlib import Path

import numpy as np

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import TRAIN
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

GOLDEN = Path(__file__).parents[1] / "golden" / "frcnn"


def golden(name):
    """The arrays of one file of tests/golden/frcnn, by name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def settings_of(arrays, cls):
    """The settings that a reference case was computed with."""
    values = json.loads(str(arrays["cfg"]))
    return cls(**{k.split(".")[1]: v for k, v in values.items()})


def build(kind, bottoms, tops, param_str="", settings=(), phase=TRAIN, **options):
    """A net of Input layers that hold the arrays `bottoms`, and a layer of type `kind`.

    Args:
        kind: the layer's type, or for a Python layer (module, class).
        tops: how many; they are called top0, top1, ...
        settings: dataclass instances for the net's context.
        options: of `Net`, or `seed` and `more`, the text of further layers.
    """
    seed, more = options.pop("seed", 1), options.pop("more", "")
    text = ""
    for k, values in enumerate(bottoms):
        dims = " ".join(f"dim: {d}" for d in np.shape(values))
        text += f'layer {{ type: "Input" top: "in{k}" input_param {{ shape {{ {dims} }} }} }}\n'
    names = " ".join(f'bottom: "in{k}"' for k in range(len(bottoms)))
    names += " " + " ".join(f'top: "top{k}"' for k in range(tops))
    where = ""
    if isinstance(kind, tuple):
        where, kind = f'module: "{kind[0]}" layer: "{kind[1]}"', "Python"
    text += f'layer {{ name: "boxes" type: "{kind}" {names} python_param {{ {where} '
    text += f"param_str: {json.dumps(param_str)} }} }}\n{more}"
    param = parse_text(text, caffe_pb2.NetParameter, "net")
    net = Net(param, phase, context=Context(seed, settings), **options)
    fill(net, bottoms)
    return net


def fill(net, bottoms):
    """Put arrays, of whatever shapes, into the net's Input blobs."""
    for k, values in enumerate(bottoms):
        net.blobs[f"in{k}"].reshape(*np.shape(values))
        net.blobs[f"in{k}"].set_data(values)


def tops_of(net):
    """Copies of the tops' values."""
    return [blob.data.copy() for name, blob in net.blobs.items() if name.startswith("top")]


def run(*args, **options):
    """`build`, one forward pass, and the tops' values."""
    net = build(*args, **options)
    net.forward()
    return tops_of(net)


def gives_zero_gradients(net):
    """Whether the last layer, asked for the gradients of all its bottoms, gives zeros."""
    node = net.nodes[-1]
    for blob in node.bottoms:
        blob.grad[...] = np.nan
    for blob in node.tops:
        blob.grad[...] = 1
    node.layer.backward(node.tops, [True] * len(node.bottoms), node.bottoms)
    return all((blob.grad == 0).all() for blob in node.bottoms)
