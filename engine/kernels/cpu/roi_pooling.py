"""RoI pooling (fast-rcnn): the maximum over the bins of each region of interest."""

import numpy as np

from ..geometry import roi_bins, roi_images
from . import pooling


def forward(x, rois, spatial_scale, y, argmax):
    """y[r, c] = the maxima of channel c over the bins of RoI r; 0 for a bin outside the map.

    Args:
        x: (N, C, H, W). rois: (R, 5), see `roi_bins`; image indices are in [0, N).
        y: (R, C, pooled_h, pooled_w).
        argmax: int32 like y, set to the element that won, h * W + w, or -1.
    """
    image, h_bins, w_bins = roi_bins(np, rois, spatial_scale, y.shape[2:], x.shape[2:])
    pooling.max_over_bins(x, image, h_bins, w_bins, 0, y, argmax)


def backward(dy, argmax, rois, spatial_scale, dx):
    """dx = dy sent back to the elements that won, summed in the order of the RoIs."""
    pooling.pick_backward(dy, argmax, roi_images(np, rois, spatial_scale), dx)
