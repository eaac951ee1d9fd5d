"""What is trained on: an entry for each image and each mirrored image, with its RoIs and targets.

Nothing here holds pixels, and a mirrored image is a view: it shares its RoIs with the image itself,
and coordinates are mirrored when they are asked for.
"""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np

from ..boxes.matching import best_objects, split_rois
from ..boxes.overlaps import bbox_overlaps
from ..boxes.transform import bbox_transform, flip_boxes, turn_boxes_over
from ..engine.errors import DataError
from .datasets.record import Record

log = logging.getLogger("demitasse.detection")

_CROWD_COVER = 0.7  # a proposal with more of its area than this in a crowd says nothing


@dataclass(frozen=True, eq=False)
class Rois:
    """The RoIs of an image, not mirrored: the ground-truth boxes, then the proposals.

    boxes (R, 4) float32; overlaps (R,) float32, the largest with any ground-truth box; matches (R,)
    int32, which box that is, or -1 where none is touched.
    """

    boxes: np.ndarray
    overlaps: np.ndarray
    matches: np.ndarray


@dataclass(frozen=True)
class BoxStatistics:
    """Means and standard deviations of regression targets, (num_classes, 4) each.

    A net learns (target - mean) / std. Stds are never 0.
    """

    means: np.ndarray
    stds: np.ndarray


@dataclass(eq=False)
class RoiEntry:
    """An image to train on, mirrored if `flipped`, and upside down if `turned_over`.

    `boxes` (G, 4) and `labels` (G,) are the objects to learn, in the image as it is shown. `rois`
    are kept as they are in the image on disk; see `roi_boxes`.
    """

    record: Record
    flipped: bool
    boxes: np.ndarray
    labels: np.ndarray
    rois: Rois
    statistics: BoxStatistics | None = None
    turned_over: bool = False

    def read(self):
        """The image as it is shown, (H, W, 3) BGR uint8. Raises DataError if it cannot be read."""
        image = self.record.read()
        if not (self.flipped or self.turned_over):
            return image
        from ..engine.opencv import cv2

        way = {(True, False): 1, (False, True): 0, (True, True): -1}[self.flipped, self.turned_over]
        return cv2.flip(image, way)  # a NumPy view would cost its reader more

    def roi_boxes(self, rows=slice(None)):
        """RoIs in the image as it is shown, (n, 4)."""
        boxes = self.rois.boxes[rows]
        if self.flipped:
            boxes = flip_boxes(boxes, self.record.width)
        return turn_boxes_over(boxes, self.record.height) if self.turned_over else boxes

    def roi_labels(self, rows=slice(None)):
        """The class of the object that each RoI overlaps most, (n,); 0 where there is none."""
        return np.append(self.labels, 0)[self.rois.matches[rows]]  # a match of -1 takes the 0

    def split(self, cfg):
        """Indices of the RoIs that count as foreground, and as background.

        Without objects to learn all are background.
        """
        t = cfg.TRAIN
        # NOTE: BG_THRESH_LO makes background of what is near an object. py-faster-rcnn is left
        # without any RoI in an image without objects, and drops it.
        lowest = t.BG_THRESH_LO if len(self.boxes) else 0
        return split_rois(self.rois.overlaps, t.FG_THRESH, t.BG_THRESH_HI, lowest)

    def mirrored(self):
        """The same image, mirrored."""
        boxes = flip_boxes(self.boxes, self.record.width)
        return dataclasses.replace(self, flipped=not self.flipped, boxes=boxes)

    def upside_down(self):
        """The same image, mirrored top to bottom."""
        boxes = turn_boxes_over(self.boxes, self.record.height)
        return dataclasses.replace(self, turned_over=not self.turned_over, boxes=boxes)


def make_roidb(dataset, flipped=True, proposals=None, use_difficult=False, vflipped=False):
    """The entries to train on: all images in order, then, if `flipped`, all of them mirrored, then,
    if `vflipped`, all these upside down.

    Objects marked as difficult are not learnt unless `use_difficult`; neither are crowds, and
    proposals that lie in one are left out. Images without objects have their entries like others.

    Args:
        dataset: a Dataset.
        proposals: {record name: (R, 4) or (R, 5) array}, xyxy in the image (and a score). Without,
            the only RoIs are the ground-truth boxes.

    Raises: DataError for an image that has no proposals in `proposals`, or bad ones.
    """
    entries = []
    for record in dataset.records:
        learnt = ~record.crowd if use_difficult else ~(record.crowd | record.difficult)
        boxes = record.boxes[learnt]
        given = np.zeros((0, 4), np.float32)
        if proposals is not None:
            given = _outside_crowds(_proposals_of(record, proposals), record.boxes[record.crowd])
        rois = match_rois(boxes, given)
        entries.append(RoiEntry(record, False, boxes, record.labels[learnt], rois))
    if flipped:
        entries += [entry.mirrored() for entry in entries]
    if vflipped:
        entries += [entry.upside_down() for entry in entries]
    return entries


