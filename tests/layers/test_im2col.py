"""Im2col."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(options):
    return f'type: "Im2col" convolution_param {{ {options} }}'


@pytest.mark.parametrize(
    "options, shape",
    [
        ("kernel_size: 3 stride: 2 pad: 1", (2, 2, 5, 4)),
        ("kernel_size: 2 dilation: 2", (1, 2, 4, 3)),
        ("kernel_size: 2 force_nd_im2col: true", (2, 1, 3, 3)),
        ("kernel_size: 2 axis: 2", (2, 2, 2, 3)),
        ("kernel_size: 2", (2, 1, 3, 2, 2)),
    ],
)
def test_gradient(options, shape):
    check_gradients(text(options), [rng.standard_normal(shape)])


def test_agrees_with_loops():
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    layer, bottom, top = make_layer(
        text("kernel_h: 2 kernel_w: 3 stride: 2 pad_h: 1 pad_w: 0"), [x], dtype=np.float32
    )
    layer.forward(bottom, top)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    assert top[0].shape == (2, 18, 4, 2)
    for n, row, p, q in np.ndindex(*top[0].shape):
        c, i, j = np.unravel_index(row, (3, 2, 3))
        assert top[0].array[n, row, p, q] == padded[n, c, 2 * p + i, 2 * q + j]


def test_empty_batch():
    layer, bottom, top = make_layer(text("kernel_size: 2"), [np.zeros((0, 3, 4, 4))])
    layer.forward(bottom, top)
    layer.backward(top, [True], bottom)
    assert top[0].shape == (0, 12, 3, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "found no kernel_size"),
        ("kernel_size: 5", "the output would be empty"),
        ("kernel_size: 1 axis: 3", "at least one spatial axis"),
    ],
)
def test_errors(options, message):
    with pytest.raises(LayerError, match=rf"\(Im2col\).*{message}"):
        make_layer(text(options), [np.zeros((1, 2, 3, 3))])
