"""Deconvolution."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def text(options):
    return f'type: "Deconvolution" convolution_param {{ {options} {FILLERS} }}'


def spread(x, weight, stride, pad, dilation, group):
    """Every input element adds the kernel, scaled, to the output, which is then cropped by pad."""
    kernel = weight.shape[2:]
    outputs = weight.shape[1]
    size = [
        s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    y = np.zeros((len(x), group * outputs, *size))
    for n, c, *at in np.ndindex(*x.shape):
        g = c // (x.shape[1] // group)
        place = tuple(
            slice(i * s, i * s + d * (k - 1) + 1, d)
            for i, k, s, d in zip(at, kernel, stride, dilation)
        )
        y[(n, slice(g * outputs, (g + 1) * outputs), *place)] += x[(n, c, *at)] * weight[c]
    inside = tuple(slice(p, m - p) for m, p in zip(size, pad))
    return y[(slice(None), slice(None), *inside)]


OPTIONS = {
    "basic": ("num_output: 3 kernel_size: 4 stride: 2 pad: 1", (2, 2, 3, 2)),
    "no bias": ("num_output: 2 kernel_size: 2 bias_term: false", (1, 3, 3, 2)),
    "group": ("num_output: 4 kernel_size: 3 group: 2 stride: 2", (2, 4, 2, 3)),
    "depthwise": ("num_output: 3 kernel_size: 3 stride: 3 group: 3", (1, 3, 2, 2)),
    "dilation": ("num_output: 2 kernel_size: 2 dilation: 2 stride: 3", (1, 2, 2, 3)),
    "h and w": ("num_output: 2 kernel_h: 1 kernel_w: 3 stride_h: 2 stride_w: 1", (2, 1, 3, 3)),
    "1x1": ("num_output: 3 kernel_size: 1", (2, 2, 3, 2)),
    "1d": ("num_output: 2 kernel_size: 3 stride: 2", (2, 2, 4)),
    "3d": ("num_output: 2 kernel_size: 2 stride: 2", (1, 2, 2, 2, 3)),
    "axis 2": ("num_output: 2 kernel_size: 2 axis: 2", (2, 2, 3, 2, 2)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradient(name):
    options, shape = OPTIONS[name]
    check_gradients(text(options), [rng.standard_normal(shape)])


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_agrees_with_loops(axes, group):
    size, kernel = (3, 4, 2)[:axes], (4, 2, 3)[:axes]
    stride, pad, dilation = (2, 1, 3)[:axes], (1, 0, 1)[:axes], (1, 2, 1)[:axes]
    each = " ".join(
        f"{name}: {v}"
        for name, values in (
            ("kernel_size", kernel), ("stride", stride), ("pad", pad), ("dilation", dilation)
        )
        for v in values
    )  # fmt: skip
    x = rng.standard_normal((2, 4, *size))
    layer, bottom, top = make_layer(text(f"num_output: 6 group: {group} {each}"), [x])
    layer.forward(bottom, top)
    weight, bias = (b.array for b in layer.blobs)
    assert weight.shape == (4, 6 // group, *kernel) and bias.shape == (6,)
    expected = spread(x, weight, stride, pad, dilation, group) + bias.reshape(-1, *(1,) * axes)
    np.testing.assert_allclose(top[0].array, expected, rtol=1e-12, atol=1e-12)


def test_bilinear_upsampling_of_a_plane():
    options = (
        "num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false "
        'weight_filler { type: "bilinear" }'
    )
    plane = np.add.outer(np.arange(5.0), 2 * np.arange(6.0))
    layer, bottom, top = make_layer(
        f'type: "Deconvolution" convolution_param {{ {options} }}', [np.stack([[plane, -plane]])]
    )
    layer.forward(bottom, top)
    assert top[0].shape == (1, 2, 10, 12)
    inner = top[0].array[0, 0, 1:-1, 1:-1]  # linear inside, where all neighbours exist
    np.testing.assert_allclose(np.diff(inner, axis=0), 0.5)
    np.testing.assert_allclose(np.diff(inner, axis=1), 1.0)
    np.testing.assert_allclose(top[0].array[0, 1], -top[0].array[0, 0])


def test_empty_batch_and_several_bottoms():
    layer, bottom, top = make_layer(
        text("num_output: 2 kernel_size: 2"), [np.zeros((0, 3, 2, 2))] * 2, num_tops=2
    )
    layer.forward(bottom, top)
    layer.backward(top, [True, True], bottom)
    assert top[1].shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ("num_output: 2 kernel_size: 2 pad: 2", "the output would be empty"),
        ("num_output: 3 kernel_size: 2 group: 2", "num_output divisible by group 2, found 3"),
        ("num_output: 3", "found no kernel_size"),
    ],
)
def test_errors(options, message):
    with pytest.raises(LayerError, match=rf"\(Deconvolution\).*{message}"):
        make_layer(text(options), [np.zeros((1, 2, 2, 2))])