def _proposals_of(record, proposals):
    where = f"proposals of image {record.name!r}"
    if record.name not in proposals:
        raise DataError(where, "boxes", "none", "Make proposals for this very data set.")
    boxes = np.asarray(proposals[record.name])
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise DataError(where, "an array (R, 4) or (R, 5)", f"shape {boxes.shape}")
    boxes = boxes[:, :4].astype(np.float32)
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
        raise DataError(where, "finite x1 <= x2 and y1 <= y2", "others")
    return boxes


def _outside_crowds(boxes, crowds):
    """The boxes that no crowd covers by more than _CROWD_COVER (py-faster-rcnn: for COCO)."""
    if not len(crowds) or not len(boxes):
        return boxes
    # (N, 1, 2) with (1, K, 2): the corners of each box's intersection with each crowd
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    covered = np.clip(high - low + 1, 0, None).prod(axis=2).max(axis=1)
    return boxes[covered <= _CROWD_COVER * (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)]


def match_rois(gt_boxes, proposals):
    """The Rois of ground-truth boxes (G, 4), which are RoIs themselves, and proposals (P, 4)."""
    count = len(gt_boxes)
    boxes = np.concatenate([gt_boxes, proposals]).astype(np.float32, copy=False)
    overlaps = np.ones(len(boxes), np.float32)
    matches = np.arange(len(boxes), dtype=np.int32)
    best, overlaps[count:] = best_objects(bbox_overlaps(boxes[count:], boxes[:count]))
    matches[count:] = np.where(overlaps[count:] > 0, best, -1)
    return Rois(boxes, overlaps, matches)


def filter_roidb(roidb, cfg, has_rpn=None):
    """The entries that can be trained on.

    An RPN (`has_rpn`, or cfg.TRAIN.HAS_RPN) finds negatives in every image. Without one, an entry
    must have a RoI that counts as foreground or as background.

    Raises: DataError if there are none.
    """
    has_rpn = cfg.TRAIN.HAS_RPN if has_rpn is None else has_rpn
    kept = [entry for entry in roidb if has_rpn or any(map(len, entry.split(cfg)))]
    if not kept:
        raise DataError(
            "training images", "one with RoIs of foreground or background", f"none of {len(roidb)}",
            "Look at TRAIN.FG_THRESH, TRAIN.BG_THRESH_LO and the proposals.",
        )  # fmt: skip
    if len(kept) < len(roidb):
        log.info("%d of %d images have RoIs to train on", len(kept), len(roidb))
    return kept


# ---- bounding-box regression


def regression_targets(entry, rows, cfg):
    """Classes (n,) and targets (n, 4) of RoIs `rows`, not normalized.

    RoIs of less than TRAIN.BBOX_THRESH overlap have class 0 and no target (zeros).
    """
    classes = entry.roi_labels(rows)
    classes[entry.rois.overlaps[rows] < cfg.TRAIN.BBOX_THRESH] = 0
    targets = np.zeros((len(classes), 4), np.float32)
    learnt = np.flatnonzero(classes)
    if len(learnt):
        gt_boxes = entry.boxes[entry.rois.matches[rows][learnt]]
        targets[learnt] = bbox_transform(entry.roi_boxes(rows)[learnt], gt_boxes)
    return classes, targets


def add_bbox_regression_targets(roidb, cfg, num_classes):
    """Give all entries the statistics that their regression targets are normalized by.

    They are those of all targets in `roidb`, class by class; with
    BBOX_NORMALIZE_TARGETS_PRECOMPUTED the BBOX_NORMALIZE_MEANS and _STDS for every class; and 0 and
    1 without BBOX_NORMALIZE_TARGETS.

    Returns: the BoxStatistics, for undoing it in the trained weights.
    """
    t = cfg.TRAIN
    shape = (num_classes, 4)
    if not t.BBOX_NORMALIZE_TARGETS:
        statistics = BoxStatistics(np.zeros(shape), np.ones(shape))
    elif t.BBOX_NORMALIZE_TARGETS_PRECOMPUTED:
        means, stds = t.BBOX_NORMALIZE_MEANS, t.BBOX_NORMALIZE_STDS
        statistics = BoxStatistics(
            np.tile(means, (num_classes, 1)), np.tile(stds, (num_classes, 1))
        )
    else:
        statistics = measure_targets(roidb, cfg, num_classes)
    for entry in roidb:
        entry.statistics = statistics
    return statistics


def measure_targets(roidb, cfg, num_classes):
    """The BoxStatistics of all regression targets in a roidb."""
    counts = np.zeros(num_classes)
    sums, squares = np.zeros((2, num_classes, 4))
    for entry in roidb:
        rows = np.flatnonzero(entry.rois.overlaps >= cfg.TRAIN.BBOX_THRESH)
        classes, targets = regression_targets(entry, rows, cfg)
        targets = targets[classes > 0].astype(np.float64)
        classes = classes[classes > 0]
        counts += np.bincount(classes, minlength=num_classes)
        np.add.at(sums, classes, targets)
        np.add.at(squares, classes, targets**2)
    means = sums / np.maximum(counts, 1)[:, None]
    variances = squares / np.maximum(counts, 1)[:, None] - means**2
    # NOTE: py-faster-rcnn divides by 0 where all targets of a class are equal, as they are when its
    # boxes are their own only RoIs; here they are only shifted then.
    return BoxStatistics(means, np.where(variances > 1e-12, np.sqrt(np.abs(variances)), 1.0))
