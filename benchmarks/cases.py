"""What is measured: a network at a size, in a mode, with weights and inputs that follow from it.

Every side of a comparison builds a case for itself, in its own process, and gets the same numbers.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        network: a folder of prototxt/. last: the layer to stop after; None for the whole net.
        mode: "forward" (TEST), "backward" (forward and backward) or "train" (forward, backward
            and an update by SGD with momentum and weight decay).
        batch, height, width: of the input; height and width None for the network's own.
        dropout: False turns Dropout off, so that training can be compared number by number.
        dtype: "float64" for comparing gradients; only "float32" is measured.
        keep: as of `caffe.Net`; None for its default.
    """

    network: str
    mode: str = "forward"
    batch: int = 1
    height: int | None = None
    width: int | None = None
    last: str | None = None
    dropout: bool = True
    dtype: str = "float32"
    keep: str | None = None

    def label(self):
        """How the table calls it."""
        size = f" {self.height}x{self.width}" if self.height else ""
        return f"{self.network}{' to ' + self.last if self.last else ''}{size}"

    def workload(self):
        """The Workload of the case."""
        net = net_parameter(self)
        values = {name: array.astype(self.dtype) for name, array in inputs(net).items()}
        arrays = weight_arrays(net, self.mode == "train", self.dtype)
        return Workload(net, arrays, values, compared_blobs(net, self))


@dataclass
class Workload:
    """What a side that is not ours has to compute.

    Attributes:
        net: the NetParameter of the layers, filtered by phase.
        arrays: {layer name: its parameters as NumPy arrays}.
        inputs: {name: array} of the blobs that no layer of the net makes.
        compared: the names of the blobs whose values are compared after a forward pass.
    """

    net: object
    arrays: dict
    inputs: dict
    compared: list


MOMENTUM, DECAY, RATE = 0.9, 5e-4, 1e-6


def net_parameter(case):
    """The NetParameter of a case, filtered by phase, without fillers."""
    from demitasse import prototxt
    from demitasse.engine.graph import filter_net
    from demitasse.engine.proto import caffe_pb2
    from demitasse.engine.prototxt import read_net

    phase = caffe_pb2.TRAIN if case.mode == "train" else caffe_pb2.TEST
    net = filter_net(read_net(prototxt.path(case.network)), caffe_pb2.NetState(phase=phase))
    if case.last:
        names = [layer.name for layer in net.layer]
        del net.layer[names.index(case.last) + 1 :]
    if case.mode == "backward":
        net.layer[-1].loss_weight.append(1)
    for layer in net.layer:
        # Filters have done their work; what follows may be opened in any phase.
        del layer.include[:]
        for field in ("convolution_param", "inner_product_param"):
            if layer.HasField(field):
                getattr(layer, field).ClearField("weight_filler")
                getattr(layer, field).ClearField("bias_filler")
        if layer.type == "Dropout" and not case.dropout:
            layer.dropout_param.dropout_ratio = 0
        if layer.type == "Input":
            _set_size(layer, case)
    return net


def _set_size(layer, case):
    for shape in layer.input_param.shape:
        shape.dim[0] = case.batch
        if len(shape.dim) == 4 and case.height:
            shape.dim[2:] = [case.height, case.width]


def inputs(net):
    """Values for the input blobs of a NetParameter: images like mean-free ones, and labels."""
    rng = np.random.default_rng(1)
    values = {}
    for layer in net.layer:
        if layer.type != "Input":
            continue
        for name, shape in zip(layer.top, layer.input_param.shape):
            shape = tuple(shape.dim)
            if name == "label":
                values[name] = rng.integers(0, 1000, shape).astype(np.float32)
            else:
                values[name] = rng.standard_normal(shape, dtype=np.float32)
                values[name] *= 50
    return values


def fill(name, kind, k, array):
    """Write parameter `k` of the layer `name`, of type `kind`: activations keep their size."""
    if array.dtype != np.float32:
        single = np.empty(array.shape, np.float32)
        fill(name, kind, k, single)
        array[...] = single
        return
    if kind == "BatchNorm" and k == 2:
        array.fill(1)
        return
    rng = np.random.default_rng(crc32(f"{name} {k}".encode()))
    rng.standard_normal(out=array.reshape(-1), dtype=np.float32)
    if array.ndim > 1:
        scores = len(array) == 1000  # small ones: no probability shall be 0 or 1
        array *= np.float32(((1e-3 if scores else 2) / array[0].size) ** 0.5)
    else:
        array *= np.float32(0.1)
        if (kind == "BatchNorm" and k == 1) or (kind == "Scale" and k == 0):
            array += np.float32(1 if kind == "BatchNorm" else 0.5)


def fill_weights(params, kinds):
    """Write all parameters: {layer name: arrays}, {layer name: type}."""
    for name, arrays in params.items():
        for k, array in enumerate(arrays):
            fill(name, kinds[name], k, array)


def weight_arrays(param, training, dtype):
    """Layer name -> arrays of weights, in the shapes of a net that is built but never filled."""
    from demitasse.engine.net import Net
    from demitasse.engine.phase import TEST, TRAIN

    params = Net(param, TRAIN if training else TEST).params
    arrays = {name: [np.empty(b.shape, dtype) for b in blobs] for name, blobs in params.items()}
    fill_weights(arrays, {layer.name: layer.type for layer in param.layer})
    return arrays


def sample(array, count=1000):
    """About `count` elements of an array, evenly spread."""
    flat = array.reshape(-1)
    return np.array(flat[:: max(1, flat.size // count)], np.float32)


def compared_blobs(net, case):
    """Names of the blobs whose values the sides must agree on: scores and what comes of them."""
    last = net.layer[-1]
    return [*last.top, *([] if case.keep else last.bottom)]
