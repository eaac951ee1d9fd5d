"""Definitions in the dialect of py-faster-rcnn: its folders, file names, layer names and spellings.

One file a stage and phase; learning rates of 0 where a stage freezes layers; dummy layers that only
carry the other half's weights along; classes and anchors typed into each file. The text is made
here; names and numbers are those of the published files, but that pooling is 2x2 without LRN.
"""

from pathlib import Path

NETWORKS = {  # convolutions: name -> (num_output, kernel, stride, pad), or None for 2x2 pooling
    "ZF": {
        "conv1": (96, 7, 2, 3), "pool1": None, "conv2": (256, 5, 2, 2), "pool2": None,
        "conv3": (384, 3, 1, 1), "conv4": (384, 3, 1, 1), "conv5": (256, 3, 1, 1),
    },
    "VGG16": {
        "conv1_1": (64, 3, 1, 1), "conv1_2": (64, 3, 1, 1), "pool1": None,
        "conv2_1": (128, 3, 1, 1), "conv2_2": (128, 3, 1, 1), "pool2": None,
        "conv3_1": (256, 3, 1, 1), "conv3_2": (256, 3, 1, 1), "conv3_3": (256, 3, 1, 1),
        "pool3": None, "conv4_1": (512, 3, 1, 1), "conv4_2": (512, 3, 1, 1),
        "conv4_3": (512, 3, 1, 1), "pool4": None, "conv5_1": (512, 3, 1, 1),
        "conv5_2": (512, 3, 1, 1), "conv5_3": (512, 3, 1, 1),
    },
}  # fmt: skip
FROZEN = {"ZF": (), "VGG16": ("conv1_1", "conv1_2", "conv2_1", "conv2_2")}  # in stage 1
_RPN = {"ZF": ("rpn_conv1", "rpn_conv1", 256), "VGG16": ("rpn_conv/3x3", "rpn/output", 512)}
_POOL = {"ZF": ("roi_pool_conv5", "roi_pool_conv5", 6), "VGG16": ("roi_pool5", "pool5", 7)}
_NAME = {"ZF": "ZF", "VGG16": "VGG_ILSVRC_16_layers"}


def _layer(name, kind, bottoms, tops, body=""):
    lines = [f"bottom: '{b}'" for b in bottoms] + [f"top: '{t}'" for t in tops]
    inner = "".join(f"  {line}\n" for line in [*lines, *filter(None, body.split("\n"))])
    return f"layer {{\n  name: '{name}'\n  type: '{kind}'\n{inner}}}\n"


def _rates(learns):
    if learns is None:  # a file for use
        return ""
    return "param { lr_mult: 1.0 }\nparam { lr_mult: 2.0 }\n" if learns else (
        "param { lr_mult: 0 decay_mult: 0 }\n" * 2
    )  # fmt: skip


def _filler(std):
    return f'\tweight_filler {{ type: "gaussian" std: {std} }}\n'


def _convolution(name, bottom, top, outputs, kernel, stride, pad, learns, filler=""):
    return _layer(name, "Convolution", [bottom], [top], _rates(learns) + (
        f"convolution_param {{\n\tnum_output: {outputs}   # a comment\n\tkernel_size: {kernel} "
        f"pad: {pad} stride: {stride}\n{filler}}}"
    ))  # fmt: skip


def _inner_product(name, bottom, outputs, learns, filler=""):
    return _layer(name, "InnerProduct", [bottom], [name], _rates(learns) + (
        f"inner_product_param {{\n\tnum_output: {outputs}\n{filler}}}"
    ))  # fmt: skip


def _python(name, bottoms, tops, module, layer, param_str):
    return _layer(
        name, "Python", bottoms, tops,
        f"python_param {{\n  module: '{module}'\n  layer: '{layer}'\n"
        f'  param_str: "{param_str}"\n}}',
    )  # fmt: skip


def _input(**shapes):
    return "".join(
        f'input: "{name}"\ninput_shape {{\n' + "".join(f"  dim: {d}\n" for d in dims) + "}\n"
        for name, dims in shapes.items()
    )


def _roi_data(*tops):
    return _python(
        "input-data", [], tops, "roi_data_layer.layer", "RoIDataLayer", "'num_classes': 21"
    )


def _trunk(network, learns, frozen=()):
    text, bottom = "\n#========= conv1-conv5 ============\n\n", "data"
    for name, shape in NETWORKS[network].items():
        if shape is None:
            body = "pooling_param {\n\tpool: MAX\n\tkernel_size: 2\n\tstride: 2\n}"
            text += _layer(name, "Pooling", [bottom], [name], body)
        else:
            mine = learns if learns is None else learns and name not in frozen
            text += _convolution(name, bottom, name, *shape, mine)
            text += _layer("relu" + name.removeprefix("conv"), "ReLU", [name], [name])
        bottom = name
    return text


