"""Definitions of a part of a detector, cut out of that of the whole."""

from ..engine.errors import NetError
from ..engine.graph import filter_net, net_state
from ..engine.proto import caffe_pb2
from .roles import kind_of


def net_in_use(net, stages, where):
    """The TEST definition of some stages of a NetParameter, whether it knows stages or not.

    Args:
        stages: ("rpn",), the region proposal network alone, with the outputs rois and scores;
            ("fast_rcnn",), the region head alone, with the inputs data and rois; or others, as
            the rules in the definition say.
        where: what errors name.
    Returns: a NetParameter without such rules.
    Raises: NetError if there is no such part.
    """
    stages = tuple(stages)
    net = filter_net(net, net_state(net, caffe_pb2.TEST, stages=stages))
    for layer in net.layer:
        del layer.include[:], layer.exclude[:]
    if stages == ("rpn",):
        return _rpn_alone(net, where)
    if stages == ("fast_rcnn",):
        return _head_alone(net, where)
    return net


def _rpn_alone(net, where):
    """All up to the layer Proposal, whose second top is the scores."""
    proposals = [k for k, layer in enumerate(net.layer) if kind_of(layer) == "Proposal"]
    if not proposals:
        raise NetError(where, "a region proposal network", "no layer of type Proposal")
    del net.layer[proposals[-1] + 1 :]
    last = net.layer[-1]
    last.top[:] = [last.top[0], "scores"]
    return net


def _head_alone(net, where):
    """What depends on regions, and all that it stands on; the regions become an input."""
    proposals = [layer for layer in net.layer if kind_of(layer) == "Proposal"]
    if not proposals:
        return net
    rois = caffe_pb2.LayerParameter(name="rois", type="Input", top=[proposals[-1].top[0]])
    rois.input_param.shape.add(dim=[1, 5])
    head = _above(net.layer, rois.top[0])
    if not head:
        raise NetError(where, "layers that look at regions", "a region proposal network alone")
    made = {top for layer in head for top in layer.top}
    parts = [layer for layer in net.layer if kind_of(layer) != "Proposal"]
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    result.layer.add().CopyFrom(rois)
    result.layer.extend(below(parts, made))
    return result


def _above(layers, blob):
    """The layers that depend on `blob`, in order."""
    reached, found = {blob}, []
    for layer in layers:
        if reached.intersection(layer.bottom):
            found.append(layer)
            reached.update(layer.top)
    return found


def below(layers, blobs):
    """The layers that `blobs` are computed by, in order; of inputs, those that are needed."""
    needed, found = set(blobs), []
    for layer in reversed(layers):
        if layer.type == "Input":
            layer = _needed_inputs(layer, needed)
        if needed.intersection(layer.top):
            found.append(layer)
            needed.update(layer.bottom)
    return found[::-1]


def _needed_inputs(layer, needed):
    """An Input layer with those of its tops alone that are in `needed`."""
    shapes = list(layer.input_param.shape)
    kept = [k for k, top in enumerate(layer.top) if top in needed]
    result = type(layer)()
    result.CopyFrom(layer)
    result.top[:] = [layer.top[k] for k in kept]
    if len(shapes) == len(layer.top):  # one for all otherwise
        del result.input_param.shape[:]
        result.input_param.shape.extend(shapes[k] for k in kept)
    return result
