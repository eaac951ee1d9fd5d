"""Intersection over union."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_boxes import boxes, golden

from demitasse.boxes.overlaps import bbox_overlaps


def oracle(boxes, query):
    """One pixel after the other: |A and B| / |A or B|, for boxes of whole pixels."""
    out = np.zeros((len(boxes), len(query)))
    for n, a in enumerate(boxes):
        for k, b in enumerate(query):
            of = [
                {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}
                for x1, y1, x2, y2 in (a, b)
            ]
            out[n, k] = len(of[0] & of[1]) / len(of[0] | of[1])
    return out


@settings(deadline=None)
@given(boxes(), boxes(), st.sampled_from([np.float32, np.float64]))
def test_agrees_with_counting_pixels(a, b, dtype):
    a, b = np.floor(a / 2), np.floor(b / 2)
    found = bbox_overlaps(a.astype(dtype), b.astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, oracle(a.astype(int), b.astype(int)), rtol=1e-6)


def test_reference_numbers():
    z = golden("bbox_transform")
    found = bbox_overlaps(z["f64/ex"], z["f64/gt"])
    np.testing.assert_allclose(found, z["f64/overlaps_ex_gt"], rtol=1e-12)


def test_many_boxes_on_all_threads():
    """More than a single thread takes (`PARALLEL_FROM`)."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (900, 2))
    many = np.concatenate([corners, corners + rng.uniform(0, 50, (900, 2))], axis=1)
    found = bbox_overlaps(many, many[:50])
    pieces = [bbox_overlaps(some, many[:50]) for some in np.array_split(many, 30)]
    np.testing.assert_array_equal(found, np.concatenate(pieces))
    assert (np.diag(found) == 1).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_none_at_all(shape):
    a, b = (np.zeros((n, 4), np.float32) for n in shape)
    assert bbox_overlaps(a, b).shape == shape


def test_integers_mixed_dtypes_and_strides():
    whole = np.array([[0, 0, 9, 9], [5, 0, 14, 9]])
    found = bbox_overlaps(whole, np.asfortranarray(whole[:1].astype(np.float32)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, 0], [1, 50 / 150])


def test_boxes_without_area_overlap_nothing():
    none = np.array([[3.0, 3, 2, 2]])
    assert bbox_overlaps(none, none)[0, 0] == 0
