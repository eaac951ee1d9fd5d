"""What the region proposal network and the region head learn, on the device.

Labels and samples are those of `layers.anchor_target` and `layers.proposal_target` in NumPy, which
is what there is in the place of this module on the CPU: overlaps in double precision, and the very
numbers of NumPy's generator, computed where they are used.
"""

import numpy as np

from ...device import device_of
from .launch import BLOCK, blocks, launch, number
from .sampling import sample


def anchor_targets(anchors, objects, limits, rules, key, tops):
    """Fill the RPN's targets of one image; nothing waits for the device.

    Args:
        anchors: (base, stride, height, width): (A, 4) float64 of the device, the anchors of the
            first of height * width positions, `stride` apart.
        objects: (G, 5) x1, y1, x2, y2, class; rows of class 0 are padding.
        limits: (low, right, bottom): an anchor counts if x1, y1 >= low, x2 < right, y2 < bottom.
        rules: an AnchorTargetSettings. key: (seed, stream) of the random choice.
        tops: labels (A * H * W elements), targets, inside and outside weights (4A, H, W).
    """
    base, _, height, width = anchors
    xp, n, count = device_of(objects).xp, len(base) * height * width, len(objects)
    if not n:
        return
    grid, image = _anchor_sizes(anchors), [np.float64(v) for v in limits]
    most = xp.zeros(count, np.uint64)
    flags, best = xp.empty(n, np.int8), xp.empty(n, np.int32)
    run = _Run(objects, blocks(n, BLOCK), BLOCK)
    if count:
        run("anchor_overlaps", (objects, base, most), *grid, *image, np.int32(count))
    run(
        "anchor_labels", (objects, base, most, flags, best), *grid, *image, np.int32(count),
        np.float64(rules.RPN_POSITIVE_OVERLAP), np.float64(rules.RPN_NEGATIVE_OVERLAP),
        np.int32(rules.RPN_CLOBBER_POSITIVES),
    )  # fmt: skip
    found = xp.empty(2, np.int32)
    foreground = int(rules.RPN_FG_FRACTION * rules.RPN_BATCHSIZE)
    sample(flags, rules.RPN_BATCHSIZE, foreground, key, found)
    weights = [number(v, objects) for v in rules.RPN_BBOX_INSIDE_WEIGHTS]
    arrays = objects, base, flags, best, found, *tops
    run("anchor_write", arrays, *grid, *weights, np.float64(rules.RPN_POSITIVE_WEIGHT))


def most_sampled(rois, objects, count):
    """How many of an image's RoIs and objects are sampled at most, `count` being wanted.

    With thresholds that overlap, a box may be both foreground and background.
    """
    return min(count, 2 * (rois + objects))


def roi_targets(rois, objects, padding, rules, count, keys, classes, tops):
    """Fill the region head's targets, image by image; nothing waits for the device.

    Args:
        rois: (R, 5) image index, x1, y1, x2, y2. objects: (N, G, 5), as of `anchor_targets`.
        padding: for each image whether it has no object.
        rules: a ProposalTargetSettings. count: how many RoIs an image shall have.
        keys: (seed, stream) of the random choice in each image. classes: their number.
        tops: rois (>= N * most_sampled, 5), labels, targets, inside and outside weights, of as many
            rows.

    Returns: int32 on the device: R - r for the first RoI r that is not finite or belongs to no
    image, or 0; then for each image the numbers of foreground and of background rows.
    """
    xp, images, n = device_of(rois).xp, len(objects), len(rois) + objects.shape[1]
    report = xp.zeros(1 + 2 * images, np.int32)
    flags, best = xp.empty(n, np.int8), xp.empty(n, np.int32)
    foreground = round(rules.FG_FRACTION * count)
    thresholds = rules.FG_THRESH, rules.BG_THRESH_HI
    sizes = [np.int32(v) for v in (images, len(rois), objects.shape[1])]
    for i in range(images):
        low = 0 if padding[i] else rules.BG_THRESH_LO
        args = np.int32(i), *sizes, *(np.float64(v) for v in (*thresholds, low))
        run = _Run(rois, blocks(n, BLOCK), BLOCK)
        run("roi_labels", (rois, objects[i], flags, best, report[:1]), *args)
        found = report[1 + 2 * i : 3 + 2 * i]
        kept = sample(flags, count, foreground, keys[i], found)
        run = _Run(rois, kept.size, BLOCK)
        arrays = rois, objects[i], best, kept, report[1:], *tops
        args = [np.int32(v) for v in (i, len(rois), classes)]
        run("roi_write", arrays, *args, *_box_rules(rules, rois))
    return report


def _box_rules(rules, rois):
    yield from (number(v, rois) for v in rules.BBOX_INSIDE_WEIGHTS)
    yield np.int32(rules.BBOX_NORMALIZE_TARGETS_PRECOMPUTED)
    for values in (rules.BBOX_NORMALIZE_MEANS, rules.BBOX_NORMALIZE_STDS):
        yield from (np.float64(v) for v in values)


def _anchor_sizes(anchors):
    base, stride, height, width = anchors
    return np.float64(stride), np.int32(len(base)), np.int32(height), np.int32(width)


class _Run:
    """Kernels of this module on a grid of so many blocks, `real` being the dtype of `like`."""

    def __init__(self, like, count, threads):
        self.dtype, self.grid, self.block = like.dtype, (count,), (threads,)

    def __call__(self, name, arrays, *args):
        launch("targets.cu", name, arrays, self.grid, self.block, args, dtype=self.dtype)