def _last(network):
    return list(NETWORKS[network])[-1]


def _rpn(network, learns):
    """The layers with parameters."""
    name, top, outputs = _RPN[network]
    filler = _filler(0.01)
    return (
        "\n#========= RPN ============\n\n"
        + _convolution(name, _last(network), top, outputs, 3, 1, 1, learns, filler)
        + _layer(name.replace("conv", "relu"), "ReLU", [top], [top])
        + _convolution("rpn_cls_score", top, "rpn_cls_score", 18, 1, 1, 0, learns, filler)
        + _convolution("rpn_bbox_pred", top, "rpn_bbox_pred", 36, 1, 1, 0, learns, filler)
    )


_SILENT_RPN = "".join(
    _layer(f"silence_{name}", "Silence", [name], []) for name in ("rpn_cls_score", "rpn_bbox_pred")
)
_RESHAPE = _layer(
    "rpn_cls_score_reshape", "Reshape", ["rpn_cls_score"], ["rpn_cls_score_reshape"],
    "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }",
)  # fmt: skip
_TARGETS = ("bbox_targets", "bbox_inside_weights", "bbox_outside_weights")
_RPN_LOSSES = _RESHAPE + _python(
    "rpn-data", ["rpn_cls_score", "gt_boxes", "im_info", "data"],
    ["rpn_labels", *(f"rpn_{t}" for t in _TARGETS)],
    "rpn.anchor_target_layer", "AnchorTargetLayer", "'feat_stride': 16",
) + _layer(
    "rpn_loss_cls", "SoftmaxWithLoss", ["rpn_cls_score_reshape", "rpn_labels"], ["rpn_cls_loss"],
    "propagate_down: 1\npropagate_down: 0\nloss_weight: 1\n"
    "loss_param {\n  ignore_label: -1\n  normalize: true\n}",
) + _layer(
    "rpn_loss_bbox", "SmoothL1Loss", ["rpn_bbox_pred", *(f"rpn_{t}" for t in _TARGETS)],
    ["rpn_loss_bbox"], "loss_weight: 1\nsmooth_l1_loss_param { sigma: 3.0 }",
)  # fmt: skip


def _proposal(*tops):
    return (
        "\n#========= RoI Proposal ============\n\n"
        + _layer("rpn_cls_prob", "Softmax", ["rpn_cls_score_reshape"], ["rpn_cls_prob"])
        + _layer(
            "rpn_cls_prob_reshape", "Reshape", ["rpn_cls_prob"], ["rpn_cls_prob_reshape"],
            "reshape_param { shape { dim: 0 dim: 18 dim: -1 dim: 0 } }",
        )
        + _python(
            "proposal", ["rpn_cls_prob_reshape", "rpn_bbox_pred", "im_info"], tops,
            "rpn.proposal_layer", "ProposalLayer", "'feat_stride': 16",
        )
    )  # fmt: skip


def _fully_connected(bottom, learns, dropout=True):
    text = ""
    for k in (6, 7):
        name = f"fc{k}"
        text += _inner_product(name, bottom, 4096, learns)
        text += _layer(f"relu{k}", "ReLU", [name], [name])
        if dropout:
            body = "dropout_param {\n\tdropout_ratio: 0.5\n\tscale_train: false\n}"
            text += _layer(f"drop{k}", "Dropout", [name], [name], body)
        bottom = name
    return text


def _head(network, learns):
    name, top, size = _POOL[network]
    body = (
        f"roi_pooling_param {{\n\tpooled_w: {size}\n\tpooled_h: {size}\n\tspatial_scale: 0.0625\n}}"
    )
    return (
        "\n#========= RCNN ============\n\n"
        + _layer(name, "ROIPooling", [_last(network), "rois"], [top], body)
        + _fully_connected(top, learns)
        + _inner_product("cls_score", "fc7", 21, learns, _filler(0.01))
        + _inner_product("bbox_pred", "fc7", 84, learns, _filler(0.001))
    )


def _dummy_head(network):
    """Layers that keep fc6 and fc7 in the weights of an RPN."""
    size, channels = _POOL[network][2], NETWORKS[network][_last(network)][0]
    body = f"dummy_data_param {{\n  shape {{ dim: 1 dim: {channels * size * size} }}\n}}"
    return (
        _layer("dummy_roi_pool_conv5", "DummyData", [], ["dummy_roi_pool_conv5"], body)
        + _fully_connected("dummy_roi_pool_conv5", False, dropout=False)
        + _layer("silence_fc7", "Silence", ["fc7"], [])
    )


