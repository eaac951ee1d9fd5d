"""Published networks on a device and on the CPU: every value and every gradient of one pass."""

import numpy as np
import pytest

from demitasse import prototxt
from demitasse.engine.context import Context
from demitasse.engine.device import CPU, gpu_device
from demitasse.engine.net import Net
from demitasse.engine.precision import Precision
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import read_net

# Of rounding factors to 11 or 8 bits, layer after layer.
TOLERANCES = {"tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1}


def network_on(device, name, side, math="float32"):
    """A classifier in TEST, for one image of side x side."""
    param = read_net(prototxt.path(name))
    param.force_backward = True
    context = Context(seed=3, settings=[Precision(math)])
    net = Net(param, caffe_pb2.TEST, context=context, device=device)
    net.blobs["data"].reshape(1, 3, side, side)
    net.reshape()
    for node in net.nodes:
        if node.type == "BatchNorm":  # statistics as if something had been learnt
            for blob, value in zip(node.layer.blobs, (0, 1, 1)):
                blob.data[...] = value
    return net


def run(net):
    """One pass forward and backward of a drawn image; returns the scores and all that came out."""
    rng = np.random.default_rng(5)
    net.blobs["data"].data[...] = rng.standard_normal(net.blobs["data"].shape) * 50
    net.forward()
    (prob,) = (net.blobs[name] for name in net.outputs)
    prob.diff[...] = rng.standard_normal(prob.shape)
    net.clear_param_diffs()
    net.backward()
    found = {f"{name}, values": blob.data.copy() for name, blob in net.blobs.items()}
    found |= {f"{name}, gradient": blob.diff.copy() for name, blob in net.blobs.items()}
    for name, blobs in net.params.items():
        found |= {f"{name} {k}, gradient": blob.diff.copy() for k, blob in enumerate(blobs)}
    return prob.data.copy(), found


def off(found, expected):
    """The largest difference, relative to the largest number."""
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)


def compare(device, name, side):
    (_, expected), (_, found) = (run(network_on(d, name, side)) for d in (CPU, device))
    wrong = {key: error for key in expected if (error := off(found[key], expected[key])) > 1e-3}
    assert not wrong


def test_squeezenet_is_computed_as_on_the_cpu(place):
    compare(place.device, "squeezenet", 67)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "side"), [("zf", 224), ("resnet50", 128), ("vgg16", 224), ("googlenet", 224)]
)
def test_networks_are_computed_as_on_the_cpu(name, side):
    compare(gpu_device(0), name, side)


@pytest.mark.parametrize("math", TOLERANCES)
def test_scores_in_lower_precision(place, math):
    exact, _ = run(network_on(CPU, "squeezenet", 67))
    scores, _ = run(network_on(place.device, "squeezenet", 67, math))
    assert 0 < off(scores, exact) < TOLERANCES[math]
