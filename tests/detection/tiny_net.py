"""A Faster R-CNN of a few thousand parameters, and drawn images, to train it on in tests."""

from functools import partial

import numpy as np

from caffe.proto import caffe_pb2
from demitasse.detection import config
from demitasse.detection.datasets import Dataset, Record
from demitasse.engine.prototxt import parse_text

CLASSES = ("__background__", "light", "dark")
CFG = config.merge(
    config.Config(),
    {
        "ANCHOR_SCALES": [2, 3], "ANCHOR_RATIOS": [1], "PIXEL_MEANS": [[[110, 110, 110]]],
        "TRAIN": {
            "SCALES": [48], "MAX_SIZE": 80, "IMS_PER_BATCH": 1, "BATCH_SIZE": 16,
            "RPN_BATCHSIZE": 32, "RPN_MIN_SIZE": 4, "RPN_PRE_NMS_TOP_N": 60,
            "RPN_POST_NMS_TOP_N": 20, "BG_THRESH_LO": 0.0, "SNAPSHOT_ITERS": 3,
        },
        "TEST": {
            "SCALES": [48], "MAX_SIZE": 80, "HAS_RPN": True, "RPN_MIN_SIZE": 4,
            "RPN_PRE_NMS_TOP_N": 60, "RPN_POST_NMS_TOP_N": 10,
        },
    },
)  # fmt: skip

_CONVOLUTION = """layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top}"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride}
    weight_filler {{ {filler} }} }} {rule} }}
"""
_LEARNT = """layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: {outputs}
    weight_filler {{ type: "gaussian" std: {std} }} }} include {{ stage: "fast_rcnn" }} }}
"""


def _convolution(name, bottom, outputs, kernel=3, stride=1, rule="", top=None, std=None):
    return _CONVOLUTION.format(
        name=name, bottom=bottom, top=top or name, outputs=outputs, kernel=kernel, stride=stride,
        pad=kernel // 2, rule=rule,
        filler=f'type: "gaussian" std: {std}' if std else 'type: "msra"',
    )  # fmt: skip


def _learnt(name, bottom, outputs, std):
    return _LEARNT.format(name=name, bottom=bottom, outputs=outputs, std=std)


_RPN = 'include { stage: "rpn" }'
_JOINT = 'include { phase: TRAIN stage: "rpn" stage: "fast_rcnn" }'
_IN_USE = f'include {{ phase: TEST stage: "rpn" }} {_JOINT}'


def _proposal(top, rule):
    return f"""layer {{ name: "proposal" type: "Proposal" bottom: "rpn_cls_prob_reshape"
      bottom: "rpn_bbox_pred" bottom: "im_info" {top} {rule}
      python_param {{ param_str: "'feat_stride': 8" }} }}
    """


