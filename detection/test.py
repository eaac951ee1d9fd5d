"""Testing: a net and images in, scored boxes out (py-faster-rcnn: lib/fast_rcnn/test.py).

Nets have the inputs `data` and `im_info` if they propose regions themselves, else `data` and
`rois`; a net of the engine and a `caffe.Net` do equally well. Boxes are in the image's own pixels.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..boxes.nms import nms
from ..boxes.transform import bbox_transform_inv, clip_boxes
from ..engine.blob import read_together
from ..engine.errors import DataError, NetError
from .images import prepare_image, stack_images
from .limits import counts_later, limits_of, proposal_limits
from .opening import RESULTS
from .pyramid import distinct_rois, project_rois
from .reading import ImageReader

_PRE_NMS, _POST_NMS = -1, 2000  # proposals an image to train with (py-faster-rcnn's rpn_generate)
_SCORE_THRESHOLD = 0.05  # of probabilities


# ---- images


@dataclass(frozen=True)
class Prepared:
    """An image as nets take it.

    Attributes:
        shape: the image's (height, width).
        levels: [(blob (3, h, w), factor)] for each of TEST.SCALES; a pixel of the image is
            `factor` pixels of the blob.
    """

    shape: tuple
    levels: list


def prepare(image, cfg):
    """A BGR image (H, W, 3) at all of TEST.SCALES, as `Prepared`."""
    levels = [prepare_image(image, cfg, scale, cfg.TEST.MAX_SIZE) for scale in cfg.TEST.SCALES]
    return Prepared(image.shape[:2], [(blob, float(factor)) for blob, factor in levels])


# ---- one image


def im_detect(net, image, cfg, boxes=None):
    """Scores and boxes of all classes in one image.

    With several TEST.SCALES, a net that proposes regions runs once a scale, and the detections of
    all scales are returned; given boxes are each looked at in the scale where their area is nearest
    to 224 x 224 pixels (SPPnet, section 4.1).

    Args:
        image: BGR (H, W, 3) uint8, or what `prepare` made of it.
        boxes: (R, 4) to be classified, for a net with the input `rois`.
    Returns: scores (R, C) and boxes (R, 4C), clipped to the image.
    Raises: NetError if the net has other inputs or outputs.
    """
    prepared = image if isinstance(image, Prepared) else prepare(image, cfg)
    if boxes is not None:
        return _detect_in_boxes(net, prepared, cfg, np.asarray(boxes, np.float32))
    parts = []
    for blob, factor in prepared.levels:
        run(net, data=blob[None], im_info=_image_info(blob, factor))
        rois = _read(net, "rois")[:, 1:5] / factor
        parts.append(_detections(net, rois, prepared.shape, cfg))
    scores, boxes = zip(*parts)
    return np.concatenate(scores), np.concatenate(boxes)


def im_proposals(net, image, cfg):
    """The regions that an RPN proposes in one image, best first.

    With several TEST.SCALES those of all scales compete: the better of two that overlap by more
    than TEST.RPN_NMS_THRESH stays, and at most TEST.RPN_POST_NMS_TOP_N do.

    Returns: boxes (R, 4) and scores (R,).
    """
    prepared = image if isinstance(image, Prepared) else prepare(image, cfg)
    return _im_proposals(net, prepared, limits_of(cfg.TEST))


def _im_proposals(net, prepared, limits):
    parts = []
    for blob, factor in prepared.levels:
        run(net, data=blob[None], im_info=_image_info(blob, factor))
        parts.append(np.hstack([_read(net, "rois")[:, 1:5] / factor, _read(net, "scores")]))
    dets = np.concatenate(parts)
    if len(parts) > 1:
        most = limits.RPN_POST_NMS_TOP_N
        dets = dets[nms(dets, limits.RPN_NMS_THRESH, most if most > 0 else None)]
    return dets[:, :4], dets[:, 4]


def class_detections(scores, boxes, cfg, thresh=None, max_per_image=100):
    """From `im_detect`'s result the detections of each class.

    1. Scores up to `thresh` are dropped (None: 0.05; nothing where TEST.SVM).
    2. Non-maximum suppression within each class, by TEST.NMS.
    3. The best `max_per_image` of all classes stay (0: all; equal scores stay together).

    Returns: a list with (D, 5) float32 for each class: x1, y1, x2, y2, score, best first; none for
        class 0, the background.
    """
    if thresh is None:
        thresh = -math.inf if cfg.TEST.SVM else _SCORE_THRESHOLD
    found = [no_detections()]
    for c in range(1, scores.shape[1]):
        chosen = np.flatnonzero(scores[:, c] > thresh)
        dets = np.column_stack([boxes[chosen, 4 * c : 4 * c + 4], scores[chosen, c]])
        dets = dets.astype(np.float32, copy=False)
        found.append(dets[nms(dets, cfg.TEST.NMS)])
    all_scores = np.concatenate([dets[:, 4] for dets in found])
    if 0 < max_per_image < len(all_scores):
        worst = np.sort(all_scores)[-max_per_image]
        found = [dets[dets[:, 4] >= worst] for dets in found]
    return found


def no_detections():
    """The detections where there are none: (0, 5)."""
    return np.zeros((0, 5), np.float32)


def _detect_in_boxes(net, prepared, cfg, boxes):
    """`im_detect` for given boxes."""
    if not len(boxes):
        classes = _read(net, "cls_prob").shape[1]
        return np.zeros((0, classes), np.float32), np.zeros((0, 4 * classes), np.float32)
    rois = project_rois(boxes, [factor for _, factor in prepared.levels])
    first, inverse = slice(None), slice(None)
    if cfg.DEDUP_BOXES > 0:
        first, inverse = distinct_rois(rois, cfg.DEDUP_BOXES)
    run(net, data=stack_images([blob for blob, _ in prepared.levels]), rois=rois[first])
    scores, pred_boxes = _detections(net, boxes[first], prepared.shape, cfg)
    return scores[inverse], pred_boxes[inverse]


# ---- the net


def run(net, **inputs):
    """Run a net forward on its inputs, whose shapes may be new ones."""
    if set(net.inputs) != set(inputs):
        raise NetError(
            f"net {net.name!r}", f"the inputs {', '.join(inputs)}",
            ", ".join(net.inputs) or "no inputs",
            "A net with the input rois needs boxes (proposals), one with im_info makes its own; "
            "a training net has no inputs: open the deploy prototxt, or phase TEST.",
        )  # fmt: skip
    for name, values in inputs.items():
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].set_data(values)
    with counts_later(net) as layers:
        net.forward()
    results = [net.blobs[name] for name in RESULTS if name in net.blobs]
    results = [blob for blob in results if not blob.data_storage.gone]
    unsettled = [layer for layer in layers if layer.is_unsettled]
    read_together([*results, *(layer.report for layer in unsettled)])
    for layer in unsettled:
        room, count = layer.settle()
        for blob in results:
            if blob.shape[0] == room:
                blob.reshape(count, *blob.shape[1:])


def _image_info(blob, factor):
    return np.array([[*blob.shape[1:], factor]], np.float32)


def _read(net, name):
    """A copy of a blob's values as a table, one row an item."""
    data = net.blobs[name].host_data
    return data.reshape(data.shape[0], math.prod(data.shape[1:])).copy()


