"""ROIPooling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.kernels.geometry import round_half_away

rng = np.random.default_rng(0)


def text(height, width, scale=1.0):
    return (
        f'type: "ROIPooling" roi_pooling_param '
        f"{{ pooled_h: {height} pooled_w: {width} spatial_scale: {scale} }}"
    )


def distinct(shape):
    return rng.permutation(np.prod(shape)).reshape(shape) * 0.1 - 1.0


def away(value):
    """C's round()."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def oracle(x, rois, pooled, scale):
    """fast-rcnn's rules by plain loops, in the dtype of the RoIs."""
    one = rois.dtype.type
    size = x.shape[2:]
    y = np.zeros((len(rois), x.shape[1], *pooled))
    winners = np.full(y.shape, -1)
    for r, roi in enumerate(rois):
        x1, y1, x2, y2 = (away(float(v * one(scale))) for v in roi[1:])
        steps = (
            one(max(y2 - y1 + 1, 1)) / one(pooled[0]),
            one(max(x2 - x1 + 1, 1)) / one(pooled[1]),
        )
        for c, i, j in np.ndindex(*y.shape[1:]):
            begin = [math.floor(one(p) * s) + o for p, s, o in zip((i, j), steps, (y1, x1))]
            end = [math.ceil(one(p + 1) * s) + o for p, s, o in zip((i, j), steps, (y1, x1))]
            begin = [min(max(b, 0), n) for b, n in zip(begin, size)]
            end = [min(max(e, 0), n) for e, n in zip(end, size)]
            best = -np.inf
            for h in range(begin[0], end[0]):
                for w in range(begin[1], end[1]):
                    if x[int(roi[0]), c, h, w] > best:
                        best = y[r, c, i, j] = x[int(roi[0]), c, h, w]
                        winners[r, c, i, j] = h * size[1] + w
    return y, winners


ROIS = np.array(
    [
        [0, 0, 0, 5, 4],
        [1, 2, 1, 9, 3],
        [0, 1.5, 2.5, 1.5, 2.5],  # halves, one pixel
        [1, -4, -3, 2, 1],  # partly outside
        [0, 8, 8, 30, 30],  # wholly outside
        [1, 0, 0, 6, 5],  # over another's
    ]
)


@pytest.mark.parametrize("pooled, scale", [((2, 3), 1.0), ((3, 2), 0.5), ((7, 7), 1.0)])
def test_gradient(pooled, scale):
    check_gradients(text(*pooled, scale), [distinct((2, 2, 6, 7)), ROIS], check_bottoms=[0])


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_agrees_with_loops(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    images, channels, size = draw(1, 3), draw(1, 3), (draw(1, 9), draw(1, 9))
    scale = data.draw(st.sampled_from([1.0, 0.5, 0.0625, 1 / 3]))
    corner = st.integers(-8, 40).map(lambda v: v / 2)
    one_roi = st.tuples(st.integers(0, images - 1), corner, corner, corner, corner)
    rois = data.draw(st.lists(one_roi, max_size=5))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    rois = np.array(rois, dtype).reshape(-1, 5)
    pooled = (draw(1, 7), draw(1, 7))
    x = rng.integers(-4, 4, (images, channels, *size)).astype(dtype)  # with ties
    layer, bottom, top = make_layer(text(*pooled, scale), [x, rois], dtype=dtype)
    layer.forward(bottom, top)
    scale = dtype(np.float32(scale))  # as the prototxt has it
    expected, winners = oracle(x, rois, pooled, scale)
    np.testing.assert_array_equal(top[0].array, expected)
    np.testing.assert_array_equal(layer.argmax, winners)

    top[0].grad[...] = rng.standard_normal(top[0].shape)
    layer.backward(top, [True, False], bottom)
    dx = np.zeros((images, channels, size[0] * size[1]))
    for r, c, i, j in np.ndindex(*top[0].shape):
        x1, y1, x2, y2 = (away(float(v * scale)) for v in rois[r, 1:])
        if winners[r, c, i, j] >= 0 and x1 <= x2 and y1 <= y2:
            dx[int(rois[r, 0]), c, winners[r, c, i, j]] += top[0].grad[r, c, i, j]
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(bottom[0].grad, dx.reshape(x.shape), rtol=tolerance, atol=tolerance)


def test_a_malformed_roi_is_one_pixel_without_gradient():
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    layer, bottom, top = make_layer(text(2, 2), [x, [[0, 2, 1, 1, 1]]])
    layer.forward(bottom, top)
    assert (top[0].array == x[0, 0, 1, 2]).all()
    top[0].grad[...] = 1
    layer.backward(top, [True, True], bottom)
    assert (bottom[0].grad == 0).all() and (bottom[1].grad == 0).all()


def test_rois_with_four_axes_and_none_at_all():
    x = distinct((1, 2, 4, 4))
    layer, bottom, top = make_layer(text(2, 2), [x, np.reshape([0, 0, 0, 3, 3], (1, 5, 1, 1))])
    layer.forward(bottom, top)
    expected = x.reshape(1, 2, 2, 2, 2, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(top[0].array, expected)
    bottom[1].reshape(0, 5)
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    bottom[0].grad[...] = np.nan
    layer.backward(top, [True, False], bottom)
    assert top[0].shape == (0, 2, 2, 2) and (bottom[0].grad == 0).all()


@given(st.floats(-1e6, 1e6, width=32))
def test_rounding(value):
    x = np.array([value], np.float32)
    assert round_half_away(np, x)[0] == away(float(x[0]))


@pytest.mark.parametrize(
    "roi, found",
    [
        ([2, 0, 0, 1, 1], r"RoI 1: \[2.0"),
        ([-1, 0, 0, 1, 1], "RoI 1"),
        ([0, np.nan, 0, 1, 1], "RoI 1.*nan"),
        ([np.nan, 0, 0, 1, 1], "RoI 1"),
        ([0, 0, 0, np.inf, 1], "RoI 1"),
    ],
)
def test_bad_rois(roi, found):
    layer, bottom, top = make_layer(text(2, 2), [np.zeros((2, 1, 3, 3)), [[0, 0, 0, 1, 1], roi]])
    with pytest.raises(LayerError, match=rf"image index in \[0, 2\), found {found}"):
        layer.forward(bottom, top)


@pytest.mark.parametrize(
    "pooled, features, rois, message",
    [
        ((0, 2), (1, 1, 3, 3), (1, 5), "pooled_h and pooled_w of at least 1, found 0 and 2"),
        ((2, 2), (1, 3, 3), (1, 5), r"features \(N, C, H, W\)"),
        ((2, 2), (1, 1, 3, 3), (1, 4), r"RoIs \(R, 5\) as bottom 1"),
    ],
)
def test_errors(pooled, features, rois, message):
    with pytest.raises(LayerError, match=rf"\(ROIPooling\).*{message}"):
        make_layer(text(*pooled), [np.zeros(features), np.zeros(rois)])
