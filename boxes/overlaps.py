"""How much boxes overlap: intersection over union."""

import numpy as np

from ..engine.device import device_of
from .transform import areas


def bbox_overlaps(boxes, query):
    """Intersection over union of boxes (N, 4) and query boxes (K, 4): (N, K).

    Computed in the wider of the two dtypes, at least float32 (py-faster-rcnn: bbox_overlaps, in
    float64 whatever it is given).
    """
    device = device_of(boxes)
    dtype = np.result_type(boxes.dtype, query.dtype, np.float32)
    boxes, query = (device.xp.ascontiguousarray(b, dtype) for b in (boxes, query))
    out = device.xp.empty((len(boxes), len(query)), dtype)
    if out.size:
        device.kernels.overlaps.overlaps(out, boxes, areas(boxes), query, areas(query))
    return out
