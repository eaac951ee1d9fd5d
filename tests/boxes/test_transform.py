"""Boxes to regression targets and back, clipping, flipping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_boxes import boxes, golden

from demitasse.boxes import transform


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_reference_numbers(dtype):
    z = {k.split("/")[1]: v for k, v in golden("bbox_transform").items() if k.startswith(dtype)}
    results = {
        "targets": transform.bbox_transform(z["ex"], z["gt"]),
        "pred": transform.bbox_transform_inv(z["boxes"], z["deltas"]),
        "clipped": transform.clip_boxes(z["pred"], z["im_shape"]),
    }
    for name, found in results.items():
        assert found.dtype == z[name].dtype
        np.testing.assert_allclose(found, z[name], rtol=1e-6, atol=1e-5, err_msg=name)


def test_no_boxes_at_all():
    none = np.zeros((0, 4), np.float32)
    assert transform.bbox_transform(none, none).shape == (0, 4)
    deltas = np.zeros((0, 8), np.float32)
    expected = golden("bbox_transform")["empty/pred"]
    assert transform.bbox_transform_inv(none, deltas).shape == expected.shape
    assert transform.clip_boxes(deltas, (3, 4)).shape == (0, 8)


@given(boxes(), st.data())
def test_the_inverse_gives_one_pixel_more(ex, data):
    """As in py-faster-rcnn: x2 and y2 come back larger by 1."""
    offsets = data.draw(arrays(float, (len(ex), 2), elements=st.integers(-9, 9)))
    gt = ex + np.tile(offsets, 2)
    gt[:, 2:] += abs(offsets)
    back = transform.bbox_transform_inv(ex, transform.bbox_transform(ex, gt))
    np.testing.assert_allclose(back, gt + [0, 0, 1, 1], atol=1e-9)


def test_by_hand():
    ex, gt = np.array([[0.0, 0, 9, 19]]), np.array([[5.0, 0, 24, 9]])
    found = transform.bbox_transform(ex, gt)  # centres 5, 10 and 15, 5; sizes 10, 20 and 20, 10
    np.testing.assert_allclose(found, [[1, -0.25, np.log(2), -np.log(2)]])
    assert transform.areas(np.array([[2, 3, 2, 3], [0, 0, 4, 1.5]])).tolist() == [1, 12.5]


@given(boxes(), st.integers(1, 30), st.integers(1, 30))
def test_clipping(given_boxes, height, width):
    before = given_boxes.copy()
    clipped = transform.clip_boxes(given_boxes, (height, width))
    np.testing.assert_array_equal(given_boxes, before)
    for b, c in zip(given_boxes, clipped):
        size = (width, height, width, height)
        assert c.tolist() == [min(max(v, 0), n - 1) for v, n in zip(b, size)]
    np.testing.assert_array_equal(transform.clip_boxes(clipped, (height, width)), clipped)


@given(boxes(), st.integers(1, 30))
def test_flipping_twice_is_nothing(given_boxes, width):
    before = given_boxes.copy()
    flipped = transform.flip_boxes(given_boxes, width)
    np.testing.assert_array_equal(given_boxes, before)
    np.testing.assert_array_equal(flipped[:, 1::2], before[:, 1::2])
    for a, b in zip(transform.sizes(flipped), transform.sizes(before)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(transform.flip_boxes(flipped, width), before)


def test_flipping_many_boxes_a_row():
    row = np.array([[0, 1, 3, 4, 5, 6, 9, 8]])
    np.testing.assert_array_equal(transform.flip_boxes(row, 10), [[6, 1, 9, 4, 0, 6, 4, 8]])


def test_turning_over_is_flipping_with_the_axes_swapped():
    row = np.array([[0, 1, 3, 4, 5, 6, 9, 8]], np.float32)
    found = transform.turn_boxes_over(row, 10)
    np.testing.assert_array_equal(found, [[0, 5, 3, 8, 5, 1, 9, 3]])
    np.testing.assert_array_equal(transform.turn_boxes_over(found, 10), row)


def test_class_specific_targets():
    z = golden("bbox_regression_labels")
    data = z["in/bbox_target_data"]
    targets, weights = transform.class_specific(
        data[:, 1:], data[:, 0], int(z["num_classes"]), (1, 1, 1, 1)
    )
    np.testing.assert_array_equal(targets, z["out/bbox_targets"])
    np.testing.assert_array_equal(weights, z["out/bbox_inside_weights"])
    _, weights = transform.class_specific(data[:, 1:], data[:, 0], 5, (1, 2, 3, 4))
    np.testing.assert_array_equal(weights, z["out/bbox_inside_weights"] * np.tile([1, 2, 3, 4], 5))


def test_class_specific_targets_of_background_alone():
    targets, weights = transform.class_specific(np.ones((2, 4)), np.zeros(2), 3, (1, 1, 1, 1))
    assert targets.shape == weights.shape == (2, 12)
    assert not targets.any() and not weights.any()
