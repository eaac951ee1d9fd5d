"""Eltwise."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

RNG = np.random.default_rng(0)
A, B, C = RNG.uniform(0.5, 2, (3, 2, 3, 2)) * RNG.choice([-1, 1], (3, 2, 3, 2))


def _text(options):
    return f'name: "e" type: "Eltwise" eltwise_param {{ {options} }}'


@pytest.mark.parametrize("bottoms", [[A, B], [A, B, C]])
@pytest.mark.parametrize(
    "options",
    ["", "operation: PROD", "operation: PROD stable_prod_grad: false", "operation: MAX"],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_gradient(options, bottoms, in_place):
    check_gradients(_text(options), bottoms, in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
def test_gradient_of_weighted_sum(in_place):
    check_gradients(_text("coeff: 1 coeff: -0.5 coeff: 3"), [A, B, C], in_place=in_place)
    check_gradients(_text("coeff: 2 coeff: -1"), [A, B], in_place=in_place)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", A + B + C),
        ("operation: SUM coeff: 1 coeff: -0.5 coeff: 2", A - 0.5 * B + 2 * C),
        ("operation: PROD", A * B * C),
        ("operation: MAX", np.maximum(np.maximum(A, B), C)),
        ("operation: MAX coeff: 5 coeff: 5 coeff: 5", np.maximum(np.maximum(A, B), C)),
    ],
)
def test_values(options, expected):
    for in_place in (False, True):
        layer, bottom, top = make_layer(
            _text(options), [A, B, C], dtype=np.float32, in_place=in_place
        )
        layer.forward(bottom, top)
        assert top[0].array.dtype == np.float32
        np.testing.assert_allclose(top[0].array, expected, rtol=1e-6, atol=1e-6)


def test_ties_of_max():
    # Of the first two the second wins; a later one only if it is larger.
    x = [np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 1, 1, 2])]
    layer, bottom, top = make_layer(_text("operation: MAX"), x)
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True] * 3, bottom)
    np.testing.assert_array_equal(bottom[0].grad, [0, 1, 0, 0])
    np.testing.assert_array_equal(bottom[1].grad, [1, 0, 1, 0])
    np.testing.assert_array_equal(bottom[2].grad, [0, 0, 0, 1])


def test_stable_gradient_of_a_product_with_zero():
    zero = np.zeros(3)
    layer, bottom, top = make_layer(_text("operation: PROD"), [zero, np.array([2.0, 3.0, 4.0])])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True, True], bottom)
    np.testing.assert_array_equal(bottom[0].grad, [2, 3, 4])
    np.testing.assert_array_equal(bottom[1].grad, [0, 0, 0])


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (2, 1, 3, 1, 2)])
def test_odd_shapes(shape):
    x = np.full(shape, 2.0)
    for options, value in (("", 4), ("operation: PROD", 4), ("operation: MAX", 2)):
        layer, bottom, top = make_layer(_text(options), [x, x])
        layer.forward(bottom, top)
        layer.backward(top, [True, True], bottom)
        assert top[0].shape == shape and (top[0].array == value).all()


@pytest.mark.parametrize(
    ("options", "bottoms", "message"),
    [
        ("coeff: 1", [A, B], "one for each of 2 bottoms, found 1"),
        ("operation: PROD coeff: 1 coeff: 2", [A, B], "coeff only with operation SUM"),
        ("", [A, B[:1]], r"bottoms of one shape, \(2, 3, 2\), found bottom 1 of shape \(1, 3, 2\)"),
    ],
)
def test_errors(options, bottoms, message):
    with pytest.raises(LayerError, match=r"layer 'e' \(Eltwise\): expected .*" + message):
        make_layer(_text(options), bottoms)