NET = (
    """name: "tiny"
layer { name: "data" type: "Input" top: "data" include { phase: TEST }
  input_param { shape { dim: 1 dim: 3 dim: 48 dim: 64 } } }
layer { name: "im_info" type: "Input" top: "im_info" include { phase: TEST stage: "rpn" }
  input_param { shape { dim: 1 dim: 3 } } }
layer { name: "rois" type: "Input" top: "rois" input_param { shape { dim: 1 dim: 5 } }
  include { phase: TEST stage: "fast_rcnn" not_stage: "rpn" } }
layer { name: "input-data" type: "RoIData" top: "data" top: "im_info" top: "gt_boxes"
  python_param { param_str: "'num_classes': 21" } include { phase: TRAIN stage: "rpn" } }
layer { name: "data" type: "RoIData" top: "data" top: "rois" top: "labels" top: "bbox_targets"
  top: "bbox_inside_weights" top: "bbox_outside_weights"
  python_param { param_str: "'num_classes': 21" }
  include { phase: TRAIN stage: "fast_rcnn" not_stage: "rpn" } }
"""
    + _convolution("conv1", "data", 8, stride=2, std=0.004)
    + 'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }\n'
    + _convolution("conv2", "conv1", 12, stride=2)
    + 'layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }\n'
    + _convolution("conv3", "conv2", 16, stride=2)
    + 'layer { name: "relu3" type: "ReLU" bottom: "conv3" top: "conv3" }\n'
    + _convolution("rpn_conv/3x3", "conv3", 16, rule=_RPN, top="rpn/output")
    + f'layer {{ name: "rpn_relu" type: "ReLU" bottom: "rpn/output" top: "rpn/output" {_RPN} }}\n'
    + _convolution("rpn_cls_score", "rpn/output", 18, kernel=1, rule=_RPN, std=0.01)
    + _convolution("rpn_bbox_pred", "rpn/output", 36, kernel=1, rule=_RPN, std=0.01)
    + f"""
layer {{ name: "rpn_cls_score_reshape" type: "Reshape" bottom: "rpn_cls_score"
  top: "rpn_cls_score_reshape" {_RPN}
  reshape_param {{ shape {{ dim: 0 dim: 2 dim: -1 dim: 0 }} }} }}
layer {{ name: "rpn-data" type: "AnchorTarget" bottom: "rpn_cls_score" bottom: "gt_boxes"
  bottom: "im_info" bottom: "data" top: "rpn_labels" top: "rpn_bbox_targets"
  top: "rpn_bbox_inside_weights" top: "rpn_bbox_outside_weights"
  python_param {{ param_str: "'feat_stride': 8" }} include {{ phase: TRAIN stage: "rpn" }} }}
layer {{ name: "rpn_loss_cls" type: "SoftmaxWithLoss" bottom: "rpn_cls_score_reshape"
  bottom: "rpn_labels" top: "rpn_cls_loss" propagate_down: true propagate_down: false
  loss_param {{ ignore_label: -1 normalize: true }} include {{ phase: TRAIN stage: "rpn" }} }}
layer {{ name: "rpn_loss_bbox" type: "SmoothL1Loss" bottom: "rpn_bbox_pred"
  bottom: "rpn_bbox_targets" bottom: "rpn_bbox_inside_weights" bottom: "rpn_bbox_outside_weights"
  top: "rpn_loss_bbox" loss_weight: 1 smooth_l1_loss_param {{ sigma: 3 }}
  include {{ phase: TRAIN stage: "rpn" }} }}
layer {{ name: "rpn_cls_prob" type: "Softmax" bottom: "rpn_cls_score_reshape" top: "rpn_cls_prob"
  {_IN_USE} }}
layer {{ name: "rpn_cls_prob_reshape" type: "Reshape" bottom: "rpn_cls_prob"
  top: "rpn_cls_prob_reshape" {_IN_USE}
  reshape_param {{ shape {{ dim: 0 dim: 18 dim: -1 dim: 0 }} }} }}
"""
    + _proposal(
        'top: "rois" top: "scores"', 'include { phase: TEST stage: "rpn" not_stage: "fast_rcnn" }'
    )
    + _proposal('top: "rois"', 'include { phase: TEST stage: "rpn" stage: "fast_rcnn" }')
    + _proposal(
        'top: "rpn_rois" propagate_down: false propagate_down: false propagate_down: false', _JOINT
    )
    + f"""
layer {{ name: "roi-data" type: "ProposalTarget" bottom: "rpn_rois" bottom: "gt_boxes" top: "rois"
  top: "labels" top: "bbox_targets" top: "bbox_inside_weights" top: "bbox_outside_weights"
  python_param {{ param_str: "'num_classes': 21" }} {_JOINT} }}
layer {{ name: "roi_pool" type: "ROIPooling" bottom: "conv3" bottom: "rois" top: "pool"
  roi_pooling_param {{ pooled_h: 3 pooled_w: 3 spatial_scale: 0.125 }}
  include {{ stage: "fast_rcnn" }} }}
"""
    + _learnt("fc6", "pool", 24, 0.05)
    + """
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" include { stage: "fast_rcnn" } }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" include { stage: "fast_rcnn" } }
"""
    + _learnt("cls_score", "fc6", 21, 0.01)
    + _learnt("bbox_pred", "fc6", 84, 0.001)
    + """
layer { name: "cls_prob" type: "Softmax" bottom: "cls_score" top: "cls_prob"
  include { phase: TEST stage: "fast_rcnn" } }
layer { name: "loss_cls" type: "SoftmaxWithLoss" bottom: "cls_score" bottom: "labels"
  top: "loss_cls" propagate_down: true propagate_down: false
  include { phase: TRAIN stage: "fast_rcnn" } }
layer { name: "loss_bbox" type: "SmoothL1Loss" bottom: "bbox_pred" bottom: "bbox_targets"
  bottom: "bbox_inside_weights" bottom: "bbox_outside_weights" top: "loss_bbox" loss_weight: 1
  include { phase: TRAIN stage: "fast_rcnn" } }
"""
)

SOLVER = """net: "faster_rcnn.prototxt" base_lr: 0.001 lr_policy: "step" gamma: 0.1 stepsize: 6
max_iter: 8 momentum: 0.9 weight_decay: 0.0005 average_loss: 10 display: 20
"""


def write_network(folder):
    """Write the definition and solver files of the tiny network, as in a folder of prototxt/."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faster_rcnn.prototxt").write_text(NET)
    for kind in ("rpn", "fast_rcnn", "end2end"):
        extra = "iter_size: 2\n" if kind == "end2end" else ""
        (folder / f"{kind}_solver.prototxt").write_text(SOLVER + extra)
    return folder


def net_param():
    """The NetParameter of the tiny network, with VOC's counts typed in."""
    return parse_text(NET, caffe_pb2.NetParameter)


def draw(width, height, boxes, labels, seed):
    """A grey noisy image with a light or dark rectangle for each box."""
    image = np.random.default_rng(seed).integers(90, 130, (height, width, 3), np.uint8)
    for (x1, y1, x2, y2), label in zip(np.int64(boxes), labels):
        image[y1 : y2 + 1, x1 : x2 + 1] = 220 if label == 1 else 20
    return image


def make_record(index, split="train"):
    """An image of 64 x 48 pixels with one to three rectangles; image 2 has none."""
    rng = np.random.default_rng([index, len(split)])
    count = 0 if index == 2 else rng.integers(1, 4)
    corners = rng.integers(0, (40, 24), (count, 2))
    sizes = rng.integers(12, 24, (count, 2))
    boxes = np.hstack([corners, corners + sizes - 1]).astype(np.float32)
    labels = rng.integers(1, 3, count)
    return Record(
        f"{split}_{index}", 64, 48, boxes, labels, draw=partial(draw, 64, 48, boxes, labels, index)
    )


def make_dataset(split="train", count=6):
    """A Dataset of `count` drawn images."""
    return Dataset(f"tiny_{split}", CLASSES, [make_record(i, split) for i in range(count)])
