"""SmoothL1Loss."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(sigma):
    return f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}'


def oracle(sigma, a, b, inside=None, outside=None):
    inside = np.ones_like(a) if inside is None else inside
    outside = np.ones_like(a) if outside is None else outside
    total = 0
    for x, y, w, v in zip(a.ravel(), b.ravel(), inside.ravel(), outside.ravel(), strict=True):
        d = abs(w * (x - y))
        total += v * (0.5 * sigma**2 * d**2 if d < 1 / sigma**2 else d - 0.5 / sigma**2)
    return total / len(a)


@pytest.mark.parametrize("sigma", [1, 3, 0.5])
@pytest.mark.parametrize("weights", [0, 1, 2])  # none, inside, inside and outside
@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 2, 2)])
def test_values_and_gradients(sigma, weights, shape):
    arrays = [rng.standard_normal(shape) * 3 for _ in range(2)]
    arrays += [rng.choice([0, 1, 0.5], shape), rng.uniform(0, 2, shape)][:weights]
    layer, bottom, top = make_layer(text(sigma), arrays)
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(sigma, *arrays), rel=1e-12)
    check_gradients(text(sigma), arrays, check_bottoms=[0, 1])


def test_at_zero_and_at_the_break():
    a = np.array([[0, 0.25, -0.25, 0.5, -4]])  # sigma 2: the break is at 0.25
    layer, bottom, top = make_layer(text(2), [a, np.zeros_like(a)], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].array == np.float32(0.125 + 0.125 + 0.375 + 3.875)
    top[0].grad[...] = 1
    layer.backward(top, [True, False], bottom)
    np.testing.assert_array_equal(bottom[0].grad, [[0, 1, -1, 1, -1]])
    assert bottom[0].grad.dtype == np.float32


def test_the_weights_are_constants():
    layer, bottom, top = make_layer(text(1), [np.ones((2, 3))] * 4)
    layer.forward(bottom, top)
    bottom[2].grad[...] = bottom[3].grad[...] = np.nan
    layer.backward(top, [True] * 4, bottom)
    assert not bottom[2].grad.any() and not bottom[3].grad.any()


def test_the_divisor_is_the_number_of_rows_whatever_the_weights():
    inside = np.array([[1, 1], [0, 0], [0, 0]])
    layer, bottom, top = make_layer(text(1), [np.full((3, 2), 3), np.zeros((3, 2)), inside, inside])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(2 * 2.5 / 3)


def test_a_flat_shape_for_the_weights():
    a = [rng.standard_normal((2, 3)) for _ in range(4)]
    losses = []
    for shape in [(2, 3), (2, 3, 1, 1)]:
        layer, bottom, top = make_layer(text(1), [v.reshape(shape) if v is a[2] else v for v in a])
        layer.forward(bottom, top)
        losses.append(float(top[0].array))
    assert losses[0] == losses[1]


def test_errors():
    where = r"'layer' \(SmoothL1Loss\).*"
    one = np.ones((2, 3))
    with pytest.raises(LayerError, match=where + r"in bottom 3 as in bottom 0.*\(2, 4\)"):
        make_layer(text(1), [one, one, one, np.ones((2, 4))])
    with pytest.raises(LayerError, match=where + "sigma above 0, found 0"):
        make_layer(text(0), [one, one])
