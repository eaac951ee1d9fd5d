"""Softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from demitasse.engine.device import CPU
from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.layers.softmax import softmax

rng = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_gradient_along_every_axis(axis):
    check_gradients(
        f'type: "Softmax" softmax_param {{ axis: {axis} }}', [rng.standard_normal((2, 3, 4))]
    )


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
        elements=st.floats(-100, 100, width=32),
    ),
    st.data(),
)  # fmt: skip
def test_agrees_with_scipy(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    out = np.full_like(x, np.nan)
    softmax(CPU, x, axis, out)
    if x.size:
        np.testing.assert_allclose(out, special.softmax(x, axis=axis), rtol=2e-5, atol=1e-30)


def test_large_scores_do_not_overflow():
    x = np.array([[1e4, 1e4, -1e4]], np.float32)
    top = run(x)
    np.testing.assert_array_equal(top[0].array, [[0.5, 0.5, 0]])
    assert top[0].array.dtype == np.float32


def run(x):
    layer, bottom, top = make_layer('type: "Softmax"', [x], dtype=np.float32)
    layer.forward(bottom, top)
    return top


def test_in_place():
    check_gradients('type: "Softmax"', [rng.standard_normal((2, 3, 2))], in_place=True)


def test_an_axis_out_of_range_is_refused():
    with pytest.raises(LayerError, match=r"'layer' \(Softmax\).*axis in \[-1, 0\].*found 1"):
        make_layer('type: "Softmax"', [np.zeros(3)])
