"""Greedy non-maximum suppression.

All pairs are compared at once, into one bit each; one block of threads then picks what is kept.
Nothing of that goes to the host.
"""

import numpy as np

from ...device import device_of
from .launch import blocks, launch, number

_WORD = 64  # boxes that a word of bits stands for
_THREADS = 512


def keep(boxes, areas, threshold, limit):
    """Positions of the boxes that greedy suppression keeps, in order, at most `limit`: int64.

    Waits for the device, because it depends on the boxes how many these are.

    Args:
        boxes: (4, N) x1, y1, x2, y2, ends included, the best box first. areas: (N,).
        threshold: a box is suppressed by one kept before it if their intersection over union is
            above this, computed in the dtype of the boxes.
    """
    xp, most = device_of(boxes).xp, boxes.shape[1]
    kept, found = xp.empty(min(limit, most), np.int32), xp.zeros(1, np.int32)
    suppress(boxes, areas, xp.full(1, most, np.int32), threshold, kept, found)
    return kept[: int(found[0])].astype(np.int64)


def suppress(boxes, areas, count, threshold, kept, found):
    """As `keep`, with how many boxes there are and how many of them are kept on the device.

    Args:
        count: (1,) int32, how many of the boxes count: the first ones.
        kept: int32, as many as may be kept, to be filled with their positions as far as there are.
        found: (1,) int32, set to how many there are.
    """
    stride = boxes.shape[1]
    if not kept.size:
        found.fill(0)
        return
    words = blocks(stride, _WORD)
    mask = device_of(boxes).xp.empty((words, stride), np.uint64)
    arrays, args = (boxes, areas, count, mask), (number(threshold, boxes), np.int32(stride))
    launch("nms.cu", "overlapping", arrays, (words, words), (_WORD,), args)
    args = np.int32(stride), np.int32(kept.size)
    arrays = mask, count, kept, found
    launch("nms.cu", "pick", arrays, (1,), (_THREADS,), args, dtype=boxes.dtype)
