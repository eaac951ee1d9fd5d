"""Region proposals on the device: decoding, the choice of the best, suppression, all in order.

There is no module of this name in kernels/cpu: there, `layers.proposal.propose` does this in NumPy.
"""

import numpy as np

from ...device import device_of
from .launch import BLOCK, NULL, blocks, launch, number
from .nms import suppress

NUMBERS = 2  # of a report, before those of the images (proposals.cu)
_OWN = 4  # keys that a thread of `rank` has
_ENOUGH = 512  # blocks that keep a large GPU busy


def propose(scores, deltas, base, stride, info, limits, rois, found_scores):
    """Write the best boxes of all images, image by image; nothing waits for the device.

    Args:
        scores: (N, 2A, H, W), background then foreground. deltas: (N, 4A, H, W).
        base: (A, 4) float64, the anchors of the first position. stride: from one to the next.
        info: (N, 3) of NumPy: height and width that boxes are clipped to; scale.
        limits: threshold of suppression; how many boxes of an image are left before, and after it
            (None for all); the least size of a box before its image was scaled.
        rois: (>= N * most, 5) of image index, x1, y1, x2, y2, to be filled, `most` being the
            `most_rows` of an image. found_scores: the same of their scores, (>= N * most, 1), or
            None.

    Returns: int32 on the device: how many scores, and how many deltas, are not finite; then for
    each image how many boxes were large enough, and how many proposals it has. An image with none
    has the whole of it as one row.
    """
    xp, images = device_of(scores).xp, len(scores)
    report = xp.zeros(NUMBERS + 2 * images, np.int32)
    for i in range(images):
        run = _Image(i, scores, deltas, base, stride, limits, report)
        run.decode(info[i])
        run.order()
        run.suppress()
        run.write(info[i], rois, NULL if found_scores is None else found_scores)
    return report


def most_rows(count, limits):
    """How many proposals an image with `count` anchors has at most."""
    _, before, after, _ = limits
    return max(min(v for v in (count, before, after) if v is not None), 1)


class _Image:
    """The proposals of image `index`, in the steps of `propose`."""

    def __init__(self, index, scores, deltas, base, stride, limits, report):
        self.scores, self.deltas = scores[index], deltas[index]
        self.base, self.stride, self.report, self.limits = base, stride, report, limits
        self.index = np.int32(index)
        self.xp = device_of(scores).xp
        self.dtype = number(0, scores).dtype  # that is computed in
        self.size = scores.shape[2:]
        self.count = len(base) * self.size[0] * self.size[1]

    def _empty(self, *shape, dtype=None):
        return self.xp.empty(shape, dtype or self.dtype)

    def _run(self, name, arrays, grid, args):
        launch("proposals.cu", name, arrays, grid, (BLOCK,), args, dtype=self.scores.dtype)

    def decode(self, info):
        """The box of each anchor, and a key for its place in the order."""
        self.boxes, self.keys = self._empty(self.count, 4), self._empty(self.count)
        height, width, scale = info
        least = self.limits[3] * scale  # in the dtype of `info`, as on the CPU
        arrays = self.scores, self.deltas, self.base, self.boxes, self.keys, self.report
        sizes = len(self.base), *self.size, self.index
        args = [number(v, self.boxes) for v in (height, width, least)]
        args += [np.float64(self.stride), *map(np.int32, sizes)]
        self._run("decode", arrays, (blocks(self.count, BLOCK),), args)

    def order(self):
        """The best boxes before suppression, the best first."""
        n, before = self.count, self.limits[1]
        limit = n if before is None else min(before, n)
        self.limit = np.int32(limit)
        ranks = self.xp.zeros(n, np.int32)
        across = blocks(n, _OWN * BLOCK)
        parts = max(min(blocks(n, BLOCK), blocks(_ENOUGH, max(across, 1))), 1)
        args = np.int32(blocks(n, parts)), np.int32(n)
        self._run("rank", (self.keys, ranks), (across, parts), args)
        self.sorted, self.areas = self._empty(4, limit), self._empty(limit)
        self.best, self.left = self._empty(limit), self.xp.zeros(1, np.int32)
        arrays = (
            self.boxes, self.keys, ranks, self.sorted, self.areas, self.best, self.report, self.left
        )  # fmt: skip
        args = self.index, self.limit, np.int32(n)
        self._run("place", arrays, (blocks(n, BLOCK),), args)

    def suppress(self):
        """Which of these are kept."""
        threshold, _, after, _ = self.limits
        limit = int(self.limit)
        self.kept = self._empty(limit if after is None else min(after, limit), dtype=np.int32)
        place = NUMBERS + 2 * int(self.index) + 1
        found = self.report[place : place + 1]
        suppress(self.sorted, self.areas, self.left, threshold, self.kept, found)

    def write(self, info, rois, found_scores):
        """The rows of this image, after those of the ones before it."""
        arrays = self.sorted, self.best, self.kept, self.report, rois, found_scores
        args = [number(v, self.sorted) for v in info[:2]] + [self.index, self.limit]
        self._run("fill_rows", arrays, (blocks(max(self.kept.size, 1), BLOCK),), args)
