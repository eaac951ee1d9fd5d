"""Non-maximum suppression: the CUDA text against the CPU's kernel."""

import numpy as np
import pytest

from demitasse.boxes.nms import nms
from demitasse.engine.kernels.cuda import host

rng = np.random.default_rng(0)


def made_up(count, side, dtype=np.float32, step=0.5):
    """Boxes at halves of a pixel, often with equal scores and overlaps of just a threshold."""
    corner = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, side, (count, 2))], axis=1)
    scores = rng.integers(0, count, (count, 1)) / 7
    return np.concatenate([np.round(boxes / step) * step, scores], axis=1).astype(dtype)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 700])
@pytest.mark.parametrize("limit", [None, 1, 64, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_the_cpu(place, count, limit, dtype):
    for side, thresh in ((20, 0.5), (150, 0.7), (150, 0.3)):
        dets = made_up(count, side, dtype)
        found = place.get(nms(place.put(dets), thresh, limit))
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, nms(dets, thresh, limit))


def test_small_boxes_with_overlaps_of_just_the_threshold(place):
    dets = made_up(400, 4, step=1)
    dets[:, :4] %= 12
    dets[:, 2:4] += dets[:, :2]
    for thresh in (0, 0.25, 0.5, 1):
        found = place.get(nms(place.put(dets), thresh))
        np.testing.assert_array_equal(found, nms(dets, thresh))


def test_none_and_empty_boxes(place):
    assert len(nms(place.put(np.zeros((0, 5), np.float32)), 0.5)) == 0
    empty = np.float32([[5, 5, 4, 4, 1], [5, 5, 4, 4, 0.5], [0, 0, 9, 9, 0.2]])
    assert place.get(nms(place.put(empty), 0.5)).tolist() == [0, 1, 2]


def test_the_order_of_threads_does_not_matter(place):
    dets = made_up(500, 60)
    expected = nms(dets, 0.4)
    with host.backwards():
        np.testing.assert_array_equal(place.get(nms(place.put(dets), 0.4)), expected)
