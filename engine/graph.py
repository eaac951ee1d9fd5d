"""Pure passes over a NetParameter: what is in the net, and who feeds whom.

filter_net -> insert_splits -> wire -> (layers are set up) -> plan_backward
"""

from dataclasses import dataclass, field

from .errors import LayerError, NetError, closest
from .proto import caffe_pb2


def layer_where(layer):
    """How an error names a layer."""
    return f"layer {layer.name!r} ({layer.type})"


# ---- which layers


def filter_net(net, state):
    """A copy of NetParameter `net` with only the layers that the NetState `state` includes."""
    kept = caffe_pb2.NetParameter()
    kept.CopyFrom(net)
    del kept.layer[:]
    kept.layer.extend(layer for layer in net.layer if included(layer, state))
    return kept


def included(layer, state):
    """Whether a LayerParameter's include and exclude rules let it into a net of a NetState."""
    if layer.include and layer.exclude:
        raise LayerError(
            layer_where(layer), "include rules or exclude rules", "both",
            "Keep one kind; several rules of a kind are alternatives.",
        )  # fmt: skip
    if layer.include:
        return any(meets_rule(state, rule) for rule in layer.include)
    return not any(meets_rule(state, rule) for rule in layer.exclude)


def meets_rule(state, rule):
    """Whether a NetState fulfils every condition of a NetStateRule."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


# ---- splits


def insert_splits(net):
    """A copy of `net` in which every blob is consumed at most once.

    A blob with several consumers gets a Split layer after its producer, named as in Caffe. A loss
    weight counts as a consumer and moves to the split's first top (Caffe: insert_splits.cpp).
    """
    uses, sources = _count_uses(net)
    split = caffe_pb2.NetParameter()
    split.CopyFrom(net)
    del split.layer[:]
    next_top = {}
    for i, layer in enumerate(net.layer):
        out = split.layer.add()
        out.CopyFrom(layer)
        for j, blob in enumerate(layer.bottom):
            source = sources[i, j]
            if uses[source] > 1:
                k = next_top.get(source, 0)
                next_top[source] = k + 1
                producer = net.layer[source[0]].name
                out.bottom[j] = f"{_split_name(producer, blob, source[1])}_{k}"
        for j, blob in enumerate(layer.top):
            if uses.get((i, j), 0) > 1:
                weight = layer.loss_weight[j] if j < len(layer.loss_weight) else 0.0
                _add_split(split, _split_name(layer.name, blob, j), blob, uses[i, j], weight)
                if weight:
                    # NOTE: Caffe clears the loss weights of all tops; here only that of the one
                    # that moves, because the others' would be lost.
                    out.loss_weight[j] = 0.0
                    next_top[i, j] = 1
    return split


def _count_uses(net):
    """How often each top (layer, top) is consumed, and which one each bottom refers to."""
    producer, uses, sources = {}, {}, {}
    for i, layer in enumerate(net.layer):
        for j, blob in enumerate(layer.bottom):
            if blob not in producer:
                raise LayerError(
                    layer_where(layer), f"bottom {j} to be the top of an earlier layer",
                    f"{blob!r}, which no earlier layer produces",
                    closest(blob, producer) or "Check its name, phase and stage rules.",
                )  # fmt: skip
            source = producer[blob]
            sources[i, j] = source
            uses[source] = uses.get(source, 0) + 1
        for j, blob in enumerate(layer.top):
            producer[blob] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                top = producer[layer.top[j]]
                uses[top] = uses.get(top, 0) + 1
    return uses, sources


def _split_name(layer_name, blob, top_index):
    return f"{blob}_{layer_name}_{top_index}_split"


def _add_split(net, name, blob, count, weight):
    layer = net.layer.add(name=name, type="Split", bottom=[blob])
    layer.top.extend(f"{name}_{k}" for k in range(count))
    if weight:
        layer.loss_weight.extend([weight] + [0.0] * (count - 1))


# ---- wiring


@dataclass
class Wiring:
    """Who feeds whom, in indices into `blob_names`.

    `bottoms[i]` and `tops[i]` belong to layer i; a top equal to a bottom is computed in place.
    `inputs` keeps the order of declaration; `outputs`, what nobody consumes, is sorted by name.
    """

    blob_names: list = field(default_factory=list)
    bottoms: list = field(default_factory=list)
    tops: list = field(default_factory=list)
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)


def wire(net):
    """Connect the layers of a NetParameter (with splits inserted) into a `Wiring`."""
    wiring = Wiring()
    index = {}  # blob name -> blob index
    available = set()
    for layer in net.layer:
        bottoms = [_take_bottom(layer, j, index, available) for j in range(len(layer.bottom))]
        tops = []
        for j, blob in enumerate(layer.top):
            in_place = j < len(layer.bottom) and layer.bottom[j] == blob
            if not in_place:
                if blob in index:
                    raise LayerError(
                        layer_where(layer), f"a new name for top {j}",
                        f"{blob!r}, which another layer produces already",
                        "A layer computes in place only if nobody else has consumed the blob, "
                        "as its bottom and top of the same position.",
                    )  # fmt: skip
                index[blob] = len(wiring.blob_names)
                wiring.blob_names.append(blob)
            available.add(blob)
            tops.append(index[blob])
        wiring.bottoms.append(bottoms)
        wiring.tops.append(tops)
        if layer.type == "Input":
            wiring.inputs.extend(tops)
    wiring.outputs = [index[name] for name in sorted(available)]
    return wiring


def _take_bottom(layer, j, index, available):
    blob = layer.bottom[j]
    if blob not in available:
        raise LayerError(
            layer_where(layer), f"bottom {j} to be free", f"{blob!r}, which is consumed already"
        )
    available.discard(blob)
    return index[blob]


# ---- backward


@dataclass
class BackwardPlan:
    """Which layers run backward, and to which of their bottoms."""

    layers: list  # one bool a layer
    bottoms: list  # one list of bools a layer


def plan_backward(net, wiring, layers, losses):
    """Decide what backward computes (Caffe: the second half of Net::Init).

    A layer takes part if something before it (or in it) learns and something after it is a loss.

    Args:
        net: the NetParameter that was wired.
        wiring: its `Wiring`.
        layers: the layer objects, which tell `blobs` and `no_force_backward`.
        losses: for each layer the loss weights of its tops.
    """
    plan = _plan_from_parameters(net, wiring, layers)
    _prune(wiring, losses, plan)
    if net.force_backward:
        for i, layer in enumerate(layers):
            plan.layers[i] = True
            plan.bottoms[i] = [
                need or j not in layer.no_force_backward for j, need in enumerate(plan.bottoms[i])
            ]
    return plan


def _plan_from_parameters(net, wiring, layers):
    """Forward through the net: gradients are needed from the first learning layer on."""
    blob_needs = [False] * len(wiring.blob_names)
    plan = BackwardPlan([], [])
    for param, bottoms, tops, layer in zip(net.layer, wiring.bottoms, wiring.tops, layers):
        if param.propagate_down and len(param.propagate_down) != len(bottoms):
            raise LayerError(
                layer_where(param), f"no propagate_down or one for each of {len(bottoms)} bottoms",
                f"{len(param.propagate_down)}",
            )  # fmt: skip
        learns = any(lr_mult(param, k) != 0 for k in range(len(layer.blobs)))
        needs = learns or any(blob_needs[b] for b in bottoms)
        plan.layers.append(needs)
        # propagate_down overrides: false stops the gradient, true asks for one nobody needs.
        plan.bottoms.append(list(param.propagate_down) or [blob_needs[b] for b in bottoms])
        if needs:
            for t in tops:
                blob_needs[t] = True
    return plan


def _prune(wiring, losses, plan):
    """Backward through the net: drop what no loss depends on or what leads nowhere."""
    under_loss, skipped = set(), set()
    for i in reversed(range(len(plan.layers))):
        tops, bottoms = wiring.tops[i], wiring.bottoms[i]
        contributes = any(w or t in under_loss for w, t in zip(losses[i], tops))
        if plan.layers[i] and all(t in skipped for t in tops):
            plan.layers[i] = False
            plan.bottoms[i] = [False] * len(bottoms)
        if contributes:
            under_loss.update(bottoms)
        else:
            plan.layers[i] = False
            plan.bottoms[i] = [False] * len(bottoms)
        skipped.update(b for b, need in zip(bottoms, plan.bottoms[i]) if not need)


def lr_mult(param, index):
    """The learning-rate multiplier of a layer's parameter blob; 1 unless specified."""
    return param.param[index].lr_mult if index < len(param.param) else 1.0


# ---- state


def net_state(net, phase=None, level=None, stages=()):
    """The NetState for building `net`: its own, overridden by the arguments (as pycaffe does)."""
    state = caffe_pb2.NetState()
    state.CopyFrom(net.state)
    if phase is not None:
        if phase not in (caffe_pb2.TRAIN, caffe_pb2.TEST):
            raise NetError("net", "phase caffe.TRAIN (0) or caffe.TEST (1)", repr(phase))
        state.phase = phase
    if level is not None:
        state.level = level
    state.stage.extend(s for s in stages)
    return state