def _detections(net, boxes, shape, cfg):
    """Scores (R, C) and boxes (R, 4C) after a run of the net on RoIs that are `boxes`."""
    scores = _read(net, "cls_score" if cfg.TEST.SVM else "cls_prob")
    wanted = (len(boxes), 4 * scores.shape[1])
    if not cfg.TEST.BBOX_REG:
        return scores, np.tile(boxes, (1, scores.shape[1]))
    deltas = _read(net, "bbox_pred")
    if len(scores) != len(boxes) or deltas.shape != wanted:
        raise NetError(
            f"net {net.name!r}", f"a row for each of {len(boxes)} RoIs, with 4 deltas a class",
            f"scores {scores.shape}, bbox_pred {deltas.shape}",
        )  # fmt: skip
    return scores, clip_boxes(bbox_transform_inv(boxes, deltas), shape)


# ---- data sets


def test_net(net, dataset, cfg, max_per_image=100, thresh=None, progress=True, proposals=None):
    """Detect in all images of a data set.

    An image that cannot be read is named in the log and has no detections.

    Args:
        max_per_image, thresh: as of `class_detections`.
        progress: show a bar on a terminal.
        proposals: {record name: (R, 4) or (R, 5)} for a net with the input `rois`.
    Returns: all_boxes[class][image], each (D, 5): x1, y1, x2, y2, score.
    Raises: NetError if net and data set differ in classes; DataError for missing proposals.
    """
    all_boxes = [[no_detections() for _ in dataset.records] for _ in dataset.classes]
    reader = ImageReader(dataset, lambda image: prepare(image, cfg), progress)
    for i, record, prepared in reader:
        boxes = _proposals_of(record, proposals)
        scores, boxes = im_detect(net, prepared, cfg, boxes)
        _check_classes(net, scores.shape[1], dataset)
        reader.mark("detection")
        found = class_detections(scores, boxes, cfg, thresh, max_per_image)
        for per_image, dets in zip(all_boxes, found):
            per_image[i] = dets
        reader.mark("suppression")
    return all_boxes


def generate_proposals(net, dataset, cfg, progress=True, pre_nms=_PRE_NMS, post_nms=_POST_NMS):
    """The regions that an RPN proposes in all images of a data set.

    An image that cannot be read is named in the log and has none.

    Args:
        net: with the outputs `rois` and `scores`.
        cfg: its TEST.RPN_NMS_THRESH and RPN_MIN_SIZE count, whatever the prototxt says.
        pre_nms, post_nms: how many of the best are left before and after suppression, in place of
            TEST.RPN_PRE_NMS_TOP_N and RPN_POST_NMS_TOP_N; 0 or below for all.
    Returns: {record name: (R, 5)}: x1, y1, x2, y2, score, best first.
    """
    found = {record.name: no_detections() for record in dataset.records}
    reader = ImageReader(dataset, lambda image: prepare(image, cfg), progress)
    limits = limits_of(cfg.TEST, RPN_PRE_NMS_TOP_N=pre_nms, RPN_POST_NMS_TOP_N=post_nms)
    with proposal_limits(net, limits):
        for _, record, prepared in reader:
            boxes, scores = _im_proposals(net, prepared, limits)
            found[record.name] = np.column_stack([boxes, scores]).astype(np.float32, copy=False)
            reader.mark("proposals")
    return found


def _proposals_of(record, proposals):
    if proposals is None:
        return None
    if record.name not in proposals:
        raise DataError("proposals", f"those of image {record.name!r}", "none")
    return np.asarray(proposals[record.name])[:, :4]


def _check_classes(net, count, dataset):
    if count != len(dataset.classes):
        raise NetError(
            f"net {net.name!r}", f"{len(dataset.classes)} classes, as data set {dataset.name!r}",
            f"{count}", "Test it on the data set that it was trained for, or adapt it.",
        )  # fmt: skip
