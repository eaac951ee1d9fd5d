"""Plans: what cuDNN is to compute, described by shapes and strides, and how it will do so.

Which plan is taken is what cuDNN's heuristics rank first of those that are deterministic, keep to
the precision asked for and need no more than WORKSPACE bytes: a function of the description, the
kind of GPU and the version of cuDNN. Nothing is tried out.
"""

import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

from .pointers import address

log = logging.getLogger("demitasse.device")

WORKSPACE = int(os.environ.get("DEMITASSE_CUDNN_WORKSPACE", 1 << 30))  # bytes of a plan, at most
X, W, Y, BIAS = 1, 2, 3, 4  # numbers (uid) of a graph's tensors


@dataclass(frozen=True)
class Tensor:
    """Sizes and strides (in elements) of an array, images and channels first in both."""

    dim: tuple
    stride: tuple


def channels_first(dim):
    """A tensor in C order."""
    strides, step = [], 1
    for size in reversed(dim):
        strides.insert(0, step)
        step *= size
    return Tensor(tuple(dim), tuple(strides))


def channels_last(dim):
    """A tensor whose channels are neighbours in memory."""
    images, channels, *size = dim
    inner = channels_first((images, *size, channels)).stride
    return Tensor(tuple(dim), (inner[0], inner[-1], *inner[1:-1]))


@dataclass(frozen=True)
class Recipe:
    """One computation.

    Attributes:
        kind: "forward", "data" or "weight": y from x and w, x from y and w, or w from x and y.
        x, w, y: the `Tensor`s; w is (outputs, channels / group, *window).
        pad, stride, dilation: tuples, an entry for each spatial axis.
        dtype: "float32", "float16" or "bfloat16", of all tensors; sums are in float32.
        exact: whether float32 products are computed without rounding factors, and without
            transforms that round differently from a plain sum of products.
        bias, relu: what is done to the result in the same graph (forward only).
    """

    kind: str
    x: Tensor
    w: Tensor
    y: Tensor
    pad: tuple
    stride: tuple
    dilation: tuple
    dtype: str
    exact: bool
    bias: bool = False
    relu: bool = False


class Plan:
    """How cuDNN computes a `Recipe`.

    Attributes:
        name: what cuDNN calls it. workspace: bytes that it needs while it runs.
    """

    def __init__(self, library, graph, name):
        self._library, self._graph = library, graph
        self.name = name
        self.workspace = graph.get_workspace_size()

    def run(self, addresses):
        """Compute, with the addresses of the tensors by their numbers."""
        memory = self._library.xp.empty(max(self.workspace, 1), "uint8")
        handle = self._library.handle()
        self._graph.execute(addresses, address(memory), handle=handle)


class Plans:
    """The plans that were used last, at most `capacity`; None stands for what has no plan."""

    def __init__(self, capacity=4096):
        self.capacity = capacity
        self._plans = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._plans)

    def get(self, library, recipe):
        """The plan for a recipe, or None if cuDNN has none within the conditions."""
        key = library, recipe
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
            plan = self._plans[key] = build(library, recipe)
            while len(self._plans) > self.capacity:
                self._plans.popitem(last=False)
            return plan


plans = Plans()


def build(library, recipe):
    """A new `Plan`, or None if cuDNN has none."""
    frontend = library.frontend
    graph = make_graph(library, recipe)
    declined = (frontend.cudnnGraphNotSupportedError, RuntimeError)
    try:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([frontend.heur_mode.A, frontend.heur_mode.FALLBACK])
    except declined as error:
        log.debug("cuDNN has no plan for %s: %s", recipe, error)
        return None
    graph.deselect_numeric_notes(_unwanted(frontend.numerical_note, recipe))
    graph.deselect_workspace_greater_than(WORKSPACE)
    for k in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(k)  # an error for what is deselected, too
        except declined as error:
            log.debug("cuDNN's plan %d for %s: %s", k, recipe, error)
            continue
        plan = Plan(library, graph, graph.get_plan_name_at_index(k))
        if plan.workspace <= WORKSPACE:
            return plan
    return None


def _unwanted(note, recipe):
    """What engines may not do."""
    unwanted = [note.NONDETERMINISTIC, note.DOWN_CONVERT_INPUTS, note.REDUCED_PRECISION_REDUCTION]
    if recipe.exact:
        unwanted += [
            note.TENSOR_CORE, note.FFT, note.WINOGRAD, note.WINOGRAD_TILE_4x4,
            note.WINOGRAD_TILE_6x6, note.WINOGRAD_TILE_13x13,
        ]  # fmt: skip
    return unwanted


def make_graph(library, recipe):
    """The frontend's graph of a recipe, not yet validated."""
    r, kinds = recipe, library.frontend.data_type
    kind = {"float32": kinds.FLOAT, "float16": kinds.HALF, "bfloat16": kinds.BFLOAT16}[r.dtype]
    graph = library.frontend.pygraph(
        name="convolution", io_data_type=kind, intermediate_data_type=kinds.FLOAT,
        compute_data_type=kinds.FLOAT, **library.options(),
    )  # fmt: skip

    def given(uid, name, tensor):
        return graph.tensor(
            dim=list(tensor.dim), stride=list(tensor.stride), data_type=kind, name=name, uid=uid
        )

    window = {"padding": list(r.pad), "stride": list(r.stride), "dilation": list(r.dilation)}
    if r.kind == "forward":
        result, uid, tensor = _forward(graph, r, given, window), Y, r.y
    elif r.kind == "data":
        result = graph.conv_dgrad(given(Y, "dy", r.y), given(W, "w", r.w), name="dx", **window)
        uid, tensor = X, r.x
    else:
        result = graph.conv_wgrad(given(X, "x", r.x), given(Y, "dy", r.y), name="dw", **window)
        uid, tensor = W, r.w
    result.set_output(True).set_dim(list(tensor.dim)).set_stride(list(tensor.stride))
    result.set_data_type(kind).set_uid(uid)
    return graph


def _forward(graph, r, given, window):
    result = graph.conv_fprop(given(X, "x", r.x), given(W, "w", r.w), name="conv", **window)
    if r.bias:
        ones = (1,) * (len(r.y.dim) - 2)
        bias = given(BIAS, "bias", channels_last((1, r.y.dim[1], *ones)))
        result = graph.bias(result, bias, name="bias")
    if r.relu:
        result = graph.relu(result, name="relu")
    return result
