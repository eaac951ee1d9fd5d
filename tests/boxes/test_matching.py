"""Matching of boxes with objects."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demitasse.boxes.matching import best_objects, label_anchors, split_rois

TENTHS = st.integers(0, 10).map(lambda v: v / 10)
matrices = st.tuples(st.integers(0, 7), st.integers(0, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=TENTHS)
)


def oracle(overlaps, positive, negative, clobber):
    """py-faster-rcnn's rules in their order, by loops."""
    labels = []
    for row in overlaps:
        label = -1
        low = max(row, default=0) < negative
        if low:
            label = 0
        if any(v == max(overlaps[:, g]) for g, v in enumerate(row)):
            label = 1
        if max(row, default=0) >= positive:
            label = 1
        if low and clobber:
            label = 0
        labels.append(label)
    return labels


@given(matrices, st.tuples(TENTHS, TENTHS), st.booleans())
def test_labels_agree_with_loops(overlaps, thresholds, clobber):
    negative, positive = sorted(thresholds)
    labels, best = label_anchors(overlaps, positive, negative, clobber)
    if not overlaps.shape[1]:
        assert labels.tolist() == [0] * len(overlaps) and not best.any()
        return
    assert labels.tolist() == oracle(overlaps, positive, negative, clobber)
    assert best.tolist() == [row.tolist().index(row.max()) for row in overlaps]


@given(matrices)
def test_best_objects(overlaps):
    best, overlap = best_objects(overlaps)
    assert len(best) == len(overlap) == len(overlaps)
    for row, g, value in zip(overlaps, best, overlap):
        assert value == max(row, default=0)
        assert not len(row) or row[g] == value


def test_best_anchors_of_an_object_and_ties():
    overlaps = np.array([[0.4, 0], [0.4, 0.2], [0.1, 0.6], [0.05, 0.5]])
    assert label_anchors(overlaps, 0.7, 0.3)[0].tolist() == [1, 1, 1, -1]
    assert label_anchors(overlaps, 0.5, 0.45)[0].tolist() == [1, 1, 1, 1]
    assert label_anchors(overlaps, 0.5, 0.45, clobber=True)[0].tolist() == [0, 0, 1, 1]


def test_an_object_out_of_reach_takes_what_overlaps_none_of_it():
    """The second object overlaps no anchor."""
    overlaps = np.array([[0.8, 0], [0.1, 0], [0, 0]])
    assert label_anchors(overlaps, 0.7, 0.3)[0].tolist() == [1, 1, 1]
    assert label_anchors(overlaps, 0.7, 0.3, clobber=True)[0].tolist() == [1, 0, 0]


def test_foreground_and_background_rois():
    overlap = np.array([0.05, 0.1, 0.49, 0.5, 0.9])
    foreground, background = split_rois(overlap, 0.5, 0.5, 0.1)
    assert foreground.tolist() == [3, 4] and background.tolist() == [1, 2]
    foreground, background = split_rois(overlap, 0.6, 0.4, 0)
    assert foreground.tolist() == [4] and background.tolist() == [0, 1]
