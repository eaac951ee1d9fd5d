"""InnerProduct."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 2, 2))


def _text(options):
    filler = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    return f'name: "ip" type: "InnerProduct" inner_product_param {{ {filler} {options} }}'


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize("transpose", ["true", "false"])
@pytest.mark.parametrize(
    ("axis", "rows", "inputs"), [(0, (), 24), (1, (2,), 12), (2, (2, 3), 4), (-1, (2, 3, 2), 2)]
)
def test_values_and_gradient(axis, rows, inputs, transpose, bias):
    text = _text(f"num_output: 5 axis: {axis} transpose: {transpose} bias_term: {bias}")
    layer, bottom, top = make_layer(text, [X])
    w = layer.blobs[0].data
    assert w.shape == ((inputs, 5) if transpose == "true" else (5, inputs))
    assert len(layer.blobs) == (2 if bias == "true" else 1)
    layer.forward(bottom, top)
    assert top[0].shape == (*rows, 5)
    expected = X.reshape(*rows, inputs) @ (w if transpose == "true" else w.T)
    if bias == "true":
        expected += layer.blobs[1].data
    np.testing.assert_allclose(top[0].array, expected, atol=1e-12)
    check_gradients(text, [X])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_float32_sizes(rows, inputs, outputs, transpose):
    x = np.random.default_rng(rows).normal(size=(rows, inputs)).astype("float32")
    text = _text(f"num_output: {outputs} transpose: {str(transpose).lower()}")
    layer, bottom, top = make_layer(text, [x], dtype=np.float32)
    layer.forward(bottom, top)
    dy = np.random.default_rng(1).normal(size=(rows, outputs)).astype("float32")
    top[0].grad[...] = dy
    for blob in layer.blobs:
        blob.grad[...] = 1
    layer.backward(top, [True], bottom)
    dw = 1 + (x.T @ dy if transpose else dy.T @ x)
    w = layer.blobs[0].data if transpose else layer.blobs[0].data.T
    np.testing.assert_allclose(layer.blobs[0].grad, dw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.blobs[1].grad, 1 + dy.sum(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bottom[0].grad, dy @ w.T, rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for():
    layer, bottom, top = make_layer(_text("num_output: 2"), [X])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    bottom[0].grad[...] = 7
    layer.param_propagate_down[:] = [False, True]
    layer.backward(top, [False], bottom)
    assert (bottom[0].grad == 7).all()
    assert (layer.blobs[0].grad == 0).all() and (layer.blobs[1].grad == 2).all()


def test_batch_may_change_but_inputs_may_not():
    layer, bottom, top = make_layer(_text("num_output: 2"), [X])
    bottom[0].reshape(7, 12)
    layer.reshape(bottom, top)
    assert top[0].shape == (7, 2)
    bottom[0].reshape(2, 3, 3, 2)
    with pytest.raises(LayerError, match=r"layer 'ip' \(InnerProduct\): expected 12 inputs.*18"):
        layer.reshape(bottom, top)


def test_bad_parameters():
    with pytest.raises(LayerError, match=r"layer 'ip' \(InnerProduct\): .*num_output"):
        make_layer(_text(""), [X])
    with pytest.raises(LayerError, match=r"layer 'ip' \(InnerProduct\): .*an axis in"):
        make_layer(_text("num_output: 2 axis: 5"), [X])


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize("rows", [1, 3])
def test_relu_in_the_same_pass(rows, bias):
    x = RNG.normal(size=(rows, 6))
    layer, bottom, top = make_layer(_text(f"num_output: 5 bias_term: {bias}"), [x])
    layer.forward(bottom, top)
    expected = np.maximum(top[0].array, 0)
    assert 0 < (expected == 0).sum() < expected.size
    layer.forward_relu(bottom, top)
    np.testing.assert_array_equal(top[0].array, expected)
