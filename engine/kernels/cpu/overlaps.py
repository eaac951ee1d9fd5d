"""Intersection over union of all pairs of two sets of boxes."""

import numba

from . import adaptive_njit


@adaptive_njit
def overlaps(out, boxes, areas, query, query_areas):
    """out[n, k] = the overlap of boxes[n] and query[k].

    Args:
        out: (N, K). boxes: (N, 4) and query: (K, 4), ends included. areas: (N,), (K,); all of
            one dtype.
    """
    one = out.dtype.type(1)
    zero = out.dtype.type(0)
    for n in numba.prange(len(boxes)):
        x1, y1, x2, y2 = boxes[n]
        for k in range(len(query)):
            width = min(query[k, 2], x2) - max(query[k, 0], x1) + one
            height = min(query[k, 3], y2) - max(query[k, 1], y1) + one
            inner = max(width, zero) * max(height, zero)
            # Two boxes without area overlap by nothing, not by 0 / 0.
            out[n, k] = inner / (areas[n] + query_areas[k] - inner) if inner > zero else zero
