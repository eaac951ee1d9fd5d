"""How much boxes overlap: intersection over union."""

import numpy as np

from ..engine.device import CPU
from .transform import areas


def bbox_overlaps(boxes, query):
    """Intersection over union of boxes (N, 4) and query boxes (K, 4): (N, K).

    Computed in the wider of the two dtypes, at least float32 (py-faster-rcnn: bbox_overlaps, in
    float64 whatever it is given).
    """
    dtype = np.result_type(boxes, query, np.float32)
    boxes, query = (np.ascontiguousarray(b, dtype) for b in (boxes, query))
    out = np.empty((len(boxes), len(query)), dtype)
    if out.size:
        CPU.kernels.overlaps.overlaps(out, boxes, areas(boxes), query, areas(query))
    return out
