"""Intersection over union of all pairs of two sets of boxes."""

import numpy as np

from .launch import BLOCK, blocks, launch


def overlaps(out, boxes, areas, query, query_areas):
    """out[n, k] = the overlap of boxes[n] and query[k].

    Args:
        out: (N, K). boxes: (N, 4) and query: (K, 4), ends included. areas: (N,), (K,); all of
            one dtype.
    """
    arrays, grid = (boxes, areas, query, query_areas, out), (blocks(out.size, BLOCK),)
    launch("overlaps.cu", "overlaps", arrays, grid, (BLOCK,), (np.int32(len(query)), out.size))