_LOSSES = _layer(
    "loss_cls", "SoftmaxWithLoss", ["cls_score", "labels"], ["loss_cls"],
    "propagate_down: 1\npropagate_down: 0\nloss_weight: 1",
) + _layer(
    "loss_bbox", "SmoothL1Loss", ["bbox_pred", *_TARGETS], ["loss_bbox"], "loss_weight: 1"
)  # fmt: skip
_PROB = _layer("cls_prob", "Softmax", ["cls_score"], ["cls_prob"])
_SAMPLE = _python(
    "roi-data", ["rpn_rois", "gt_boxes"], ["rois", "labels", *_TARGETS],
    "rpn.proposal_target_layer", "ProposalTargetLayer", "'num_classes': 21",
)  # fmt: skip
_IMAGE = {"data": (1, 3, 224, 224), "im_info": (1, 3)}


def _files(network):
    """{path in the network's folder: text of the net}."""
    files = {}
    for stage, learns in (("stage1", True), ("stage2", False)):
        trunk = _trunk(network, learns, FROZEN[network])
        files[f"faster_rcnn_alt_opt/{stage}_rpn_train.pt"] = (
            _roi_data("data", "im_info", "gt_boxes") + trunk + _rpn(network, True) + _RPN_LOSSES
            + _dummy_head(network)
        )  # fmt: skip
        files[f"faster_rcnn_alt_opt/{stage}_fast_rcnn_train.pt"] = (
            _roi_data("data", "rois", "labels", *_TARGETS) + trunk + _head(network, True)
            + _LOSSES + _rpn(network, False) + _SILENT_RPN
        )  # fmt: skip
    rpn = _input(**_IMAGE) + _trunk(network, None) + _rpn(network, None) + _RESHAPE
    files["faster_rcnn_alt_opt/rpn_test.pt"] = rpn + _proposal("rois", "scores")
    whole = rpn + _proposal("rois") + _head(network, None) + _PROB
    files["faster_rcnn_alt_opt/faster_rcnn_test.pt"] = whole
    files["faster_rcnn_end2end/test.prototxt"] = whole
    files["faster_rcnn_end2end/train.prototxt"] = (
        _roi_data("data", "im_info", "gt_boxes") + _trunk(network, True, FROZEN[network])
        + _rpn(network, True) + _RPN_LOSSES + _proposal("rpn_rois") + _SAMPLE
        + _head(network, True) + _LOSSES
    )  # fmt: skip
    files["fast_rcnn/train.prototxt"] = (
        _roi_data("data", "rois", "labels", *_TARGETS) + _trunk(network, True, FROZEN[network])
        + _head(network, True) + _LOSSES
    )  # fmt: skip
    files["fast_rcnn/test.prototxt"] = (
        _input(data=(1, 3, 224, 224), rois=(1, 5)) + _trunk(network, None) + _head(network, None)
        + _PROB
    )  # fmt: skip
    return {path: f'name: "{_NAME[network]}"\n{text}' for path, text in files.items()}


def _solvers(network):
    """{path of a solver file: (the net that it names, stepsize)}."""
    alt_opt = "faster_rcnn_alt_opt"
    solvers = {}
    for stage in ("stage1", "stage2"):
        solvers[f"{alt_opt}/{stage}_rpn_solver60k80k.pt"] = (
            f"{alt_opt}/{stage}_rpn_train.pt",
            60000,
        )
        solvers[f"{alt_opt}/{stage}_fast_rcnn_solver30k40k.pt"] = (
            f"{alt_opt}/{stage}_fast_rcnn_train.pt", 30000
        )  # fmt: skip
    for method, step in (("faster_rcnn_end2end", 50000), ("fast_rcnn", 30000)):
        solvers[f"{method}/solver.prototxt"] = (f"{method}/train.prototxt", step)
    return {
        path: f'train_net: "models/pascal_voc/{network}/{net}"\nbase_lr: 0.001\nlr_policy: "step"\n'
        f"gamma: 0.1\nstepsize: {step}\ndisplay: 20\naverage_loss: 100\nmomentum: 0.9\n"
        f'weight_decay: 0.0005\nsnapshot: 0\nsnapshot_prefix: "{network.lower()}"\n'
        for path, (net, step) in solvers.items()
    }


def write(root, network):
    """Write models/pascal_voc/NETWORK below `root`; returns that folder."""
    folder = Path(root, "models", "pascal_voc", network)
    for path, text in {**_files(network), **_solvers(network)}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
