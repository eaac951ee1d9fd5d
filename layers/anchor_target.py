"""AnchorTarget: what the region proposal network should say at each anchor."""

import logging
from dataclasses import dataclass

import numpy as np

from ..boxes.matching import label_anchors
from ..boxes.overlaps import bbox_overlaps
from ..boxes.sampling import subsample_labels
from ..boxes.transform import bbox_transform
from ..engine.layer import register
from .box_layer import AnchorGrid, BoxLayer

log = logging.getLogger("demitasse.net")


@dataclass(frozen=True)
class AnchorTargetSettings:
    """Which anchors the RPN learns from, and how much; py-faster-rcnn's names and defaults.

    Attributes:
        RPN_POSITIVE_OVERLAP, RPN_NEGATIVE_OVERLAP, RPN_CLOBBER_POSITIVES: see `label_anchors`.
        RPN_BATCHSIZE: how many anchors of an image are learnt from.
        RPN_FG_FRACTION: the largest part of them that is foreground.
        RPN_BBOX_INSIDE_WEIGHTS: weights of dx, dy, dw, dh of a foreground anchor.
        RPN_POSITIVE_WEIGHT: the part of the foreground in the box loss, between 0 and 1; below 0,
            all anchors learnt from count alike.
    """

    RPN_POSITIVE_OVERLAP: float = 0.7
    RPN_NEGATIVE_OVERLAP: float = 0.3
    RPN_CLOBBER_POSITIVES: bool = False
    RPN_FG_FRACTION: float = 0.5
    RPN_BATCHSIZE: int = 256
    RPN_BBOX_INSIDE_WEIGHTS: tuple = (1.0, 1.0, 1.0, 1.0)
    RPN_POSITIVE_WEIGHT: float = -1.0


@register("AnchorTarget")
class AnchorTarget(BoxLayer):
    """Labels and box targets of the RPN's anchors (Faster R-CNN, section 3.1.2).

    Bottoms: rpn_cls_score (N, 2A, H, W), of which only the shape counts; gt_boxes (G, 5) or
    (N, G, 5); im_info (N, 3); optionally the images, for py-faster-rcnn's nets.
    Tops: labels (N, 1, A * H, W), 1, 0, or -1 for anchors that do not count; box targets, inside
    and outside weights (N, 4A, H, W).

    `param_str` has feat_stride, and optionally scales, ratios and allowed_border, by how many
    pixels an anchor may reach out of the image.

    NOTE: py-faster-rcnn takes one image; here RPN_BATCHSIZE counts for each. An image without
    objects has background only.
    """

    min_bottom, max_bottom = 3, 4
    num_top = 4
    no_force_backward = (0, 1, 2, 3)

    def setup(self, bottom, top):
        params = self.read_params("feat_stride", "scales", "ratios", "allowed_border")
        self.grid = AnchorGrid(self, params)
        self.border = params.get("allowed_border", 0)
        self._warned = False
        self.settings = self.context.get(AnchorTargetSettings)
        weight = self.settings.RPN_POSITIVE_WEIGHT
        if not (weight < 0 or 0 < weight < 1):
            raise self.error("RPN_POSITIVE_WEIGHT below 0, or between 0 and 1", weight)

    def reshape(self, bottom, top):
        self.grid.check_channels(self, bottom[0], "rpn_cls_score", 2)
        images, _, height, width = bottom[0].shape
        anchors = self.grid.count
        top[0].reshape(images, 1, anchors * height, width)
        for blob in top[1:]:
            blob.reshape(images, 4 * anchors, height, width)

    def forward(self, bottom, top):
        images = bottom[0].shape[0]
        info = self.read_im_info(bottom[2], images)
        objects = self.read_gt_boxes(bottom[1])
        if len(objects) != images:
            raise self.error(
                f"gt_boxes of {images} images, as rpn_cls_score", f"shape {bottom[1].shape}"
            )
        run = self._forward_on_host if self.device.is_host else self._forward_on_device
        for i in range(images):
            run(bottom, top, i, info[i], objects[i])

    def _forward_on_host(self, bottom, top, i, im_info, objects):
        _, _, height, width = bottom[0].shape
        anchors = self.grid.at(height, width)
        inside = inside_image(anchors, im_info, self.border)
        if not len(inside):
            self._warn(im_info)
        targets = anchor_targets(anchors[inside], objects[:, :4], self.settings, self.random(i))
        for blob, values, outside in zip(top, targets, (-1, 0, 0, 0)):
            every = np.full((len(anchors), *values.shape[1:]), outside, np.float32)
            every[inside] = values
            # (H * W * A, K) -> (H, W, A * K) -> (A * K, H, W)
            maps = every.reshape(height, width, -1).transpose(2, 0, 1)
            blob.data[i] = maps.reshape(blob.shape[1:])

    def _forward_on_device(self, bottom, top, i, im_info, objects):
        _, _, height, width = bottom[0].shape
        limits = inside_limits(im_info, self.border)
        if not self.grid.any_inside(height, width, limits):
            self._warn(im_info)
        anchors = self.grid.on_device(self.device), self.grid.stride, height, width
        self.device.kernels.targets.anchor_targets(
            anchors, self.gt_boxes_on_device(bottom[1])[i], limits, self.settings,
            self.random_key(i), [blob.array[i] for blob in top],
        )  # fmt: skip

    def _warn(self, im_info):
        """Say once that there was an image to learn nothing from, the cause of losses of 0."""
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: no anchor of scales %s (times 16 pixels) lies inside an image of %g x %g "
                "pixels, so the RPN learns nothing from it. Choose smaller ANCHOR_SCALES, or "
                "larger images by TRAIN.SCALES.",
                self._where(), ", ".join(f"{s:g}" for s in self.grid.scales), *im_info[1::-1],
            )  # fmt: skip


