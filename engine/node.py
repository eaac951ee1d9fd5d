"""A layer's place in its net, and the checks that a net makes of each layer."""

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from . import graph
from .errors import (
    DemitasseError,
    LayerError,
    NetError,
    OutOfMemoryError,
    ran_out_of_memory,
)
from .layer import Layer

log = logging.getLogger("demitasse.net")


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
    propagate_down: list = field(default_factory=list)
    fused: int = 0  # how many of the next nodes, all in place, this one can compute too
    forward_fused: object = None  # what does it, f(bottoms, tops)
    also_backward: int = -1  # index of the node before whose gradient is computed with this one's
    backward_fused: object = None  # what computes both, f(tops, propagate_down, bottoms)


def name_layer(error, node, verb):
    """Have an error say which layer it comes from, unless it does already."""
    where = graph.layer_where(node.param)
    if ran_out_of_memory(error):
        if isinstance(error, DemitasseError):
            return
        raise OutOfMemoryError.at(f"{where}, {verb}", error) from error
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


def check_tops_shaped(node, nodes):
    """Raise LayerError if a user's layer has run and never given a top a shape that others use.

    Not before: pycaffe's layers may reshape their tops in forward. Of a top that nobody uses, which
    layers have that only look at their bottoms, a warning is logged, once.
    """
    for k, (top_id, top) in enumerate(zip(node.top_ids, node.tops)):
        if top.shaped:
            continue
        error = LayerError(
            graph.layer_where(node.param), f"a shape for top {k}", "none after forward",
            f"Call top[{k}].reshape(...) in the layer's reshape, as "
            f"top[{k}].reshape(*bottom[0].shape).",
        )  # fmt: skip
        if any(top_id in other.bottom_ids for other in nodes):
            raise error
        top.shaped = True
        log.warning("%s", error)


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


def share_identities(nodes, blobs):
    """Let the tops of layers that give out what they get be the bottoms, in the same memory.

    Not where a layer in place could then change what others see: on the top, or on what shares
    memory with the top or the bottom.
    """
    writers = Counter(k for node in nodes for k in node.top_ids)
    users = Counter(id(blob.data_storage) for blob in blobs)
    for node in nodes:
        if not node.layer.is_identity:
            continue
        if node.top_ids == node.bottom_ids:
            node.layer.shares_bottom = True
        else:
            alone = all(users[id(b.data_storage)] == 1 for b in (*node.bottoms, *node.tops))
            node.layer.shares_bottom = alone and writers[node.top_ids[0]] == 1
            if node.layer.shares_bottom:
                node.tops[0].share_data(node.bottoms[0])


def hold_bottoms(nodes, blobs, kept_ids):
    """Let the bottoms of layers that join them have their values in the memory of the top's.

    Only on the host, only what a layer before computes, and not where a layer in place could then
    change what others see.

    Args: kept_ids: of blobs whose values stay, whatever a memory plan does to the others.
    """
    writers = defaultdict(list)  # of a blob: indices of nodes
    for i, node in enumerate(nodes):
        for k in () if node.layer.is_identity and node.top_ids == node.bottom_ids else node.top_ids:
            writers[k].append(i)
    sharing = defaultdict(list)  # the same memory: indices of blobs
    for k, blob in enumerate(blobs):
        sharing[id(blob.data_storage)].append(k)

    def computed_for(i, k, blob):
        alone = sharing[id(blob.data_storage)] == [k] and k not in kept_ids
        return alone and all(w < i and nodes[w].bottoms for w in writers[k])

    for i, node in enumerate(nodes):
        if not (node.layer.can_hold_bottoms and node.layer.device.is_host):
            continue
        computed = [computed_for(i, k, b) for k, b in zip(node.bottom_ids, node.bottoms)]
        unique = len(set(node.bottom_ids)) == len(node.bottom_ids) > 1
        tops = sharing[id(node.tops[0].data_storage)]
        if unique and all(computed) and all(len(writers[k]) == 1 for k in tops):
            node.layer.holds_bottoms = True
            node.layer.reshape(node.bottoms, node.tops)


def mark_fusable(nodes):
    """Set `fused` and `also_backward` where layers in place can be computed with another.

    Forward they are those that directly follow: a ReLU; for BatchNorm a Scale, or both; for a
    convolution BatchNorm and Scale, or all three. Backward it is the ReLU whose result is the
    layer's bottom, which nobody else consumes; and for a Scale the BatchNorm before it.
    """
    for i, node in enumerate(nodes):
        _mark_forward(node, list(takewhile(partial(_works_on, node.top_ids), nodes[i + 1 : i + 4])))
    writers = {}  # blob's index -> index of the last node that wrote it
    for i, node in enumerate(nodes):
        if len(node.bottoms) == 1 and node.bottom_ids[0] in writers:
            writer = writers[node.bottom_ids[0]]
            _mark_backward(node, nodes[writer], writer)
        writers.update(dict.fromkeys(node.top_ids, i))


def _mark_backward(node, before, index):
    if before.bottom_ids != before.top_ids or not all(node.propagate_down + before.propagate_down):
        return
    if node.layer.fuses_relu_gradient and before.layer.is_plain_relu:
        node.also_backward, node.backward_fused = index, node.layer.backward_relu
    elif node.top_ids == node.bottom_ids and before.layer.fuses_scale_gradient(node.layer):
        node.also_backward = index
        node.backward_fused = partial(before.layer.backward_scale, scale=node.layer)


def _mark_forward(node, following):
    layers, layer = [f.layer for f in following], node.layer
    relu = [other.is_plain_relu for other in layers]
    if layer.fuses_relu and relu[:1] == [True]:
        node.fused, node.forward_fused = 1, layer.forward_relu
    elif layers and layer.fuses_scale(layers[0]):
        node.fused = 1 + (relu[1:2] == [True])
        node.forward_fused = partial(layer.forward_scale, scale=layers[0], relu=node.fused == 2)
    elif len(layers) > 1 and layer.fuses_norm(*layers[:2]):
        node.fused = 2 + (relu[2:] == [True])
        node.forward_fused = partial(
            layer.forward_norm, norm=layers[0], scale=layers[1], relu=node.fused == 3
        )


def mark_written_on_host(nodes):
    """Tell the memory of blobs which of them only the host writes: what layers give out that write
    there, unless another computes in place on it."""
    blobs = [top for node in nodes if node.layer.writes_on_host for top in node.tops]
    changed = {
        id(blob.data_storage)
        for node in nodes if not node.layer.writes_on_host
        for k, blob in zip(node.top_ids, node.tops) if k in node.bottom_ids
    }  # fmt: skip
    for blob in blobs:
        blob.data_storage.written_on_host = id(blob.data_storage) not in changed


def _works_on(ids, node):
    # Whether a node changes the blobs with these ids in place, and nothing else.
    return node.top_ids == node.bottom_ids == ids
