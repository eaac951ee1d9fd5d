"""ProposalTarget: which proposals the region head learns from, and what it should say."""

from dataclasses import dataclass

import numpy as np

from ..boxes.matching import best_objects, split_rois
from ..boxes.overlaps import bbox_overlaps
from ..boxes.sampling import sample
from ..boxes.transform import bbox_transform, class_specific
from ..engine.layer import register
from .box_layer import BoxLayer


@dataclass(frozen=True)
class ProposalTargetSettings:
    """The sampling of regions and their targets; py-faster-rcnn's names and defaults.

    Attributes:
        BATCH_SIZE: how many RoIs are learnt from, of all images together.
        FG_FRACTION: the largest part of them that is foreground.
        FG_THRESH: the least overlap with an object of a foreground RoI.
        BG_THRESH_HI, BG_THRESH_LO: a background RoI's overlap is below the one, and at least the
            other.
        BBOX_INSIDE_WEIGHTS: weights of dx, dy, dw, dh of a foreground RoI.
        BBOX_NORMALIZE_TARGETS_PRECOMPUTED: whether targets are normalised, by
        BBOX_NORMALIZE_MEANS, BBOX_NORMALIZE_STDS: of dx, dy, dw, dh.
    """

    BATCH_SIZE: int = 128
    FG_FRACTION: float = 0.25
    FG_THRESH: float = 0.5
    BG_THRESH_HI: float = 0.5
    BG_THRESH_LO: float = 0.1
    BBOX_INSIDE_WEIGHTS: tuple = (1.0, 1.0, 1.0, 1.0)
    BBOX_NORMALIZE_TARGETS_PRECOMPUTED: bool = False
    BBOX_NORMALIZE_MEANS: tuple = (0.0, 0.0, 0.0, 0.0)
    BBOX_NORMALIZE_STDS: tuple = (0.1, 0.1, 0.2, 0.2)


