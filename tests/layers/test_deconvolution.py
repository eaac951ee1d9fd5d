"""Deconvolution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def text(options):
    return f'type: "Deconvolution" convolution_param {{ {options} {FILLERS} }}'


def spread(x, weight, stride, pad, dilation, group, dy=None):
    """Every input element adds the kernel, scaled, to the output, which is then cropped by pad.

    Returns: the output; with its gradient dy, those of x and weight as well.
    """
    kernel = weight.shape[2:]
    outputs = weight.shape[1]
    size = [
        s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    inside = (..., *(slice(p, m - p) for m, p in zip(size, pad)))
    y = np.zeros((len(x), group * outputs, *size))
    slopes, dx, dw = np.zeros_like(y), np.zeros(x.shape), np.zeros(weight.shape)
    if dy is not None:
        slopes[inside] = dy
    for n, c, *at in np.ndindex(*x.shape):
        g = c // (x.shape[1] // group)
        place = tuple(
            slice(i * s, i * s + d * (k - 1) + 1, d)
            for i, k, s, d in zip(at, kernel, stride, dilation)
        )
        target = (n, slice(g * outputs, (g + 1) * outputs), *place)
        y[target] += x[(n, c, *at)] * weight[c]
        dx[(n, c, *at)] = (slopes[target] * weight[c]).sum()
        dw[c] += x[(n, c, *at)] * slopes[target]
    return y[inside] if dy is None else (y[inside], dx, dw)


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


def repeated(**options):
    """The text of repeated fields, an entry for each axis."""
    return " ".join(f"{name}: {v}" for name, values in options.items() for v in values)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_agrees_with_loops(axes, group):
    size, kernel = (3, 4, 2)[:axes], (4, 2, 3)[:axes]
    stride, pad, dilation = (2, 1, 3)[:axes], (1, 0, 1)[:axes], (1, 2, 1)[:axes]
    each = repeated(kernel_size=kernel, stride=stride, pad=pad, dilation=dilation)
    x = rng.standard_normal((2, 4, *size))
    layer, bottom, top = make_layer(text(f"num_output: 6 group: {group} {each}"), [x])
    layer.forward(bottom, top)
    weight, bias = (b.array for b in layer.blobs)
    assert weight.shape == (4, 6 // group, *kernel) and bias.shape == (6,)
    expected = spread(x, weight, stride, pad, dilation, group) + bias.reshape(-1, *(1,) * axes)
    np.testing.assert_allclose(top[0].array, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([np.float32, np.float64]), st.integers(0, 99))
def test_any_shape(data, dtype, seed):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    axes, group = draw(1, 3), draw(1, 3)
    widest = 5 if axes < 3 else 3
    each = lambda low, high: tuple(draw(low, high) for _ in range(axes))  # noqa: E731
    kernel, stride, dilation = each(1, widest), each(1, 3), each(1, 2)
    # Padding may be larger than the kernel where there is something left of the output.
    pad = each(0, widest + 1)
    least = (
        max(1, -(-(2 * p - d * (k - 1)) // s) + 1)
        for p, d, k, s in zip(pad, dilation, kernel, stride)
    )
    size = tuple(n + draw(0, 3) for n in least)
    channels, outputs = group * draw(1, 3), group * draw(1, 9)
    # All are above zero: no sum cancels, so that the error relative to it is the kernel's.
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 1, (draw(1, 2), channels, *size)).astype(dtype)
    options = repeated(kernel_size=kernel, stride=stride, pad=pad, dilation=dilation)
    layer, bottom, top = make_layer(
        text(f"num_output: {outputs} group: {group} {options}"), [x], dtype=dtype
    )
    for blob in layer.blobs:
        blob.array[...] = rng.uniform(0.1, 1, blob.shape)
        blob.grad[...] = 1
    weight, bias = (blob.array.astype(np.float64) for blob in layer.blobs)
    dy = rng.uniform(0.1, 1, top[0].shape).astype(dtype)
    layer.forward(bottom, top)
    top[0].grad[...] = dy
    bottom[0].grad[...] = np.nan
    layer.backward(top, [True], bottom)
    y, dx, dw = spread(x.astype(np.float64), weight, stride, pad, dilation, group, dy)
    db = dy.sum(axis=(0, *range(2, dy.ndim)), dtype=np.float64)
    limit = 1e-4 if dtype == np.float32 else 1e-10
    for got, expected in (
        (top[0].array, y + bias.reshape(-1, *(1,) * axes)), (bottom[0].grad, dx),
        (layer.blobs[0].grad, 1 + dw), (layer.blobs[1].grad, 1 + db),
    ):  # fmt: skip
        assert got.dtype == dtype and got.shape == expected.shape
        assert np.abs(got - expected).max() <= limit * expected.max()


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
