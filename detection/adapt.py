"""Fitting a detector's definition to a data set: every count follows from classes and anchors.

The definition on disk stays as it is. The functions take a NetParameter with all its stages, or one
of py-faster-rcnn's files for a single one, and return changed copies.
"""

from ..boxes.anchors import RATIOS, SCALES
from ..engine.errors import NetError, closest
from ..engine.graph import filter_net, layer_where
from ..engine.proto import caffe_pb2
from ..layers.param_str import parse_param_str
from ..layers.proposal import LIMITS, ProposalSettings
from .roles import PARAMETER_KEYS, Wires, find_roles, kind_of, parameter_count, predictor

JOINT = ("rpn", "fast_rcnn")
"""Caffe's stages of a whole detector."""


# ---- counts


def adapt_net(net_param, classes=None, scales=None, ratios=None, where="net"):
    """A copy of a definition for other classes or anchors, and what was changed.

    Args:
        classes: how many there are, with the background, or their names; None for the file's.
        scales, ratios: of the anchors (Faster R-CNN, section 3.1.1); None for the file's, which
            its layers' param_str says. The counts of the RPN follow from them in any case.
        where: how errors name the definition.

    Returns: the copy; a list of lines, one for each change.
    Raises: NetError if there are classes to adapt to but no layers of a detector.
    """
    net = _copy(net_param)
    roles = find_roles(net)
    said = []
    if classes is not None:
        count = classes if isinstance(classes, int) else len(classes)
        _adapt_classes(roles, count, where, said)
    _adapt_anchors(roles, scales, ratios, where, said)
    return net, list(dict.fromkeys(said))


def _adapt_classes(roles, count, where, said):
    if count < 2:
        raise NetError(where, "the background and at least one more class", f"{count}")
    if not (roles.cls_score or roles.class_layers or roles.rpn_cls_score):
        raise NetError(
            where, "layers of a detector, such as cls_score, bbox_pred or rpn_cls_score", "none",
            "Name them so, or wire them as in prototxt/vgg16/faster_rcnn.prototxt.",
        )  # fmt: skip
    _set_outputs(roles.cls_score, count, f"{count} classes", said)
    _set_outputs(roles.bbox_pred, 4 * count, f"4 x {count} classes", said)
    for layer in roles.class_layers:
        _set_params(layer, {"num_classes": count}, said)


def _adapt_anchors(roles, scales, ratios, where, said):
    wanted = {"scales": scales, "ratios": ratios}
    wanted = {key: tuple(map(float, value)) for key, value in wanted.items() if value is not None}
    found = {}  # scales and ratios -> the first layer that has them
    for layer in roles.anchor_layers:
        has = {"scales": SCALES, "ratios": RATIOS, **read_params(layer), **wanted}
        found.setdefault((has["scales"], has["ratios"]), layer.name)
        defaults = {"scales": SCALES, "ratios": RATIOS, **read_params(layer)}
        _set_params(layer, {k: v for k, v in wanted.items() if defaults[k] != v}, said)
    if len(found) > 1:
        text = "; ".join(f"{name!r}: scales {s}, ratios {r}" for (s, r), name in found.items())
        raise NetError(where, "anchors of the same scales and ratios in all layers", text)
    if not found and wanted:  # an RPN that is only there to keep its weights
        found = {(wanted.get("scales", SCALES), wanted.get("ratios", RATIOS)): ""}
    for found_scales, found_ratios in found:
        count = len(found_scales) * len(found_ratios)
        _set_outputs(roles.rpn_cls_score, 2 * count, f"2 x {count} anchors", said)
        _set_outputs(roles.rpn_bbox_pred, 4 * count, f"4 x {count} anchors", said)
        _set_reshapes(roles.rpn_reshape, 2 * count, f"2 x {count} anchors", said)


def _set_outputs(layers, count, why, said):
    for layer in layers:
        part = predictor(layer)
        if part.num_output != count:
            said.append(f"{layer.name}: num_output {part.num_output} -> {count} ({why})")
            part.num_output = count


def _set_reshapes(layers, count, why, said):
    for layer in layers:
        dims = layer.reshape_param.shape.dim
        if len(dims) > 1 and dims[1] > 0 and dims[1] != count:
            said.append(f"{layer.name}: dim {dims[1]} -> {count} ({why})")
            dims[1] = count


# ---- param_str


def read_params(layer):
    """The param_str of one of the detector's own layers, as a dict."""
    keys = PARAMETER_KEYS[kind_of(layer)]
    return parse_param_str(layer.python_param.param_str, layer_where(layer), keys)


