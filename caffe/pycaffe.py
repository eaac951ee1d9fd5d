"""`caffe.Net`: pycaffe's interface to a net of the engine."""

import os
from collections import OrderedDict
from itertools import zip_longest

import numpy as np

from demitasse.engine import weights as weight_files
from demitasse.engine.context import Context
from demitasse.engine.errors import NetError
from demitasse.engine.net import Net as EngineNet
from demitasse.engine.prototxt import read_net
from demitasse.layers.memory_data import MemoryData

from . import batches


class Net:
    """A network of the given prototxt file.

    `Net(network_file, phase, level=0, stages=None, weights=None)`, or as in old programs
    `Net(network_file, weights_file, phase)`. With keep="minimal" (not in pycaffe) memory is reused
    as soon as possible, and reading a blob whose values are gone is an error.

    Attributes:
        blobs: blob name -> Blob, in order; params: layer name -> list of Blobs.
        inputs, outputs: names of the input blobs and of those nobody consumes.
        layers: the layer objects; layer_dict: the same by name.
        top_names, bottom_names: layer name -> names of its blobs.
    """

    def __init__(
        self, network_file, *args, phase=None, level=0, stages=None, weights=None, keep="all"
    ):
        network_file = os.fspath(network_file)
        if args and isinstance(args[0], (str, os.PathLike)):  # (model, weights, phase)
            weights, args = args[0], args[1:]
        if args:
            phase, *rest = args
            options = dict(zip(("level", "stages", "weights"), rest))
            level = options.get("level", level)
            stages = options.get("stages", stages)
            weights = options.get("weights", weights)
        if phase is None:
            raise NetError(
                "caffe.Net", "a phase", "none" if weights is None else f"only weights, {weights!r}",
                "Write caffe.Net(file, caffe.TEST), or caffe.Net(file, weights, caffe.TEST).",
            )  # fmt: skip
        context = Context(folder=os.path.dirname(os.path.abspath(network_file)))
        param = read_net(network_file)
        self._attach(EngineNet(param, phase, level or 0, stages or (), context, keep=keep))
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def _wrap(cls, engine_net):
        """The pycaffe interface to a net that exists already (a solver's)."""
        net = cls.__new__(cls)
        net._attach(engine_net)
        return net

    def _attach(self, engine_net):
        self._engine = engine_net
        self.name = engine_net.name  # which programs may change

    # ---- what is in it

    blobs = property(lambda self: self._engine.blobs, doc="Blob name -> Blob, in order.")
    params = property(lambda self: self._engine.params, doc="Layer name -> parameter Blobs.")
    inputs = property(lambda self: list(self._engine.inputs), doc="Names of the input blobs.")
    outputs = property(lambda self: list(self._engine.outputs), doc="Names of the output blobs.")
    _blobs = property(lambda self: list(self._engine.blob_list))
    _blob_names = property(lambda self: list(self._engine.blob_names))
    _layer_names = property(lambda self: [n.name for n in self._engine.nodes])
    _inputs = property(lambda self: list(self._engine.input_ids))
    _outputs = property(lambda self: list(self._engine.output_ids))

    @property
    def layers(self):
        """The layer objects in order; each has `type` and `blobs`."""
        return [n.layer for n in self._engine.nodes]

    @property
    def layer_dict(self):
        """Layer name -> layer object."""
        return OrderedDict((n.name, n.layer) for n in self._engine.nodes)

    @property
    def top_names(self):
        """Layer name -> names of the blobs it produces."""
        names = self._engine.blob_names
        return OrderedDict((n.name, [names[t] for t in n.top_ids]) for n in self._engine.nodes)

    @property
    def bottom_names(self):
        """Layer name -> names of the blobs it consumes."""
        names = self._engine.blob_names
        return OrderedDict((n.name, [names[b] for b in n.bottom_ids]) for n in self._engine.nodes)

    @property
    def blob_loss_weights(self):
        """Blob name -> its weight in the loss."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights))

    @property
    def _blob_loss_weights(self):
        weights = [0.0] * len(self._engine.blob_list)
        for node in self._engine.nodes:
            for top, weight in zip(node.top_ids, node.loss_weights):
                weights[top] = weight
        return weights

    def _bottom_ids(self, layer):
        return list(self._engine.nodes[layer].bottom_ids)

    def _top_ids(self, layer):
        return list(self._engine.nodes[layer].top_ids)

    # ---- running

    def _forward(self, start, end):
        return float(self._engine.forward(start, end))

    def _backward(self, start, end):
        return self._engine.backward(start, end)

    def forward(self, blobs=None, start=None, end=None, **kwargs):
        """Run forward and return {name: array} of the outputs and of the named `blobs`.

        Args:
            blobs: names of further blobs to return.
            start, end: names of the first and last layer to run; the tops of `end` are returned
                in place of the net's outputs.
            kwargs: input blob name -> values; either none or all inputs. The first dimension must
                be the blob's, the others may be of size 1, as in NumPy's assignments.
        """
        self._set("input", self.inputs, kwargs, "data")
        first = 0 if start is None else self._engine.layer_index(start)
        last = None if end is None else self._engine.layer_index(end)
        self._engine.forward(first, last)
        self._engine.check()
        names = self.outputs if end is None else self.top_names[end]
        return {name: self.blobs[name].data for name in [*names, *(blobs or [])]}

    def backward(self, diffs=None, start=None, end=None, **kwargs):
        """Run backward and return {name: gradient} of the inputs and of the named blobs.

        Args:
            diffs: names of further blobs whose gradients to return.
            start, end: names of the first (towards the loss) and last layer to run; the bottoms
                of `end` are returned in place of the net's inputs.
            kwargs: output blob name -> gradient; either none or all outputs.
        """
        self._set("output", self.outputs, kwargs, "diff")
        first = None if start is None else self._engine.layer_index(start)
        last = 0 if end is None else self._engine.layer_index(end)
        self._engine.backward(first, last)
        names = self.inputs if end is None else self.bottom_names[end]
        return {name: self.blobs[name].diff for name in [*names, *(diffs or [])]}

    def _set(self, kind, names, values, attribute):
        if not values:
            return
        if set(values) != set(names):
            raise NetError(
                f"net {self.name!r}", f"all {kind} blobs {sorted(names)} as arguments, or none",
                f"{sorted(values)}",
            )  # fmt: skip
        for name, array in values.items():
            target, array = getattr(self.blobs[name], attribute), np.asarray(array)
            try:
                if array.shape[:1] != target.shape[:1]:
                    raise ValueError("NumPy would copy one row to all of the batch")
                target[...] = array
            except ValueError:
                raise NetError(
                    f"{kind} blob {name!r}", f"shape {target.shape}", f"shape {array.shape}",
                    "Reshape the blob first: net.blobs[name].reshape(...); net.reshape().",
                ) from None  # fmt: skip

    def forward_all(self, blobs=None, **kwargs):
        """Run forward over any number of samples, in batches of the net's size.

        Args: as of `forward`, but the inputs may have any first dimension.
        Returns: {name: array} with one row a sample.
        """
        batches.check_rows(kwargs, "forward_all")
        values = batches.Collector()
        for batch in batches.cut(kwargs, self._batch_size()):
            values.add(self.forward(blobs=blobs, **batch))
        return values.first(len(next(iter(kwargs.values()))))

    def forward_backward_all(self, blobs=None, diffs=None, **kwargs):
        """Run forward and backward over any number of samples, in batches of the net's size.

        Args:
            blobs, diffs: names of further blobs whose values, whose gradients to return.
            kwargs: input blob name -> values, output blob name -> gradient.
        Returns: ({name: values}, {name: gradients}) with one row a sample.
        """
        batches.check_rows(kwargs, "forward_backward_all")
        size, forward, backward = self._batch_size(), {}, {}
        for name, array in kwargs.items():
            (backward if name in self.outputs else forward)[name] = array
        values, gradients = batches.Collector(), batches.Collector()
        pairs = zip_longest(batches.cut(forward, size), batches.cut(backward, size), fillvalue={})
        for inputs, tops in pairs:
            values.add(self.forward(blobs=blobs, **inputs))
            gradients.add(self.backward(diffs=diffs, **tops))
        count = len(next(iter(kwargs.values())))
        return values.first(count), gradients.first(count)

    def _batch_size(self):
        return next(iter(self.blobs.values())).shape[0]

    def reshape(self):
        """Carry new shapes of the input blobs through the net."""
        self._engine.reshape()

    def set_input_arrays(self, data, labels):
        """Set what the MemoryData layer, which must be the net's first, hands out.

        Args: data: (n, channels, height, width) float32; labels: (n,) or (n, 1, 1, 1) float32;
            n a multiple of the batch size.
        """
        layer = self.layers[0]
        if not isinstance(layer, MemoryData):
            raise NetError(
                "set_input_arrays", "a net whose first layer is of type MemoryData", layer.type
            )
        layer.reset(np.asarray(data), np.asarray(labels))

    _set_input_arrays = set_input_arrays

    def clear_param_diffs(self):
        """Set the gradients of all parameters to zero."""
        self._engine.clear_param_diffs()

    # ---- callbacks f(index of the layer)

    def before_forward(self, function):
        """Call `function(layer_index)` before each layer's forward."""
        self._engine.before_forward.append(function)

    def after_forward(self, function):
        """Call `function(layer_index)` after each layer's forward."""
        self._engine.after_forward.append(function)

    def before_backward(self, function):
        """Call `function(layer_index)` before each layer's backward."""
        self._engine.before_backward.append(function)

    def after_backward(self, function):
        """Call `function(layer_index)` after each layer's backward."""
        self._engine.after_backward.append(function)

    # ---- weights

    def copy_from(self, path):
        """Copy weights by layer name from a .caffemodel or .h5 file.

        Returns: a `CopyReport` of what was copied, what the file has and the net has not, and
            what the net has and the file has not.
        """
        return weight_files.copy_from(self._engine, os.fspath(path))

    def load_hdf5(self, path):
        """Copy weights from an HDF5 file (.caffemodel.h5), whatever it is called."""
        return weight_files.copy_from_hdf5(self._engine, os.fspath(path))

    def share_with(self, other):
        """Use the memory of `other`'s parameters for layers of the same name."""
        weight_files.share_with(self._engine, other._engine)

    def save(self, path):
        """Write the net with its weights to a .caffemodel file."""
        weight_files.save(self._engine, os.fspath(path))

    def save_hdf5(self, path, write_diff=False):
        """Write the weights to an HDF5 file (.caffemodel.h5)."""
        weight_files.save_hdf5(self._engine, os.fspath(path), write_diff)
