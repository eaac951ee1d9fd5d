"""MVN."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

X = np.random.default_rng(0).normal(2, 3, size=(2, 3, 2, 2))


def _text(options=""):
    return f'name: "m" type: "MVN" mvn_param {{ {options} }}'


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "options",
    ["", "across_channels: true", "normalize_variance: false",
     "normalize_variance: false across_channels: true"],
)  # fmt: skip
def test_values_and_gradient(options, in_place):
    axes = (1, 2, 3) if "across" in options else (2, 3)
    expected = X - X.mean(axis=axes, keepdims=True)
    if "variance: false" not in options:
        expected /= X.std(axis=axes, keepdims=True) + 1e-9
    layer, bottom, top = make_layer(_text(options), [X], in_place=in_place)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, expected, atol=1e-12)
    check_gradients(_text(options), [X], in_place=in_place)


def test_eps_is_added_to_the_deviation():
    layer, bottom, top = make_layer(_text("eps: 0.5"), [X])
    layer.forward(bottom, top)
    centred = X - X.mean(axis=(2, 3), keepdims=True)
    divisor = X.std(axis=(2, 3), keepdims=True) + 0.5
    np.testing.assert_allclose(top[0].array, centred / divisor, atol=1e-12)
    # Caffe's gradient takes the divisor for the deviation.
    dy = np.random.default_rng(1).normal(size=X.shape)
    top[0].grad[...] = dy
    layer.backward(top, [True], bottom)
    y = centred / divisor
    mean = {"axis": (2, 3), "keepdims": True}
    expected = (dy - dy.mean(**mean) - y * (y * dy).mean(**mean)) / divisor
    np.testing.assert_allclose(bottom[0].grad, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4)])
def test_top_has_four_axes(shape):
    x = np.random.default_rng(0).normal(size=shape)
    layer, bottom, top = make_layer(_text("across_channels: true normalize_variance: false"), [x])
    layer.forward(bottom, top)
    assert top[0].shape == shape + (1,) * (4 - len(shape))
    rows = x.reshape(shape[0], -1)
    expected = rows - rows.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(top[0].array.reshape(rows.shape), expected, atol=1e-15)


def test_empty_batch_and_errors():
    layer, bottom, top = make_layer(_text(), [np.ones((0, 3, 2, 2))])
    layer.forward(bottom, top)
    layer.backward(top, [True], bottom)
    assert top[0].shape == (0, 3, 2, 2)
    with pytest.raises(LayerError, match=r"layer 'm' \(MVN\): expected .* at most 4 axes"):
        make_layer(_text(), [np.ones((1, 1, 1, 1, 1))])