def _set_params(layer, changes, said=None):
    """Write values into a param_str; it is left as it stands if it has them already."""
    import yaml

    params = read_params(layer)
    if all(params.get(key) == value for key, value in changes.items()):
        return
    params = {key: _plain(value) for key, value in {**params, **changes}.items()}
    text = yaml.safe_dump(params, default_flow_style=True, sort_keys=False, width=10**6).strip()
    if said is not None:
        said.append(f"{layer.name}: param_str {layer.python_param.param_str!r} -> {text!r}")
    layer.python_param.param_str = text


def _plain(value):
    """As YAML has it: lists, and whole numbers without a point."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---- layers


def shared_layers(net_param):
    """Names of the layers with parameters that both the RPN and the region head stand on.

    Raises: NetError if the definition does not hold both.
    """
    roles, wires = find_roles(net_param), Wires(net_param)
    for name in ("rpn_cls_score", "cls_score"):
        if not getattr(roles, name):
            raise NetError(
                f"net {net_param.name!r}", "an RPN and a region head", f"no layer {name}",
                "Give the definition of the whole detector.",
            )  # fmt: skip
    both = set(wires.ancestors(roles.rpn_cls_score)) & set(wires.ancestors(roles.cls_score))
    layers = [wires.layers[i] for i in sorted(both)]
    return list(dict.fromkeys(layer.name for layer in layers if parameter_count(layer)))


def freeze(net_param, names):
    """A copy of a definition in which the parameters of the named layers do not learn.

    Raises: NetError for a name that no layer with parameters has.
    """
    net = _copy(net_param)
    learning = {layer.name for layer in net.layer if parameter_count(layer)}
    for name in names:
        if name not in learning:
            raise NetError(
                f"net {net.name!r}, freezing", "the name of a layer with parameters", repr(name),
                closest(name, learning) or f"There are: {', '.join(sorted(learning))}.",
            )  # fmt: skip
    for layer in net.layer:
        if layer.name in names:
            for k in range(parameter_count(layer)):
                spec = layer.param[k] if k < len(layer.param) else layer.param.add()
                spec.lr_mult = 0
    return net


# ---- for use


def deploy_net(net_param, cfg, stages=JOINT):
    """The definition of an adapted net for use, with nothing left that depends on anything else.

    It holds the layers of phase TEST and `stages` without rules, learning rates and fillers; an
    image of TEST's first scale and largest size; and the limits of proposals, as far as the config
    has others than the layer.

    Raises: NetError if the net does not take its images from the program.
    """
    state = caffe_pb2.NetState(phase=caffe_pb2.TEST, stage=stages)
    net = filter_net(net_param, state)
    net.ClearField("state")
    inputs = [x for x in net.layer if x.type == "Input" and "data" in x.top]
    if not inputs or any(kind_of(x) == "RoIData" for x in net.layer):
        raise NetError(
            f"net {net.name!r}", "a definition for use, with an input `data`",
            "one for training" if net.layer else "no layers in phase TEST",
            "Give the definition that the detector is tested with.",
        )  # fmt: skip
    for layer in net.layer:
        _strip(layer)
        if kind_of(layer) == "Proposal":
            _set_params(layer, _other_limits(layer, cfg.TEST))
    _set_image_size(inputs[0], cfg.TEST)
    return net


def _strip(layer):
    for field in ("include", "exclude", "phase", "propagate_down", "loss_weight", "blobs"):
        layer.ClearField(field)
    names = [spec.name for spec in layer.param]
    layer.ClearField("param")
    if any(names):  # shared parameters stay shared
        layer.param.extend(caffe_pb2.ParamSpec(name=name) for name in names)
    part = predictor(layer)
    if part is not None:
        part.ClearField("weight_filler")
        part.ClearField("bias_filler")


def _other_limits(layer, settings):
    """The limits that a Proposal layer would not have of itself."""
    has = {key: getattr(ProposalSettings().test, key) for key in LIMITS} | read_params(layer)
    return {key: getattr(settings, key) for key in LIMITS if getattr(settings, key) != has[key]}


def _set_image_size(layer, settings):
    shapes = layer.input_param.shape
    shape = shapes[list(layer.top).index("data") if len(shapes) > 1 else 0]
    shape.dim[:] = [1, 3, settings.SCALES[0], settings.MAX_SIZE]


def _copy(net_param):
    net = caffe_pb2.NetParameter()
    net.CopyFrom(net_param)
    return net
