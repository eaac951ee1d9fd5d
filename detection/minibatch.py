"""Batches of images with what is to be learnt from them, each a function of its number."""

import functools
import logging

import numpy as np

from ..boxes.sampling import sample
from ..boxes.transform import class_specific
from ..engine.errors import DataError
from ..engine.random import RandomStream
from .images import prepare_image, stack_images
from .roidb import regression_targets

log = logging.getLogger("demitasse.detection")

RPN_BLOBS = ("data", "im_info", "gt_boxes")
FAST_RCNN_BLOBS = ("data", "rois", "labels")
REGRESSION_BLOBS = ("bbox_targets", "bbox_inside_weights", "bbox_outside_weights")


class RoiBatches:
    """Batches 0, 1, 2, ... of TRAIN.IMS_PER_BATCH images; each depends on its number and the seed.

    Every epoch has an order of its own. A batch holds data (N, 3, h, w), images of different sizes
    padded by zeros at the right and below, and

    * with an RPN: im_info (N, 3) = height, width and scale of each scaled image; gt_boxes (G, 5) =
      x1, y1, x2, y2, class in the scaled image, or (N, G, 5) for several, with rows of class 0
      where there are fewer objects, and at least one row;
    * without: rois (R, 5) = number of the image, x1, y1, x2, y2 in the scaled image; labels (R,);
      and with BBOX_REG bbox_targets (R, 4 * num_classes) and inside and outside weights of that
      shape. Of each image there are BATCH_SIZE / N RoIs if it has as many.

    An image that cannot be read is named in the log, and the next in the order takes its place.

    Args:
        roidb: entries from `make_roidb`, filtered; without an RPN, `add_bbox_regression_targets`
            has been called on them.
        seed: of all random choices.
        has_rpn: which form; by default cfg.TRAIN.HAS_RPN.

    Raises: DataError for no entries, or entries or settings that do not fit.
    """

    def __init__(self, roidb, cfg, num_classes, seed, has_rpn=None):
        self.roidb, self.cfg, self.num_classes = roidb, cfg, num_classes
        self.has_rpn = cfg.TRAIN.HAS_RPN if has_rpn is None else has_rpn
        self.images = cfg.TRAIN.IMS_PER_BATCH
        self._random = RandomStream(seed)
        self._order = functools.lru_cache(2)(self._shuffled)
        self._wide = np.array([e.record.width >= e.record.height for e in roidb], bool)
        self._named = set()  # records that the log has already named as unreadable
        self._check()

    def _check(self):
        if not self.roidb:
            raise DataError("training images", "at least one", "none")
        highest = max(entry.labels.max(initial=0) for entry in self.roidb)
        if highest >= self.num_classes:
            raise DataError(
                "training images",
                f"labels below {self.num_classes}, the number of classes",
                highest,
            )
        if self.images < 1 or not self.cfg.TRAIN.SCALES:
            raise DataError(
                "config", "TRAIN.IMS_PER_BATCH of at least 1 and one or more TRAIN.SCALES",
                f"{self.images} and {self.cfg.TRAIN.SCALES}",
            )  # fmt: skip
        if self.has_rpn:
            return
        if self.cfg.TRAIN.BATCH_SIZE % self.images or self.cfg.TRAIN.BATCH_SIZE < 1:
            raise DataError(
                "config", f"a positive multiple of IMS_PER_BATCH ({self.images}) as "
                "TRAIN.BATCH_SIZE", self.cfg.TRAIN.BATCH_SIZE,
            )  # fmt: skip
        if self.cfg.TRAIN.BBOX_REG and any(e.statistics is None for e in self.roidb):
            raise DataError(
                "training images", "entries with statistics of their targets", "some without",
                "Call add_bbox_regression_targets.",
            )  # fmt: skip

    @property
    def blob_names(self):
        """The names of a batch's arrays, in py-faster-rcnn's order."""
        if self.has_rpn:
            return RPN_BLOBS
        return FAST_RCNN_BLOBS + (REGRESSION_BLOBS if self.cfg.TRAIN.BBOX_REG else ())

    def load(self, k):
        """Batch number k: {blob name: float32 array}.

        Raises: DataError if no image can be read.
        """
        shown = [self._image(k, i) for i in range(self.images)]
        blobs = {"data": stack_images([image.blob for image in shown])}
        parts = self._rpn_blobs(shown) if self.has_rpn else self._fast_rcnn_blobs(shown)
        return blobs | parts

    # ---- which images

    def _shuffled(self, epoch):
        # An epoch's order of entries; whole batches of it are used.
        rng = self._random.generator("roi_data", "order", epoch)
        order = rng.permutation(len(self.roidb))
        if self.images > 1 and self.cfg.TRAIN.ASPECT_GROUPING:
            order = group_by_aspect(order, self._wide, self.images, rng)
        return order

    def _entries(self, k, i):
        """Entries for image i of batch k: the one whose turn it is, then all that follow it."""
        # NOTE: images that fill no batch rest until the next epoch, as in py-faster-rcnn, which
        # may leave out a whole batch.
        epoch, row = divmod(k, max(1, len(self.roidb) // self.images))
        order = self._order(epoch)
        for index in np.roll(order, -(row * self.images + i)):
            yield self.roidb[index]

    def _image(self, k, i):
        rng = self._random.generator("roi_data", "image", k, i)
        t = self.cfg.TRAIN
        scale = t.SCALES[rng.integers(len(t.SCALES))]
        for entry in self._entries(k, i):
            try:
                blob, factor = prepare_image(entry.read(), self.cfg, scale, t.MAX_SIZE)
            except DataError as e:
                self._warn(entry.record.name, e)
                continue
            return _Shown(entry, blob, factor, rng)
        raise DataError(
            "training images", "at least one that can be read", f"none of {len(self.roidb)}",
            "The log names them.",
        )  # fmt: skip

    def _warn(self, name, error):
        if name not in self._named:
            self._named.add(name)
            log.warning("image %r is left out: %s", name, error)

    # ---- what is learnt from them

    def _rpn_blobs(self, shown):
        tables = [image.gt_boxes() for image in shown]
        # At least one row, of class 0: there are blobs of no elements, but not in Caffe's nets.
        gt_boxes = np.zeros((len(shown), max(1, *map(len, tables)), 5), np.float32)
        for rows, table in zip(gt_boxes, tables):
            rows[: len(table)] = table
        im_info = [(*image.blob.shape[1:], image.factor) for image in shown]
        return {
            "im_info": np.array(im_info, np.float32),
            "gt_boxes": gt_boxes[0] if len(shown) == 1 else gt_boxes,
        }

    def _fast_rcnn_blobs(self, shown):
        parts = [self._sampled(i, image) for i, image in enumerate(shown)]
        arrays = map(np.concatenate, zip(*parts))
        blobs = dict(zip(self.blob_names[1:], arrays))
        if not len(blobs["rois"]):
            names = ", ".join(repr(image.entry.record.name) for image in shown)
            raise DataError(f"image {names}", "a RoI of foreground or background", "none",
                            "Call filter_roidb.")  # fmt: skip
        return blobs

    def _sampled(self, i, image):
        """RoIs of one image, labels, and if there is regression targets and weights."""
        t, entry = self.cfg.TRAIN, image.entry
        count = t.BATCH_SIZE // self.images
        most_foreground = int(np.round(t.FG_FRACTION * count))
        fg, bg = sample(*entry.split(self.cfg), count, most_foreground, image.rng)
        rows = np.concatenate([fg, bg])
        labels = entry.roi_labels(rows)
        labels[len(fg) :] = 0
        boxes = entry.roi_boxes(rows) * np.float32(image.factor)
        rois = np.insert(boxes, 0, i, axis=1)  # (R, 5)
        if not t.BBOX_REG:
            return rois, labels.astype(np.float32)
        classes, targets = regression_targets(entry, rows, self.cfg)
        targets -= entry.statistics.means[classes]
        targets /= entry.statistics.stds[classes]
        targets, inside = class_specific(targets, classes, self.num_classes, t.BBOX_INSIDE_WEIGHTS)
        return rois, labels.astype(np.float32), targets, inside, (inside > 0).astype(np.float32)


class _Shown:
    """A prepared image: its entry, its blob, what it was scaled by, and its random numbers."""

    def __init__(self, entry, blob, factor, rng):
        self.entry, self.blob, self.factor, self.rng = entry, blob, factor, rng

    def gt_boxes(self):
        """The objects (G, 5): x1, y1, x2, y2, class in the scaled image."""
        boxes = self.entry.boxes * np.float32(self.factor)
        return np.column_stack([boxes, self.entry.labels]).astype(np.float32, copy=False)


def group_by_aspect(order, wide, size, rng):
    """The indices `order`, rearranged into groups of `size` that are alike, in random order.

    Args:
        wide: (number of indices,) bool. As many groups as possible are all wide or all tall; the
            last ones may be mixed, and what is left over comes last.
    """
    parts = order[wide[order]], order[~wide[order]]
    full = [part[: len(part) // size * size] for part in parts]
    rest = np.concatenate([part[len(f) :] for part, f in zip(parts, full)])
    mixed, left = np.split(rest, [len(rest) // size * size])
    groups = np.concatenate([*full, mixed]).reshape(-1, size)
    return np.concatenate([rng.permutation(groups).ravel(), left])
