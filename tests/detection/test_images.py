"""Preparing images for a network."""

import cv2
import numpy as np
import pytest
from drawn_records import make_cfg, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.detection.images import prepare_image, scale_factor, stack_images
from demitasse.engine.errors import DataError

MEANS = (102.9801, 115.9465, 122.7717)


@pytest.mark.parametrize("size, scale, max_size", [((37, 50), 60, 100), ((50, 20), 33, 60)])
def test_numbers_are_those_of_subtracting_first_and_resizing_by_the_factor(size, scale, max_size):
    image = pixels(*size, 0)
    factor = scale_factor(size, scale, max_size)
    expected = image.astype(np.float32) - np.array([[MEANS]])
    expected = cv2.resize(expected, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    blob, found = prepare_image(image, make_cfg(MEANS), scale, max_size)
    assert found == factor and blob.dtype == np.float32 and blob.flags.c_contiguous
    np.testing.assert_allclose(blob, expected.transpose(2, 0, 1), atol=1e-4)


@given(
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    scale=st.integers(1, 900),
    max_size=st.integers(1, 1500),
)
@settings(deadline=None)
def test_the_shorter_side_becomes_scale_unless_the_longer_one_exceeds_its_limit(
    size, scale, max_size
):
    factor = scale_factor(size, scale, max_size)
    if factor * min(size) == pytest.approx(scale):
        assert factor * max(size) <= max_size + 0.51
    else:
        assert factor * max(size) == pytest.approx(max_size)
        assert factor * min(size) < scale


def test_a_mirrored_view_and_floats_will_do():
    image = pixels(20, 30, 0)
    straight, _ = prepare_image(image, make_cfg(), 20, 100)
    mirrored, _ = prepare_image(image[:, ::-1], make_cfg(), 20, 100)
    np.testing.assert_array_equal(mirrored, straight[:, :, ::-1])
    floats, _ = prepare_image(image.astype(np.float32), make_cfg(), 20, 100)
    np.testing.assert_array_equal(floats, straight)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4), (0, 5, 3)])
def test_what_is_no_image_is_an_error(shape):
    with pytest.raises(DataError, match=r"shape \(height, width, 3\)"):
        prepare_image(np.zeros(shape, np.uint8), make_cfg(), 20, 100)


def test_an_image_too_narrow_to_scale_is_an_error():
    with pytest.raises(DataError, match="1 x 3000"):
        prepare_image(np.zeros((1, 3000, 3), np.uint8), make_cfg(), 600, 1000)


def test_stacking_pads_at_the_right_and_below():
    small, large = np.ones((3, 2, 5), np.float32), np.full((3, 4, 3), 2, np.float32)
    stacked = stack_images([small, large])
    assert stacked.shape == (2, 3, 4, 5)
    np.testing.assert_array_equal(stacked[0, :, :2, :5], small)
    np.testing.assert_array_equal(stacked[1, :, :4, :3], large)
    assert stacked.sum() == small.sum() + large.sum()
