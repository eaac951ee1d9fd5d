"""The gradient of the joint loss, of RPN and region head over shared features, as a whole."""

import numpy as np
import pytest

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import TRAIN
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers.anchor_target import AnchorTargetSettings

FILLERS = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 0.3 }'
# Images of 40 x 48; features of stride 4, in 3 channels; 2 anchors, of 8 and 16 pixels; 3 classes.
NET = f"""
layer {{ name: "in" type: "Input" top: "data" top: "im_info" top: "gt_boxes" top: "rois"
        top: "labels" top: "bbox_targets" top: "inside" top: "outside"
        input_param {{ shape {{ dim: 1 dim: 2 dim: 40 dim: 48 }} shape {{ dim: 1 dim: 3 }}
          shape {{ dim: 2 dim: 5 }} shape {{ dim: 4 dim: 5 }} shape {{ dim: 4 }}
          shape {{ dim: 4 dim: 12 }} shape {{ dim: 4 dim: 12 }} shape {{ dim: 4 dim: 12 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 3 kernel_size: 4 stride: 4 {FILLERS} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "conv" top: "conv" }}
layer {{ name: "rpn_score" type: "Convolution" bottom: "conv" top: "rpn_score"
        convolution_param {{ num_output: 4 kernel_size: 1 {FILLERS} }} }}
layer {{ name: "rpn_pred" type: "Convolution" bottom: "conv" top: "rpn_pred"
        convolution_param {{ num_output: 8 kernel_size: 1 {FILLERS} }} }}
layer {{ name: "rpn-data" type: "Python" bottom: "rpn_score" bottom: "gt_boxes" bottom: "im_info"
        bottom: "data" top: "rpn_labels" top: "rpn_targets" top: "rpn_inside" top: "rpn_outside"
        python_param {{ module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer"
                       param_str: "{{feat_stride: 4, scales: [0.5, 1], ratios: [1]}}" }} }}
layer {{ name: "rpn_reshape" type: "Reshape" bottom: "rpn_score" top: "rpn_reshape"
        reshape_param {{ shape {{ dim: 0 dim: 2 dim: -1 dim: 0 }} }} }}
layer {{ name: "rpn_loss_cls" type: "SoftmaxWithLoss" bottom: "rpn_reshape" bottom: "rpn_labels"
        top: "rpn_loss_cls" propagate_down: 1 propagate_down: 0 loss_weight: 0.7
        loss_param {{ ignore_label: -1 normalize: true }} }}
layer {{ name: "rpn_loss_bbox" type: "SmoothL1Loss" bottom: "rpn_pred" bottom: "rpn_targets"
        bottom: "rpn_inside" bottom: "rpn_outside" top: "rpn_loss_bbox" loss_weight: 1.3
        smooth_l1_loss_param {{ sigma: 3 }} }}
layer {{ name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
        roi_pooling_param {{ pooled_h: 2 pooled_w: 3 spatial_scale: 0.25 }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
        inner_product_param {{ num_output: 5 {FILLERS} }} }}
layer {{ name: "sigmoid" type: "Sigmoid" bottom: "fc" top: "fc" }}
layer {{ name: "cls_score" type: "InnerProduct" bottom: "fc" top: "cls_score"
        inner_product_param {{ num_output: 3 {FILLERS} }} }}
layer {{ name: "bbox_pred" type: "InnerProduct" bottom: "fc" top: "bbox_pred"
        inner_product_param {{ num_output: 12 {FILLERS} }} }}
layer {{ name: "loss_cls" type: "SoftmaxWithLoss" bottom: "cls_score" bottom: "labels"
        top: "loss_cls" loss_weight: 1 propagate_down: 1 propagate_down: 0 }}
layer {{ name: "loss_bbox" type: "SmoothL1Loss" bottom: "bbox_pred" bottom: "bbox_targets"
        bottom: "inside" bottom: "outside" top: "loss_bbox" loss_weight: 0.4 }}
"""
LOSSES = {"rpn_loss_cls": 0.7, "rpn_loss_bbox": 1.3, "loss_cls": 1, "loss_bbox": 0.4}
ROIS = [[0, 0, 0, 47, 39], [0, 5, 9, 30, 26], [0, 20, 2, 44, 15], [0, 12, 20, 19, 39]]
STEP = 1e-6


@pytest.fixture(scope="module")
def net():
    """The net in float64 after a pass both ways."""
    rng = np.random.default_rng(3)
    settings = [AnchorTargetSettings(RPN_BATCHSIZE=10**6)]
    param = parse_text(NET, caffe_pb2.NetParameter, "joint net")
    # Gradients of all blobs, so that each part of a sum is looked at.
    param.force_backward = True
    net = Net(param, TRAIN, context=Context(1, settings), dtype=np.float64)
    labels = np.array([1, 0, 2, 1])
    inside = np.zeros((4, 12))
    for r, label in enumerate(labels):
        inside[r, 4 * label : 4 * label + 4] = label > 0
    values = {
        "data": rng.normal(size=(1, 2, 40, 48)), "im_info": [[40, 48, 1]],
        "gt_boxes": [[4, 4, 19, 17, 1], [22, 8, 30, 16, 2]], "rois": ROIS, "labels": labels,
        "bbox_targets": rng.normal(size=(4, 12)), "inside": inside, "outside": inside,
    }  # fmt: skip
    for name, value in values.items():
        net.blobs[name].set_data(np.array(value))
    net.forward()
    net.backward()
    return net


def test_the_loss_is_the_weighted_sum(net):
    parts = [weight * net.blobs[name].data for name, weight in LOSSES.items()]
    assert min(parts) > 0
    assert net.forward() == pytest.approx(sum(parts))
    labels = net.blobs["rpn_labels"].data
    assert (labels == 1).sum() > 1 and (labels == 0).sum() > 10


def check(net, name, blob, indices):
    """Compare a blob's gradient with central differences of the net's whole loss."""
    values, gradient = blob.data.reshape(-1), blob.diff.reshape(-1).copy()
    assert gradient[indices].any(), name
    for i in indices:
        kept = values[i]
        values[i] = kept + STEP
        above = net.forward()
        values[i] = kept - STEP
        below = net.forward()
        values[i] = kept
        numeric = (above - below) / (2 * STEP)
        assert gradient[i] == pytest.approx(numeric, rel=1e-5, abs=1e-7), f"{name}[{i}]"


@pytest.mark.parametrize("layer", ["conv", "rpn_score", "rpn_pred", "fc", "cls_score", "bbox_pred"])
def test_gradients_of_all_parameters(net, layer):
    for k, blob in enumerate(net.params[layer]):
        check(net, f"{layer} parameter {k}", blob, np.arange(blob.count))


def test_gradients_of_the_image(net):
    blob = net.blobs["data"]
    check(net, "data", blob, np.arange(0, blob.count, 37))


def test_boxes_have_no_gradient(net):
    for name in ("rois", "gt_boxes", "im_info"):
        assert not net.blobs[name].diff.any()
