"""Silence."""

import numpy as np

from demitasse.engine.gradient_check import make_layer


def test_gradients_are_zero_where_asked_for():
    layer, bottom, top = make_layer('type: "Silence"', [np.ones((2, 3)), np.ones(4)])
    assert top == []
    for blob in bottom:
        blob.grad[...] = 5
    layer.forward(bottom, top)
    layer.backward(top, [True, False], bottom)
    assert (bottom[0].grad == 0).all() and (bottom[1].grad == 5).all()
