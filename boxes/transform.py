"""Boxes to regression targets and back, clipping, flipping.

The functions are plain NumPy calls, which arrays of other kinds answer too.
"""

import numpy as np


def sizes(boxes):
    """Widths and heights (N,) of boxes (N, 4)."""
    return boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1


def areas(boxes):
    """Areas (N,) of boxes (N, 4)."""
    widths, heights = sizes(boxes)
    return widths * heights


def _centred(boxes):
    # Centres and sizes. NOTE: a centre is x1 + width / 2, half a pixel right of the middle pixel's.
    widths, heights = sizes(boxes)
    return boxes[:, 0] + 0.5 * widths, boxes[:, 1] + 0.5 * heights, widths, heights


def bbox_transform(ex_rois, gt_rois):
    """Regression targets (dx, dy, dw, dh) that take `ex_rois` to `gt_rois`: all (N, 4).

    Shifts are in units of the box's size, sizes are logarithms of ratios (R-CNN, appendix C).
    """
    x, y, width, height = _centred(ex_rois)
    gt_x, gt_y, gt_width, gt_height = _centred(gt_rois)
    return np.stack(
        [
            (gt_x - x) / width,
            (gt_y - y) / height,
            np.log(gt_width / width),
            np.log(gt_height / height),
        ],
        axis=1,
    )


def bbox_transform_inv(boxes, deltas):
    """The boxes (N, 4K) that K deltas a box, (N, 4K), make of boxes (N, 4), in the deltas' dtype.

    NOTE: as in py-faster-rcnn, x2 = centre + width / 2, which is one pixel more than
    `bbox_transform` was given; its trained models have learnt with it.
    """
    x, y, width, height = (v[:, None] for v in _centred(boxes.astype(deltas.dtype)))
    new_x, new_y = deltas[:, 0::4] * width + x, deltas[:, 1::4] * height + y  # (N, K)
    half_width = 0.5 * np.exp(deltas[:, 2::4]) * width
    half_height = 0.5 * np.exp(deltas[:, 3::4]) * height
    out = np.empty_like(deltas)
    out[:, 0::4], out[:, 1::4] = new_x - half_width, new_y - half_height
    out[:, 2::4], out[:, 3::4] = new_x + half_width, new_y + half_height
    return out


def clip_boxes(boxes, im_shape):
    """Boxes (N, 4K) moved into an image of `im_shape` = (height, width, ...)."""
    out = np.empty_like(boxes)
    for first, size in ((0, im_shape[1]), (1, im_shape[0])):
        # max last: in an image of no size, boxes come to lie at 0
        out[:, first::2] = np.maximum(np.minimum(boxes[:, first::2], size - 1), 0)
    return out


def flip_boxes(boxes, width):
    """Boxes (N, 4K) of an image of this width, mirrored left to right."""
    return _mirrored(boxes, width, 0)


def turn_boxes_over(boxes, height):
    """Boxes (N, 4K) of an image of this height, mirrored top to bottom."""
    return _mirrored(boxes, height, 1)


def _mirrored(boxes, extent, first):
    # `first` is the axis' smaller coordinate, whose larger one comes two columns later.
    out = boxes.copy()
    out[:, first::4] = extent - 1 - boxes[:, first + 2 :: 4]
    out[:, first + 2 :: 4] = extent - 1 - boxes[:, first::4]
    return out


def class_specific(targets, labels, num_classes, inside_weights):
    """Targets (R, 4) -> targets and inside weights (R, 4 * num_classes), float32.

    A box of class c > 0 has its targets, and `inside_weights`, in columns 4c to 4c + 3; all else
    is zero (py-faster-rcnn: _get_bbox_regression_labels).
    """
    rows = np.flatnonzero(labels > 0)
    columns = 4 * labels[rows, None].astype(np.int64) + np.arange(4)  # (foreground, 4)
    expanded = np.zeros((len(labels), 4 * num_classes), np.float32)
    weights = np.zeros_like(expanded)
    expanded[rows[:, None], columns] = targets[rows]
    weights[rows[:, None], columns] = inside_weights
    return expanded, weights
