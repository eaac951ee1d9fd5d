"""Greedy non-maximum suppression."""

from ..engine.device import device_of
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
    device = device_of(dets)
    order = device.xp.argsort(-dets[:, 4], kind="stable")
    boxes = dets[order, :4]
    most = len(dets) if limit is None else limit
    coordinates = device.xp.ascontiguousarray(boxes.T)
    return order[device.kernels.nms.keep(coordinates, areas(boxes), thresh, most)]
