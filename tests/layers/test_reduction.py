"""Reduction."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
ORACLES = {
    "SUM": lambda x: x.sum(axis=1),
    "ASUM": lambda x: abs(x).sum(axis=1),
    "SUMSQ": lambda x: (x**2).sum(axis=1),
    "MEAN": lambda x: x.mean(axis=1),
}


def text(operation, axis, coeff=1):
    return (
        f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} '
        f"coeff: {coeff} }}"
    )


@pytest.mark.parametrize("operation", ORACLES)
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
@pytest.mark.parametrize("coeff", [1, -0.5])
def test_values_and_gradients(operation, axis, coeff):
    x = rng.standard_normal((2, 3, 4))
    layer, bottom, top = make_layer(text(operation, axis, coeff), [x])
    layer.forward(bottom, top)
    kept = x.shape[: axis % 3]
    expected = coeff * ORACLES[operation](x.reshape(int(np.prod(kept)), -1)).reshape(kept)
    np.testing.assert_allclose(top[0].array, expected, rtol=1e-12)
    check_gradients(text(operation, axis, coeff), [x], kinks=0)


def test_default_is_the_sum_of_all():
    layer, bottom, top = make_layer('type: "Reduction"', [np.ones((2, 3))], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].shape == () and top[0].array == 6
    assert layer.coeff == 1


@pytest.mark.parametrize("operation", ORACLES)
def test_nothing_to_reduce_gives_zero(operation):
    layer, bottom, top = make_layer(text(operation, 1), [np.zeros((2, 0))])
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, [0, 0])
    layer.backward(top, [True], bottom)


def test_errors():
    with pytest.raises(LayerError, match=r"'layer' \(Reduction\).*an axis in \[-2, 1\]"):
        make_layer(text("SUM", 2), [np.zeros((2, 3))])