@register("ProposalTarget")
class ProposalTarget(BoxLayer):
    """RoIs to learn from, with labels and box targets (Fast R-CNN, section 2.3).

    Bottoms: rpn_rois (R, 5), image index, x1, y1, x2, y2; gt_boxes (G, 5) or (N, G, 5), which
    count as proposals too.
    Tops: rois (S, 5), image by image, foreground first; labels (S,), 0 for background; box
    targets, inside and outside weights (S, 4 * num_classes). There is no gradient.

    `param_str` has num_classes, background included.

    NOTE: py-faster-rcnn takes one image; here N share BATCH_SIZE evenly, as in Fast R-CNN.
    """

    num_bottom, num_top = 2, 5
    no_force_backward = (0, 1)
    synchronisations = 1  # for the number of RoIs

    def setup(self, bottom, top):
        params = self.read_params("num_classes")
        if "num_classes" not in params:
            raise self.error(
                "num_classes in python_param { param_str }", "none",
                "Give the number of classes, background included.",
            )  # fmt: skip
        self.num_classes = params["num_classes"]
        self.settings = self.context.get(ProposalTargetSettings)
        self._reshape_tops(top, 1)

    def _reshape_tops(self, top, count):
        top[0].reshape(count, 5)
        top[1].reshape(count)
        for blob in top[2:]:
            blob.reshape(count, 4 * self.num_classes)

    def reshape(self, bottom, top):
        # How many RoIs there are is known after each forward pass.
        if not bottom[0].shape or bottom[0].count_from(1) != 5:
            raise self.error(
                "RoIs (R, 5) as bottom 0: image index, x1, y1, x2, y2",
                f"shape {bottom[0].shape}",
            )  # fmt: skip

    def forward(self, bottom, top):
        objects = self.read_gt_boxes(bottom[1])
        run = self._forward_on_host if self.device.is_host else self._forward_on_device
        run(bottom, top, objects)

    def _forward_on_host(self, bottom, top, objects):
        rois = bottom[0].data.reshape(-1, 5)
        good = np.isfinite(rois).all(axis=1) & np.isin(rois[:, 0], np.arange(len(objects)))
        if not good.all():
            self._refuse_roi(good.argmin(), rois[good.argmin()], len(objects))
        self._check_classes(objects)
        chosen = []
        for i, gt_boxes in enumerate(objects):
            # The objects themselves are proposals as well.
            boxes = np.concatenate([rois[rois[:, 0] == i, 1:], gt_boxes[:, :4]])
            some, labels, targets = proposal_targets(
                boxes, gt_boxes, self.settings, len(objects), self.random(i)
            )
            index = np.full((len(some), 1), i)
            chosen.append((np.concatenate([index, some], axis=1), labels, targets))
        rois, labels, targets = map(np.concatenate, zip(*chosen))
        self._check_any(len(rois))
        weights = self.settings.BBOX_INSIDE_WEIGHTS
        targets, inside = class_specific(targets, labels, self.num_classes, weights)
        self._reshape_tops(top, len(rois))
        for blob, values in zip(top, (rois, labels, targets, inside, inside > 0)):
            blob.data[...] = values

    def _forward_on_device(self, bottom, top, objects):
        self._check_classes(objects)
        kernels, images = self.device.kernels.targets, len(objects)
        rois = bottom[0].array.reshape(bottom[0].shape[0], 5)
        gt_boxes = self.gt_boxes_on_device(bottom[1])
        count = self.settings.BATCH_SIZE // images
        # Room for as many as there may be; the first rows of it are then the tops.
        most = kernels.most_sampled(len(rois), gt_boxes.shape[1], count)
        self._reshape_tops(top, images * most)
        report = kernels.roi_targets(
            rois, gt_boxes, [not len(boxes) for boxes in objects], self.settings, count,
            [self.random_key(i) for i in range(images)], self.num_classes,
            [blob.array for blob in top],
        )  # fmt: skip
        bad, *found = self.device.to_host(report).tolist()
        if bad:
            r = len(rois) - bad
            self._refuse_roi(r, self.device.to_host(rois[r]), images)
        self._check_any(sum(found))
        self._reshape_tops(top, sum(found))

    def _refuse_roi(self, r, roi, images):
        raise self.error(
            f"finite RoIs of image 0 to {images - 1}, those that gt_boxes has",
            f"RoI {r}: {roi.tolist()}", "gt_boxes of several images is (N, G, 5).",
        )  # fmt: skip

    def _check_any(self, count):
        if not count:
            raise self.error(
                "RoIs to learn from", "none that is foreground or background",
                "Raise FG_FRACTION, BATCH_SIZE or BG_THRESH_HI, or lower FG_THRESH.",
            )  # fmt: skip

    def _check_classes(self, objects):
        largest = max((boxes[:, 4].max() for boxes in objects if len(boxes)), default=0)
        if largest >= self.num_classes:
            raise self.error(
                f"classes below num_classes {self.num_classes}", f"{largest:g} in gt_boxes",
                "Set num_classes in param_str, and num_output of cls_score and bbox_pred, to the "
                "data set's number of classes, background included.",
            )  # fmt: skip


ProposalTargetLayer = ProposalTarget
"""py-faster-rcnn's name, in `rpn.proposal_target_layer`."""


def proposal_targets(boxes, gt_boxes, settings, images, rng):
    """A sample of the boxes (S, 4) of one image, its labels (S,) and box targets (S, 4).

    Args:
        boxes: (R, 4). gt_boxes: (G, 5). images: how many share the batch.
        rng: the generator that chooses boxes where there are too many.
    """
    s = settings
    best, overlap = best_objects(bbox_overlaps(boxes.astype(float), gt_boxes[:, :4]))
    # NOTE: BG_THRESH_LO makes background of what is near an object. py-faster-rcnn is left without
    # any RoI in an image without objects; here everything is background there.
    lowest = s.BG_THRESH_LO if len(gt_boxes) else 0
    foreground, background = split_rois(overlap, s.FG_THRESH, s.BG_THRESH_HI, lowest)
    count = s.BATCH_SIZE // images
    foreground, background = sample(
        foreground, background, count, round(s.FG_FRACTION * count), rng
    )
    kept = np.concatenate([foreground, background])
    labels = np.zeros(len(kept))
    targets = np.zeros((len(kept), 4), boxes.dtype)
    if len(foreground):
        objects = gt_boxes[best[foreground]]
        labels[: len(foreground)] = objects[:, 4]
        targets[: len(foreground)] = bbox_transform(boxes[foreground], objects[:, :4])
        if s.BBOX_NORMALIZE_TARGETS_PRECOMPUTED:
            targets[: len(foreground)] -= np.array(s.BBOX_NORMALIZE_MEANS)
            targets[: len(foreground)] /= np.array(s.BBOX_NORMALIZE_STDS)
    return boxes[kept], labels, targets
