import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

TEXT = 'type: "LSTMUnit"'


def arrays(streams=2, width=3, cont=None, seed=0):
    rng = np.random.default_rng(seed)
    cont = rng.integers(0, 2, (1, streams)) if cont is None else np.reshape(cont, (1, streams))
    return [
        rng.normal(size=(1, streams, width)),
        rng.normal(size=(1, streams, 4 * width)),
        cont.astype(float),
    ]


def logistic(x):
    return 1 / (1 + math.exp(-x))


def unit_by_loops(c_prev, gates, cont, dc=None, dh=None):
    """Caffe's formulas, element by element: c, h, and the gradients of c_prev and the gates."""
    _, streams, width = c_prev.shape
    c, h = np.zeros_like(c_prev), np.zeros_like(c_prev)
    dc_prev, dgates = np.zeros_like(c_prev), np.zeros_like(gates)
    for n in range(streams):
        for d in range(width):
            x = gates[0, n]
            i, f, o = (logistic(x[k * width + d]) for k in range(3))
            f *= cont[0, n]
            g = math.tanh(x[3 * width + d])
            c[0, n, d] = f * c_prev[0, n, d] + i * g
            t = math.tanh(c[0, n, d])
            h[0, n, d] = o * t
            if dc is None:
                continue
            term = dc[0, n, d] + dh[0, n, d] * o * (1 - t * t)
            dc_prev[0, n, d] = term * f
            dgates[0, n, d] = term * g * i * (1 - i)
            dgates[0, n, width + d] = term * c_prev[0, n, d] * f * (1 - f)
            dgates[0, n, 2 * width + d] = dh[0, n, d] * t * o * (1 - o)
            dgates[0, n, 3 * width + d] = term * i * (1 - g * g)
    return c, h, dc_prev, dgates


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.sampled_from([0, 1, 0.3, 2]))
def test_values_and_gradients_are_those_of_the_loops(streams, width, seed, cont):
    bottoms = arrays(streams, width, [cont] * streams, seed)
    layer, bottom, top = make_layer(TEXT, bottoms)
    layer.forward(bottom, top)
    rng = np.random.default_rng(seed + 1)
    dc, dh = rng.normal(size=(2, *bottoms[0].shape))
    top[0].grad[...], top[1].grad[...] = dc, dh
    layer.backward(top, [True, True, False], bottom)
    c, h, dc_prev, dgates = unit_by_loops(*bottoms, dc, dh)
    np.testing.assert_allclose(top[0].array, c, rtol=1e-12)
    np.testing.assert_allclose(top[1].array, h, rtol=1e-12)
    np.testing.assert_allclose(bottom[0].grad, dc_prev, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(bottom[1].grad, dgates, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cont", [[0, 1], [1, 1], [0, 0]])
def test_gradients(cont):
    check_gradients(TEXT, arrays(cont=cont), check_bottoms=[0, 1])


def test_large_gate_inputs_do_not_overflow():
    c_prev, gates, cont = arrays(2, 2, [1, 1])
    gates[...] = np.where(gates > 0, 1e4, -1e4)
    layer, bottom, top = make_layer(TEXT, [c_prev, gates, cont], dtype=np.float32)
    with np.errstate(all="raise"):
        layer.forward(bottom, top)
    assert np.isfinite(top[1].array).all()


def test_no_gradient_of_the_indicators():
    layer, bottom, top = make_layer(TEXT, arrays())
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match="sequence indicators"):
        layer.backward(top, [True, True, True], bottom)
    assert layer.no_force_backward == (2,)


def test_nothing_is_written_if_nothing_is_asked_for():
    layer, bottom, top = make_layer(TEXT, arrays())
    layer.forward(bottom, top)
    layer.backward(top, [False, False, False], bottom)
    assert not bottom[0].has_grad and not bottom[1].has_grad


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 2, 3), (1, 2, 11), (1, 2)],
        [(2, 2, 3), (2, 2, 12), (2, 2)],
        [(1, 2, 3), (1, 1, 12), (1, 2)],
        [(1, 2, 3), (1, 2, 12), (2,)],
        [(2, 3), (1, 2, 12), (1, 2)],
    ],
)
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(LayerError, match=r"layer 'layer' \(LSTMUnit\): expected bottoms c"):
        make_layer(TEXT, [np.zeros(s) for s in shapes])
