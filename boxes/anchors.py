"""Anchors: the boxes of several sizes and shapes that the RPN looks at, at every position."""

import numpy as np

SCALES, RATIOS = (8.0, 16.0, 32.0), (0.5, 1.0, 2.0)
"""The anchors of the paper, on images whose shorter side is 600 pixels."""


def generate_anchors(base_size=16, ratios=RATIOS, scales=SCALES):
    """The anchors of the position (0, 0): (A, 4) float64, ratio by ratio, in it scale by scale.

    They lie around the middle of a `base_size` square. A ratio, height to width, keeps the
    square's area up to rounding to whole pixels; a scale multiplies both sides
    (Faster R-CNN, section 3.1.1; py-faster-rcnn rounds as here).
    """
    ratios, scales = np.asarray(ratios, float), np.asarray(scales, float)
    widths = np.round(np.sqrt(base_size * base_size / ratios))
    heights = np.round(widths * ratios)
    sides = np.stack([widths, heights], axis=1)[:, None] * scales[:, None]  # (ratios, scales, 2)
    reach = (sides.reshape(-1, 2) - 1) / 2
    middle = (base_size - 1) / 2
    return np.concatenate([middle - reach, middle + reach], axis=1)


def shift_anchors(anchors, height, width, feat_stride):
    """The anchors (A, 4) at every position of a feature map: (height * width * A, 4).

    The order is row by row, in a row position by position, in a position anchor by anchor.
    """
    x = np.arange(width) * feat_stride
    y = np.arange(height) * feat_stride
    shifts = np.zeros((height, width, 1, 4), anchors.dtype)
    shifts[..., 0::2] = x[:, None, None]
    shifts[..., 1::2] = y[:, None, None, None]
    return (shifts + anchors).reshape(-1, 4)
