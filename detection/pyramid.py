"""Given boxes in an image pyramid: which level each is looked at in, and which ones coincide."""

import numpy as np

from ..boxes.transform import areas

_CANONICAL_AREA = 224 * 224  # of a RoI, in pixels, at the scale that it is taken from


def project_rois(boxes, factors):
    """Boxes (R, 4) of an image as RoIs (R, 5) in a pyramid of it: level, x1, y1, x2, y2."""
    factors = np.asarray(factors, np.float64)
    levels = np.abs(areas(boxes)[:, None] * factors**2 - _CANONICAL_AREA).argmin(axis=1)
    return np.column_stack([levels, boxes * factors[levels, None]]).astype(np.float32)


def distinct_rois(rois, scale):
    """RoIs (R, 5) that coincide on features of this scale, once each.

    Returns: the indices of the D distinct ones, and for each RoI which of these D it is.
    """
    # NOTE: py-faster-rcnn scales the column of levels as well, and so takes RoIs of different
    # levels for one.
    cells = np.round(rois * [1, scale, scale, scale, scale])
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