AnchorTargetLayer = AnchorTarget
"""py-faster-rcnn's name, in `rpn.anchor_target_layer`."""


def inside_limits(im_info, border=0):
    """(low, right, bottom): what x1, y1 of an anchor must reach, and x2 and y2 must not.

    It may reach out of its image by at most `border` pixels.
    """
    height, width = im_info[:2]
    return -border, width + border, height + border


def inside_image(anchors, im_info, border=0):
    """Indices of the anchors that reach out of an image by at most `border` pixels."""
    low, right, bottom = inside_limits(im_info, border)
    return np.flatnonzero(
        (anchors[:, 0] >= low)
        & (anchors[:, 1] >= low)
        & (anchors[:, 2] < right)
        & (anchors[:, 3] < bottom)
    )


def anchor_targets(anchors, gt_boxes, settings, rng):
    """Labels (N,), targets, inside and outside weights (N, 4) of anchors (N, 4) of one image.

    Args:
        gt_boxes: (G, 4). rng: the generator that chooses anchors where there are too many.
    """
    s = settings
    labels, objects = label_anchors(
        bbox_overlaps(anchors, gt_boxes), s.RPN_POSITIVE_OVERLAP, s.RPN_NEGATIVE_OVERLAP,
        s.RPN_CLOBBER_POSITIVES,
    )  # fmt: skip
    labels = subsample_labels(labels, s.RPN_BATCHSIZE, s.RPN_FG_FRACTION, rng)
    targets = np.zeros(anchors.shape, np.float32)
    if len(gt_boxes):
        targets[...] = bbox_transform(anchors, gt_boxes[objects])
    inside_weights = np.zeros_like(targets)
    inside_weights[labels == 1] = s.RPN_BBOX_INSIDE_WEIGHTS
    return labels, targets, inside_weights, _outside_weights(labels, s.RPN_POSITIVE_WEIGHT)


def _outside_weights(labels, positive_weight):
    positive, negative = labels == 1, labels == 0
    count = np.count_nonzero
    if positive_weight < 0:
        all_alike = 1 / max(1, count(labels >= 0))
        weights = all_alike * (labels >= 0)
    else:
        weights = positive_weight / max(1, count(positive)) * positive
        weights += (1 - positive_weight) / max(1, count(negative)) * negative
    return np.repeat(weights[:, None], 4, axis=1)
