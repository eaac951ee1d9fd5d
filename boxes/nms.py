"""Greedy non-maximum suppression."""

import numpy as np

from ..engine.device import CPU
from .transform import areas


def nms(dets, thresh, limit=None):
    """Indices of the boxes that are kept, best first: int64.

    From the best score down, a box is kept unless its overlap with one already kept is above
    `thresh`. Equal scores keep their order.

    NOTE: as py-faster-rcnn's `py_cpu_nms` and GPU kernel; its Cython version also suppresses at
    exactly `thresh`.

    Args:
        dets: (N, 5) of x1, y1, x2, y2, score. limit: how many are kept at most; None for all.
    """
    order = np.argsort(-dets[:, 4], kind="stable")
    boxes = dets[order, :4]
    most = len(dets) if limit is None else limit
    kept = CPU.kernels.nms.keep(np.ascontiguousarray(boxes.T), areas(boxes), thresh, most)
    return order[kept]
