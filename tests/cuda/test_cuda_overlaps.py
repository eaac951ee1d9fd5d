"""Overlaps of boxes: the CUDA text against the CPU's kernel, to the last bit."""

import numpy as np
import pytest

from demitasse.boxes.overlaps import bbox_overlaps

rng = np.random.default_rng(0)


def made_up(count, dtype):
    corners = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(-2, 60, (count, 2))], 1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("counts", [(300, 7), (1, 1), (0, 3), (3, 0)])
def test_equal_to_the_cpu(place, counts, dtype):
    boxes, query = (made_up(n, dtype) for n in counts)
    found = place.get(bbox_overlaps(*place.put(boxes, query)))
    expected = bbox_overlaps(boxes, query)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_mixed_dtypes_and_halves(place):
    boxes, query = made_up(20, np.float16), made_up(5, np.float64)
    for pair in ((boxes, query), (boxes, boxes[:4])):
        found = place.get(bbox_overlaps(*place.put(*pair)))
        np.testing.assert_array_equal(found, bbox_overlaps(*pair))
