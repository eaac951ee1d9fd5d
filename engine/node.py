"""A layer's place in its net, and the checks that a net makes of each layer."""

from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from . import graph
from .errors import DemitasseError, LayerError, NetError
from .layer import Layer


@dataclass(slots=True)
class Node:
    """One layer in its net.

    The net keeps its own record of everything it needs, because a user's Python layer may
    overwrite any attribute of itself.
    """

    param: object  # LayerParameter
    name: str
    type: str
    layer: Layer
    bottoms: list  # of Blob
    tops: list
    bottom_ids: list  # indices into Net.blob_list
    top_ids: list
    loss_weights: list  # one a top
    needs_backward: bool = False
    propagate_down: list = ()
    fused: int = 0  # how many of the next nodes, all in place, this one can compute too
    forward_fused: object = None  # what does it, f(bottoms, tops)
    relu_before: int = -1  # index of the ReLU whose gradient this one can compute too; -1 for none


def name_layer(error, node, verb):
    """Have an error say which layer it comes from, unless it does already."""
    where = graph.layer_where(node.param)
    if isinstance(error, NetError) and not isinstance(error, LayerError):
        raise LayerError(f"{where}: {error}") from error
    if not isinstance(error, DemitasseError):
        error.add_note(f"in {verb} of {where}")


def check_counts(node):
    """Raise LayerError unless a layer has the numbers of bottoms and tops that it declares."""
    layer = node.layer
    for kind, count in (("bottom", len(node.bottoms)), ("top", len(node.tops))):
        exact, least, most = (getattr(layer, f"{p}_{kind}") for p in ("num", "min", "max"))
        expected = None
        if exact is not None and count != exact:
            expected = f"{exact}"
        elif least is not None and count < least:
            expected = f"at least {least}"
        elif most is not None and count > most:
            expected = f"at most {most}"
        if expected:
            raise LayerError(
                graph.layer_where(node.param), f"{expected} {kind} blob(s)", f"{count}",
                f"Correct the `{kind}:` lines of this layer.",
            )  # fmt: skip
    if not layer.in_place and set(node.top_ids).intersection(node.bottom_ids):
        raise LayerError(
            graph.layer_where(node.param), "other blobs as tops than as bottoms",
            "one that is both",
            "This type does not compute in place: give the top a name of its own.",
        )  # fmt: skip
    if layer.equal_counts and len(node.bottoms) != len(node.tops):
        raise LayerError(
            graph.layer_where(node.param), "as many tops as bottoms",
            f"{len(node.bottoms)} bottoms and {len(node.tops)} tops",
        )  # fmt: skip


def check_bottoms_kept(node, shapes):
    """Raise LayerError if a layer, computing in place, has changed the shape of a bottom."""
    for bottom, shape in zip(node.bottoms, shapes):
        if bottom.shape != shape:
            raise LayerError(
                graph.layer_where(node.param), f"shape {shape} of a bottom to stay as it is",
                f"{bottom.shape}, because a top is the same blob",
                "Give the top a name of its own.",
            )  # fmt: skip


def loss_weights(param, layer, num_tops):
    """The weight of each top in the net's loss."""
    given = list(param.loss_weight)
    if not given:
        return [1.0 if layer.is_loss and k == 0 else 0.0 for k in range(num_tops)]
    if len(given) != num_tops:
        raise LayerError(
            graph.layer_where(param), f"no loss_weight or one for each of {num_tops} tops",
            f"{len(given)}",
        )  # fmt: skip
    return given


def mark_fusable(nodes):
    """Set `fused` and `relu_before` where a layer can do the work of others in place too.

    Forward they are those that directly follow: a ReLU, or for BatchNorm a Scale, or both. Backward
    it is the ReLU whose result is the layer's bottom, which nobody else consumes.
    """
    for i, node in enumerate(nodes):
        following = list(takewhile(partial(_works_on, node.top_ids), nodes[i + 1 : i + 3]))
        relu = [f.layer.is_plain_relu for f in following]
        if node.layer.fuses_relu and relu[:1] == [True]:
            node.fused, node.forward_fused = 1, node.layer.forward_relu
        elif following and node.layer.fuses_scale(following[0].layer):
            node.fused = 1 + (relu[1:] == [True])
            node.forward_fused = partial(
                node.layer.forward_scale, scale=following[0].layer, relu=node.fused == 2
            )
    writers = {}  # blob's index -> index of the last node that wrote it
    for i, node in enumerate(nodes):
        if node.layer.fuses_relu_gradient and len(node.bottoms) == 1 and all(node.propagate_down):
            writer = writers[node.bottom_ids[0]]
            relu = nodes[writer]
            if relu.layer.is_plain_relu and relu.bottom_ids == relu.top_ids:
                node.relu_before = writer if all(relu.propagate_down) else -1
        writers.update(dict.fromkeys(node.top_ids, i))


def _works_on(ids, node):
    # Whether a node changes the blobs with these ids in place, and nothing else.
    return node.top_ids == node.bottom_ids == ids
