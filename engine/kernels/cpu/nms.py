"""Greedy non-maximum suppression on one core.

A box is compared with those kept before it, not with those that come after: with a limit of 2000
most of 12000 boxes are never looked at again once they are passed. The boxes kept are stored in
blocks of coordinates, which a core takes BLOCK at a time.
"""

import numba
import numpy as np

from . import parallel_njit

BLOCK = 64  # boxes
_MARGIN = 1e-6  # above the error of a product and a sum in single precision


def keep(boxes, areas, threshold, limit):
    """Positions of the boxes that greedy suppression keeps, in order, at most `limit`: int64.

    Args:
        boxes: (4, N) x1, y1, x2, y2, ends included, the best box first. areas: (N,).
        threshold: a box is suppressed by one kept before it if their intersection over union is
            above this, computed in the dtype of the boxes.
    """
    kept = np.empty(min(limit, boxes.shape[1]), np.int64)
    count = _keep(boxes, areas, boxes.dtype.type(threshold), kept)
    return kept[:count]


@numba.njit(inline="always")
def _intersection(block, k, x1, y1, x2, y2, one):
    width = min(block[2, k], x2) - max(block[0, k], x1) + one
    height = min(block[3, k], y2) - max(block[1, k], y1) + one
    return max(width, one - one) * max(height, one - one)


@numba.njit(error_model="numpy")  # inlined by Numba, its loops would not become vectors
def _suppresses(block, x1, y1, x2, y2, area, threshold, one):
    # Whether a box of the block overlaps the given one by more than the threshold.
    near = np.int32(0)
    below = threshold * block.dtype.type(1 - _MARGIN)
    for k in range(BLOCK):
        inner = _intersection(block, k, x1, y1, x2, y2, one)
        # Without the division, which is slow; it decides only where this says "perhaps".
        near |= np.int32(inner > (area + block[4, k] - inner) * below)
    if near:
        for k in range(BLOCK):
            inner = _intersection(block, k, x1, y1, x2, y2, one)
            if inner / (area + block[4, k] - inner) > threshold:
                return True
    return False


@parallel_njit(parallel=False)  # what is kept depends on all that was kept before
def _keep(boxes, areas, threshold, kept):
    one = boxes.dtype.type(1)
    # x1, y1, x2, y2 and the area; an unused place has an empty intersection with every box.
    blocks = np.empty(((len(kept) + BLOCK - 1) // BLOCK, 5, BLOCK), boxes.dtype)
    count = 0
    for i in range(boxes.shape[1]):
        if count == len(kept):
            break
        x1, y1, x2, y2, area = boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i], areas[i]
        suppressed = False
        for b in range((count + BLOCK - 1) // BLOCK):
            if _suppresses(blocks[b], x1, y1, x2, y2, area, threshold, one):
                suppressed = True
                break
        if suppressed:
            continue
        block, k = blocks[count // BLOCK], count % BLOCK
        if k == 0:
            block[:] = 0
            block[2:4] = -np.inf
        block[0, k], block[1, k], block[2, k], block[3, k], block[4, k] = x1, y1, x2, y2, area
        kept[count] = i
        count += 1
    return count
