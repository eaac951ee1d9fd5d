"""Which object each box belongs to, and whether it counts as foreground or background."""

import numpy as np


def best_objects(overlaps):
    """Of overlaps (N, G): the object that each box overlaps most, (N,), and by how much, (N,).

    Without any object the index and the overlap are 0.
    """
    if not overlaps.shape[1]:
        return np.zeros(len(overlaps), np.int64), np.zeros(len(overlaps), overlaps.dtype)
    best = overlaps.argmax(axis=1)
    return best, overlaps[np.arange(len(best)), best]


def label_anchors(overlaps, positive, negative, clobber=False):
    """Labels of anchors (N,), int64: 1 foreground, 0 background, -1 neither; and their objects.

    Foreground are the anchors that an object overlaps most, ties included, and those with an
    overlap of at least `positive`; background those whose every overlap is below `negative`. An
    anchor that is both is foreground, or with `clobber` background. Without an object, all
    anchors are background.

    NOTE: as in py-faster-rcnn, an object that overlaps no anchor at all has its "most", 0, with
    all anchors that overlap nothing of it: these become foreground.

    Args:
        overlaps: (N, G) of anchors with objects.
    """
    best, overlap = best_objects(overlaps)
    if not overlaps.size:
        return np.zeros(len(overlaps), np.int64), best
    labels = np.full(len(overlaps), -1)
    background = overlap < negative
    labels[background] = 0
    labels[(overlaps == overlaps.max(axis=0)).any(axis=1)] = 1
    labels[overlap >= positive] = 1
    if clobber:
        labels[background] = 0
    return labels, best


def split_rois(overlap, fg_thresh, bg_thresh_hi, bg_thresh_lo):
    """Indices of the foreground and of the background among RoIs, ascending.

    Args:
        overlap: (R,), each RoI's largest overlap with an object: foreground from `fg_thresh` on,
            background in [bg_thresh_lo, bg_thresh_hi).
    """
    foreground = np.flatnonzero(overlap >= fg_thresh)
    background = np.flatnonzero((overlap < bg_thresh_hi) & (overlap >= bg_thresh_lo))
    return foreground, background
