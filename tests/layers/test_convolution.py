"""Convolution."""

import numpy as np
import pytest
from scipy import signal

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def text(options):
    return f'type: "Convolution" convolution_param {{ {options} {FILLERS} }}'


def correlate(x, weight, stride, pad, dilation):
    """The convolution of images (N, C, *size) by scipy, one kernel and image at a time."""
    axes = x.ndim - 2
    dilated = np.zeros(
        (*weight.shape[:2], *(d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation)))
    )
    dilated[(slice(None), slice(None), *(slice(None, None, d) for d in dilation))] = weight
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pad)))
    steps = tuple(slice(None, None, s) for s in stride)
    assert len(steps) == axes
    return np.stack(
        [
            [signal.correlate(image, w, "valid", "direct")[0][steps] for w in dilated]
            for image in padded
        ]
    )


OPTIONS = {
    "basic": ("num_output: 3 kernel_size: 3 pad: 1", (2, 2, 4, 5)),
    "no bias": ("num_output: 2 kernel_size: 2 bias_term: false", (1, 2, 3, 4)),
    "h and w": (
        "num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1",
        (2, 2, 5, 3),
    ),
    "pad_w alone": ("num_output: 2 kernel_size: 3 pad_w: 2", (1, 1, 4, 3)),
    "repeated": (
        "num_output: 2 kernel_size: 3 kernel_size: 2 stride: 1 stride: 2 pad: 1 pad: 0 "
        "dilation: 1 dilation: 2",
        (2, 2, 4, 5),
    ),
    "dilation": ("num_output: 2 kernel_size: 2 dilation: 3 pad: 1", (1, 2, 4, 5)),
    "group": ("num_output: 4 kernel_size: 3 group: 2 stride: 2 pad: 1", (2, 4, 5, 4)),
    "depthwise": ("num_output: 3 kernel_size: 3 group: 3 pad: 1", (2, 3, 4, 4)),
    "depthwise, several": ("num_output: 4 kernel_size: 2 group: 2", (1, 2, 3, 4)),
    "1x1": ("num_output: 3 kernel_size: 1", (2, 4, 3, 2)),
    "1x1 group": ("num_output: 4 kernel_size: 1 group: 2", (3, 4, 2, 2)),
    "1x1 stride": ("num_output: 2 kernel_size: 1 stride: 2", (2, 2, 5, 3)),
    "force_nd": ("num_output: 2 kernel_size: 3 force_nd_im2col: true engine: CAFFE", (1, 2, 4, 5)),
    "1d": ("num_output: 2 kernel_size: 3 stride: 2 pad: 1", (2, 3, 7)),
    "3d": ("num_output: 2 kernel_size: 2 pad: 1 stride: 2", (1, 2, 3, 4, 3)),
    "axis 2": ("num_output: 2 kernel_size: 2 axis: 2", (2, 2, 3, 3, 2)),
    "axis -2": ("num_output: 2 kernel_size: 2 axis: -2", (2, 3, 2, 5)),
    "no spatial axis": ("num_output: 3 axis: -1", (2, 2, 4)),
    "wider than the image": ("num_output: 2 kernel_size: 4 stride: 3", (2, 2, 2, 3)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradient(name):
    options, shape = OPTIONS[name]
    check_gradients(text(options), [rng.standard_normal(shape)])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scipy(axes, dtype):
    size, kernel = (9, 7, 8)[:axes], (3, 2, 3)[:axes]
    stride, pad, dilation = (2, 1, 3)[:axes], (1, 0, 2)[:axes], (1, 2, 1)[:axes]
    each = " ".join(
        f"{name}: {v}"
        for name, values in (
            ("kernel_size", kernel), ("stride", stride), ("pad", pad), ("dilation", dilation)
        )
        for v in values
    )  # fmt: skip
    x = rng.standard_normal((2, 3, *size)).astype(dtype)
    layer, bottom, top = make_layer(text(f"num_output: 4 {each}"), [x], dtype=dtype)
    layer.forward(bottom, top)
    weight, bias = (b.array for b in layer.blobs)
    assert weight.shape == (4, 3, *kernel) and bias.shape == (4,)
    expected = correlate(x, weight, stride, pad, dilation) + bias.reshape(-1, *(1,) * axes)
    assert top[0].array.dtype == dtype
    np.testing.assert_allclose(top[0].array, expected, rtol=1e-4, atol=1e-4)


def test_a_window_may_stick_out_by_less_than_the_stride():
    # C rounds the division of a negative number towards zero, so Caffe finds one output here.
    x = rng.standard_normal((1, 2, 4, 3))
    layer, bottom, top = make_layer(text("num_output: 3 kernel_size: 5 stride: 3"), [x])
    layer.forward(bottom, top)
    weight, bias = (b.array for b in layer.blobs)
    assert top[0].shape == (1, 3, 1, 1)
    expected = (weight[:, :, :4, :3] * x).sum(axis=(1, 2, 3)) + bias
    np.testing.assert_allclose(top[0].array.ravel(), expected, rtol=1e-12)


def test_several_bottoms_share_the_weights():
    bottoms = [rng.standard_normal((2, 2, 4, 3)) for _ in range(2)]
    check_gradients(text("num_output: 3 kernel_size: 2"), bottoms, num_tops=2)
    layer, bottom, top = make_layer(text("num_output: 3 kernel_size: 2"), bottoms, num_tops=2)
    layer.forward(bottom, top)
    one, b, t = make_layer(text("num_output: 3 kernel_size: 2"), bottoms[1:])
    one.forward(b, t)
    np.testing.assert_array_equal(top[1].array, t[0].array)


def test_only_what_is_asked_for():
    layer, bottom, top = make_layer(text("num_output: 2 kernel_size: 2"), [np.ones((1, 1, 3, 3))])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    bottom[0].grad[...] = 7
    layer.param_propagate_down[:] = [False, True]
    layer.backward(top, [False], bottom)
    assert (bottom[0].grad == 7).all() and (layer.blobs[0].grad == 0).all()
    assert layer.blobs[1].grad.tolist() == [4, 4]


def test_a_new_image_size_every_pass():
    layer, bottom, top = make_layer(
        text("num_output: 2 kernel_size: 3 pad: 1"), [np.zeros((1, 2, 3, 3))]
    )
    weight, bias = (b.array for b in layer.blobs)
    for shape in ((2, 2, 5, 4), (1, 2, 3, 3), (0, 2, 4, 4), (3, 2, 7, 1)):
        bottom[0].reshape(*shape)
        bottom[0].array[...] = rng.standard_normal(shape)
        layer.reshape(bottom, top)
        layer.forward(bottom, top)
        assert top[0].shape == shape
        if shape[0]:
            expected = correlate(bottom[0].array, weight, (1, 1), (1, 1), (1, 1))
            np.testing.assert_allclose(top[0].array, expected + bias[:, None, None])
        top[0].grad[...] = 1
        layer.backward(top, [True], bottom)


ERRORS = {
    "num_output: 2": "kernel_size once, or once for each of 2 spatial axes, found no kernel_size",
    "num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3": "kernel_size or kernel_h and kernel_w, "
    "found both",
    "num_output: 2 kernel_h: 3": "both kernel_h and kernel_w .*found kernel_h alone",
    "num_output: 2 kernel_size: 2 stride_w: 3": "found stride_w alone",
    "num_output: 2 kernel_size: 2 pad: 1 pad_h: 1": "pad or pad_h and pad_w, found both",
    "num_output: 2 kernel_size: 1 kernel_size: 1 kernel_size: 1": "each of 2 spatial axes, "
    "found 3 values",
    "num_output: 2 kernel_size: 2 stride: 1 stride: 1 stride: 1": "stride once.*found 3 values",
    "num_output: 2 kernel_size: 2 dilation: 1 dilation: 1 dilation: 1": "dilation once",
    "num_output: 2 kernel_h: 2 kernel_w: 2 axis: 0": "only with 2 spatial axes, found 3",
    "num_output: 2 kernel_size: 0": "kernel_size of at least 1",
    "num_output: 2 kernel_size: 1 stride: 0": "stride of at least 1",
    "num_output: 2 kernel_size: 1 dilation: 0": "dilation of at least 1",
    "kernel_size: 1": "num_output of at least 1, found 0",
    "num_output: 2 kernel_size: 1 group: 0": "group of at least 1",
    "num_output: 4 kernel_size: 1 group: 4": "bottom channels divisible by group 4, found 6",
    "num_output: 4 kernel_size: 1 group: 3": "num_output divisible by group 3, found 4",
    "num_output: 2 kernel_size: 6": "spatial axis 0, found 4 elements .*output would be empty",
    "num_output: 2 kernel_size: 6 stride: 2": "the output would be empty",
    "num_output: 2 kernel_size: 2 dilation: 6": "a window of 7: the output would be empty",
    "num_output: 2 kernel_size: 1 axis: 4": r"an axis in \[-4, 3\]",
}


@pytest.mark.parametrize("options", ERRORS)
def test_errors(options):
    with pytest.raises(LayerError, match=rf"layer 'layer' \(Convolution\).*{ERRORS[options]}"):
        make_layer(text(options), [np.zeros((1, 6, 4, 4))])


def test_errors_of_later_shapes():
    layer, bottom, top = make_layer(
        text("num_output: 2 kernel_size: 3"), [np.zeros((1, 3, 4, 4))] * 2, num_tops=2
    )
    bottom[1].reshape(1, 3, 4, 5)
    with pytest.raises(LayerError, match="bottoms of one shape"):
        layer.reshape(bottom, top)
    for shape, message in (((1, 2, 4, 4), "3 channels on axis 1"), ((3, 4, 4), "2 spatial axes")):
        for b in bottom:
            b.reshape(*shape)
        with pytest.raises(LayerError, match=message):
            layer.reshape(bottom, top)
