"""The net: layers and blobs, built from a NetParameter, run forward and backward."""

import logging

import numpy as np

from . import graph, passes
from .blob import Blob
from .by_name import ByName
from .context import Context
from .device import default_device
from .errors import LayerError, NetError, closest
from .layer import layer_class
from .memory import GradientPlan, ValuePlan, check_keep
from .node import (
    Node,
    check_bottoms_kept,
    check_counts,
    hold_bottoms,
    loss_weights,
    mark_fusable,
    mark_written_on_host,
    share_identities,
)
from .parameters import collect_parameters
from .phase import Phase
from .precision import Precision, use
from .proto import caffe_pb2

log = logging.getLogger("demitasse.net")


class Net:
    """A network that runs.

    Attributes:
        name: the net's name; phase: caffe.TRAIN or caffe.TEST.
        nodes: the layers in order, as `Node`s.
        blobs: blob name -> Blob, in order; blob_list, blob_names: the same as lists.
        inputs, outputs: names of the net's input blobs (as declared) and of those that no layer
            consumes (sorted).
        params: layer name -> list of parameter Blobs, for layers that have any.
        parameters: every `Parameter`, shared ones too; learnable: the owners.
        memory: the plan that gives memory back (see `memory`); None with keep="all".
    """

    def __init__(
        self, param, phase=None, level=None, stages=(), context=None, device=None, dtype=np.float32,
        keep="all", kept=(),
    ):  # fmt: skip
        """Build a net.

        Args:
            param: a NetParameter (see `prototxt.read_net`), left as it is.
            phase, level, stages: the state that include and exclude rules are asked about; phase
                and level overwrite those in `param`, stages are added.
            context: a `Context` for the layers; a new one by default.
            device: where to compute; the default device if not given.
            dtype: float32, or float64 for gradient checks.
            keep: "all", so that every blob can be read after a pass, or "minimal": a TEST net
                reuses the memory of values, a TRAIN net that of gradients, once nobody needs them.
            kept: names of blobs that stay with keep="minimal", beside inputs and outputs.

        Raises:
            NetError, LayerError: with the layer's name, what was expected, found, and what to do.
        """
        check_keep(keep)
        state = graph.net_state(param, phase, level, stages)
        self.context = context or Context()
        self.device = device or default_device()
        self.device.activate()
        self.dtype = np.dtype(dtype)
        self.phase = Phase(state.phase)
        self.name = param.name
        self.debug_info = param.debug_info
        self.before_forward, self.after_forward = [], []  # callbacks f(layer index)
        self.before_backward, self.after_backward = [], []
        self.after_gradients = []  # as after_backward, but they do not keep layers from being fused
        self.passes = 0  # forward passes over the whole net so far

        param = graph.insert_splits(graph.filter_net(param, state))
        param.state.CopyFrom(state)
        for layer in param.layer:
            if not layer.HasField("phase"):
                layer.phase = state.phase
        wiring = graph.wire(param)
        self._make_blobs(wiring)
        self.nodes = []
        for i, layer_param in enumerate(param.layer):
            self.nodes.append(self._make_node(layer_param, wiring, i))
        layers = [node.layer for node in self.nodes]
        self.parameters = collect_parameters(param.layer, layers)
        self.learnable = [p for p in self.parameters if p.owner is None]
        self.params = ByName(
            "layer with parameters", ((n.name, n.layer.blobs) for n in self.nodes if n.layer.blobs)
        )
        self._plan_backward(param, wiring, layers)
        kept_ids = self._kept_ids(kept)
        share_identities(self.nodes, self.blob_list)
        hold_bottoms(self.nodes, self.blob_list, kept_ids)
        mark_fusable(self.nodes)
        mark_written_on_host(self.nodes)
        self.memory = self._plan_memory(kept_ids) if keep == "minimal" else None

    # ---- building

    def _make_blobs(self, wiring):
        self.blob_names = list(wiring.blob_names)
        self.blob_list = [Blob((0,), self.dtype, self.device) for _ in self.blob_names]
        self.blobs = ByName("blob", zip(self.blob_names, self.blob_list))
        self.input_ids, self.output_ids = wiring.inputs, wiring.outputs
        self.inputs = [self.blob_names[i] for i in wiring.inputs]
        self.outputs = [self.blob_names[i] for i in wiring.outputs]

    def _make_node(self, param, wiring, i):
        cls = layer_class(param.type, graph.layer_where(param))
        layer = cls.create(param, self.context, self.device, self.dtype)
        namesakes = sum(node.name == param.name for node in self.nodes)
        if namesakes:  # which must not draw the same numbers
            layer._stream = f"{param.name} (#{namesakes})"
        bottom_ids, top_ids = wiring.bottoms[i], wiring.tops[i]
        self._add_automatic_tops(layer, top_ids)
        node = Node(
            param, param.name, param.type, layer,
            [self.blob_list[b] for b in bottom_ids], [self.blob_list[t] for t in top_ids],
            bottom_ids, top_ids, [0.0] * len(top_ids),
        )  # fmt: skip
        check_counts(node)
        given = [b.shape for b in node.bottoms]
        passes.run(node, "setup", layer.setup, node.bottoms, node.tops)
        passes.run(node, "reshape", layer.reshape, node.bottoms, node.tops)
        check_bottoms_kept(node, given)
        node.loss_weights = loss_weights(param, layer, len(top_ids))
        for top, weight in zip(node.tops, node.loss_weights):
            if weight:
                # A loss's gradient with respect to itself is its weight, for good.
                top.fill_diff(lambda flat, w=weight: flat.fill(w))
        for top in node.tops:
            log.debug("%s: top shape %s", param.name, top.shape)
        return node

    def _add_automatic_tops(self, layer, top_ids):
        needed = max(layer.num_top or 0, layer.min_top or 0) if layer.auto_top else 0
        while len(top_ids) < needed:
            top_ids.append(len(self.blob_list))
            self.blob_names.append("(automatic)")
            self.blob_list.append(Blob((0,), self.dtype, self.device))
            self.blobs["(automatic)"] = self.blob_list[-1]

    def _plan_backward(self, param, wiring, layers):
        losses = [node.loss_weights for node in self.nodes]
        wiring.blob_names = self.blob_names  # with the automatic tops
        plan = graph.plan_backward(param, wiring, layers, losses)
        for i, node in enumerate(self.nodes):
            node.needs_backward = node.layer.needs_backward = plan.layers[i]
            node.propagate_down = plan.bottoms[i]
            node.layer.param_propagate_down[:] = [
                param.force_backward or graph.lr_mult(node.param, k) != 0
                for k in range(len(node.layer.blobs))
            ]

    def _kept_ids(self, kept):
        blobs = {id(self.blobs[name]) for name in kept}
        named = {i for i, blob in enumerate(self.blob_list) if id(blob) in blobs}
        return named.union(self.input_ids, self.output_ids)

    def _plan_memory(self, kept_ids):
        plan = GradientPlan if self.phase == Phase.TRAIN else ValuePlan
        return plan(self.nodes, kept_ids, self.device)

    # ---- running

    def forward(self, start=0, end=None):
        """Run layers `start` to `end` (indices, both included) and return the weighted loss.

        It is a number, or on a GPU an array of it on the device, on which `float` waits.
        """
        end = len(self.nodes) - 1 if end is None else end
        self._check_range(start, end)
        self._begin()
        return passes.forward(self, start, end)

    def backward(self, start=None, end=0):
        """Run layers `start` down to `end` (indices, both included) backward."""
        start = len(self.nodes) - 1 if start is None else start
        self._check_range(start, end)
        self._begin()
        if self.phase == Phase.TEST and self.memory and self.memory.any_gone:
            raise NetError(
                f"net {self.name!r}, backward",
                "values that are still there",
                'a TEST net opened with keep="minimal", which reuses their memory',
                'open it with keep="all", or in TRAIN',
            )
        passes.backward(self, start, end)

    def _begin(self):
        """Before layers run: where they compute, and how precisely."""
        if not self.device.is_host:
            self.device.activate()
            use(self.context.get(Precision))

    def _check_range(self, *indices):
        count = len(self.nodes)
        if count and not all(0 <= i < count for i in indices):
            where = f"net {self.name!r}"
            raise NetError(where, f"indices of layers from 0 to {count - 1}", f"{indices}")

    def reshape(self):
        """Carry new input shapes through all layers, computing nothing."""
        self.device.activate()
        for node in self.nodes:
            passes.run(node, "reshape", node.layer.reshape, node.bottoms, node.tops)

    def clear_param_diffs(self, at_once=True):
        """Set the gradients of all parameters to zero.

        Args: at_once: otherwise what the next backward pass overwrites anyway is left as it is,
            and arrays that somebody keeps are zero only after `diff` was asked for again.
        """
        for p in self.learnable:
            if p.blob.has_grad:
                p.blob.clear_grad()
                if at_once:
                    p.blob.grad  # noqa: B018

    def check(self):
        """Raise the error of the first layer that has met wrong numbers since this was last asked.

        On a GPU this waits, once. On the CPU layers have raised at once.
        """
        if self.device.is_host:
            return
        doubts = [(node, node.layer._doubt) for node in self.nodes]
        doubts = [(node, doubt) for node, doubt in doubts if doubt is not None]
        if not doubts:
            return
        answers = self.device.to_host(self.device.xp.stack([doubt[0] for _, doubt in doubts]))
        for node, _ in doubts:
            node.layer._doubt = None
        for (node, (_, expected, hint)), wrong in zip(doubts, answers.tolist()):
            if wrong:
                raise LayerError(
                    graph.layer_where(node.param), expected,
                    "others, in a pass since numbers were last read",
                    f"{hint} On the CPU the message is more exact.".strip(),
                )  # fmt: skip

    def seek(self, passes):
        """Continue as after `passes` forward passes: random numbers and data follow from it."""
        self.passes = passes
        for node in self.nodes:
            if hasattr(node.layer, "seek"):
                node.layer.seek(passes)

    # ---- looking things up

    def layer_index(self, name):
        """The index of the (last) layer called `name`."""
        names = [node.name for node in self.nodes]
        if name not in names:
            where = f"net {self.name!r}"
            raise NetError(where, "a layer name", repr(name), closest(name, names))
        return len(names) - 1 - names[::-1].index(name)

    def to_proto(self):
        """A NetParameter of the net as built: filtered, with splits, without weights."""
        net = caffe_pb2.NetParameter(name=self.name)
        for node in self.nodes:
            layer = net.layer.add()
            layer.CopyFrom(node.param)
            del layer.blobs[:]
        return net
