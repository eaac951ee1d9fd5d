"""What the layers of a detector are for, found by their usual names or else by their wiring."""

from dataclasses import dataclass

from ..layers.proposal import LIMITS
from ..layers.python import module_aliases

PARAMETER_KEYS = {
    "RoIData": ("num_classes",),
    "ProposalTarget": ("num_classes",),
    "AnchorTarget": ("feat_stride", "scales", "ratios", "allowed_border"),
    "Proposal": ("feat_stride", "scales", "ratios", *LIMITS),
}
"""The detector's own layers, and the keys that their param_str may have."""

_PREDICTORS = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param"}
_BOX_SOURCES = ("RoIData", "ProposalTarget", "Proposal", "AnchorTarget", "Input", "DummyData")


def kind_of(layer):
    """The type of a layer; of py-faster-rcnn's Python layers that of ours in their place."""
    if layer.type == "Python" and layer.python_param.module in module_aliases:
        return layer.python_param.layer.removesuffix("Layer")
    return layer.type


def predictor(layer):
    """The part of a LayerParameter that holds its num_output, or None if it has none."""
    return getattr(layer, _PREDICTORS[layer.type]) if layer.type in _PREDICTORS else None


def parameter_count(layer):
    """How many parameter blobs a layer has; of types not known here, as its file says."""
    if layer.type in ("Convolution", "Deconvolution"):
        return 1 + layer.convolution_param.bias_term
    if layer.type == "InnerProduct":
        return 1 + layer.inner_product_param.bias_term
    if layer.type == "Embed":
        return 1 + layer.embed_param.bias_term
    if layer.type in ("Scale", "Bias"):
        own = len(layer.bottom) == 1  # a second bottom is the parameter
        return own + (layer.type == "Scale" and layer.scale_param.bias_term)
    return {"PReLU": 1, "BatchNorm": 3, "Parameter": 1}.get(layer.type, len(layer.param))


@dataclass(frozen=True)
class Roles:
    """Layers of a net by what they are for; each a list, because a net may hold several stages.

    Attributes:
        cls_score, bbox_pred: predict scores and boxes for each class.
        rpn_cls_score, rpn_bbox_pred: predict scores and boxes for each anchor.
        rpn_reshape: brings the anchors' probabilities to the form that Proposal takes.
        class_layers: layers with num_classes in param_str.
        anchor_layers: layers with scales and ratios in param_str.
    """

    cls_score: list
    bbox_pred: list
    rpn_cls_score: list
    rpn_bbox_pred: list
    rpn_reshape: list
    class_layers: list
    anchor_layers: list


def find_roles(net):
    """The `Roles` of the layers of a NetParameter, whatever their include rules say."""
    wires = Wires(net)
    of_kind = {kind: [] for kind in PARAMETER_KEYS}
    for layer in net.layer:
        of_kind.get(kind_of(layer), []).append(layer)
    proposals, targets = of_kind["Proposal"], of_kind["AnchorTarget"]
    scores = _named(net, "rpn_cls_score") or wires.predictors(
        [x.bottom[0] for x in proposals + targets]
    )
    boxes = _named(net, "rpn_bbox_pred") or wires.predictors([x.bottom[1] for x in proposals])
    cls_score = _named(net, "cls_score") or _class_scores(net, wires, scores)
    return Roles(
        cls_score=cls_score,
        bbox_pred=_named(net, "bbox_pred") or _class_boxes(net, wires, boxes, cls_score),
        rpn_cls_score=scores,
        rpn_bbox_pred=boxes,
        rpn_reshape=wires.producers([x.bottom[0] for x in proposals], "Reshape"),
        class_layers=of_kind["RoIData"] + of_kind["ProposalTarget"],
        anchor_layers=proposals + targets,
    )


def _named(net, name):
    """Predictors of that name, or of the second factor's that tools/compress_net gives."""
    return [x for x in net.layer if x.name in (name, f"{name}_U") and predictor(x) is not None]


def _class_scores(net, wires, rpn_scores):
    """What goes through a softmax, in a net that looks at regions: others classify images."""
    if not any("rois" in layer.bottom for layer in net.layer):
        return []
    blobs = [x.bottom[0] for x in net.layer if x.type in ("Softmax", "SoftmaxWithLoss")]
    return [x for x in wires.predictors(blobs) if not _among(x, rpn_scores)]


def _class_boxes(net, wires, rpn_boxes, cls_score):
    """What a SmoothL1Loss compares; without a loss, a result with four numbers for each score."""
    blobs = [x.bottom[0] for x in net.layer if x.type == "SmoothL1Loss"]
    if not blobs:
        wanted = {4 * predictor(x).num_output for x in cls_score}
        consumed = {blob for x in net.layer for blob in x.bottom}
        blobs = [
            x.top[0]
            for x in net.layer
            if predictor(x) is not None and predictor(x).num_output in wanted
            and x.top[0] not in consumed
        ]  # fmt: skip
    return [x for x in wires.predictors(blobs) if not _among(x, rpn_boxes)]


def _among(layer, layers):
    return any(layer is other for other in layers)


class Wires:
    """Who feeds whom in a NetParameter, whose layers need not all be in one net."""

    def __init__(self, net):
        self.layers = list(net.layer)
        self._makers = {}  # blob -> indices of the layers that have it as a top
        for i, layer in enumerate(self.layers):
            for blob in layer.top:
                self._makers.setdefault(blob, []).append(i)

    def producers(self, blobs, kind):
        """The layers of type `kind` that have one of the blobs as a top, each once, in order."""
        found = sorted({i for blob in blobs for i in self._makers.get(blob, ())})
        return [self.layers[i] for i in found if self.layers[i].type == kind]

    def predictors(self, blobs):
        """The first layers with a num_output on the ways up from `blobs`, in order."""
        seen = self._walk(
            [i for blob in blobs for i in self._makers.get(blob, ())],
            lambda layer: predictor(layer) is not None,
        )
        return [self.layers[i] for i in seen if predictor(self.layers[i]) is not None]

    def ancestors(self, layers):
        """Indices of the given layers and of all that they stand on, but for what makes boxes."""
        start = [i for i, x in enumerate(self.layers) if _among(x, layers)]
        return self._walk(start, lambda layer: False)

    def _walk(self, start, is_end):
        """Upward from the layers `start`, not beyond those that `is_end` or make boxes."""
        seen, waiting = set(), list(start)
        while waiting:
            i = waiting.pop()
            layer = self.layers[i]
            if i in seen or kind_of(layer) in _BOX_SOURCES:
                continue
            seen.add(i)
            if not is_end(layer):
                makers = (k for blob in layer.bottom for k in self._makers.get(blob, ()))
                waiting.extend(k for k in makers if k < i)  # not those that follow in place
        return sorted(seen)
