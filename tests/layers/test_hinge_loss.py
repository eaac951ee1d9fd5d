"""HingeLoss."""

import numpy as np
import pytest

from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def oracle(x, labels, power):
    total = 0
    for row, label in zip(x.reshape(len(x), -1), labels.ravel(), strict=True):
        for k, v in enumerate(row):
            total += max(0, 1 + (-v if k == label else v)) ** power
    return total / len(x)


@pytest.mark.parametrize("norm, power", [("L1", 1), ("L2", 2)])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2), (3, 1)])
@pytest.mark.parametrize("label_axes", [1, 4])
def test_values_and_gradients(norm, power, shape, label_axes):
    x = rng.standard_normal(shape) * 2
    labels = rng.integers(0, np.prod(shape[1:]), (shape[0],) + (1,) * (label_axes - 1))
    text = f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}'
    layer, bottom, top = make_layer(text, [x, labels])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(x, labels, power), rel=1e-12)
    check_gradients(text, [x, labels], check_bottoms=[0], kinks=[-1, 1])


def test_the_default_is_l1_and_the_kink_has_slope_zero():
    layer, bottom, top = make_layer('type: "HingeLoss"', [[[1, -1, 0]], [0]], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].array == 1
    top[0].grad[...] = 3
    layer.backward(top, [True, False], bottom)
    np.testing.assert_array_equal(bottom[0].grad, [[0, 0, 3]])
    assert bottom[0].grad.dtype == np.float32
