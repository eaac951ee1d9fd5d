"""MultinomialLogisticLoss."""

import math

import numpy as np
import pytest

from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
TEXT = 'type: "MultinomialLogisticLoss"'


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2), (3, 1)])
@pytest.mark.parametrize("label_axes", [1, 4])
def test_values_and_gradients(shape, label_axes):
    p = rng.uniform(0.1, 1, shape)
    labels = rng.integers(0, np.prod(shape[1:]), (shape[0],) + (1,) * (label_axes - 1))
    layer, bottom, top = make_layer(TEXT, [p, labels])
    layer.forward(bottom, top)
    rows = p.reshape(len(p), -1)
    expected = -sum(math.log(r[k]) for r, k in zip(rows, labels.ravel(), strict=True)) / len(p)
    assert top[0].array == pytest.approx(expected, rel=1e-12)
    check_gradients(TEXT, [p, labels], check_bottoms=[0])


def test_a_probability_of_zero():
    layer, bottom, top = make_layer(TEXT, [[[0, 1]], [0]], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(-math.log(1e-20), rel=1e-6)
    top[0].grad[...] = 1
    layer.backward(top, [True, False], bottom)
    np.testing.assert_allclose(bottom[0].grad, [[-1e20, 0]], rtol=1e-6)
