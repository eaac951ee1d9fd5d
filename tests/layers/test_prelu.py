"""PReLU."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

X = np.random.default_rng(0).uniform(-2, 2, (2, 3, 2, 2))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 2, 2), (1, 2, 1, 2, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_gradient(shape, shared, in_place):
    x = np.random.default_rng(1).uniform(-2, 2, shape)
    text = f'type: "PReLU" prelu_param {{ channel_shared: {str(shared).lower()} }}'
    # A negative slope as well: in place, the sign of the result then tells nothing.
    slopes = np.array(-0.5) if shared else np.linspace(-0.5, 0.5, shape[1])
    check_gradients(text, [x], params=[slopes], kinks=0, in_place=in_place)


def test_values_and_filler():
    layer, bottom, top = make_layer('type: "PReLU"', [X])
    np.testing.assert_array_equal(layer.blobs[0].data, [0.25, 0.25, 0.25])
    layer.blobs[0].data[...] = [0.1, 0.2, -0.3]
    layer.forward(bottom, top)
    slopes = np.array([0.1, 0.2, -0.3]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(top[0].data, np.where(X > 0, X, slopes * X))
    text = 'type: "PReLU" prelu_param { channel_shared: true filler { value: 0.5 } }'
    layer, bottom, top = make_layer(text, [X])
    assert layer.blobs[0].shape == () and layer.blobs[0].data == 0.5
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].data, np.where(X > 0, X, 0.5 * X))


def test_gradient_only_where_it_is_asked_for():
    layer, bottom, top = make_layer('type: "PReLU"', [X])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    bottom[0].grad[...] = 7
    layer.param_propagate_down[0] = False
    layer.backward(top, [False], bottom)
    assert (layer.blobs[0].grad == 0).all() and (bottom[0].grad == 7).all()


def test_errors():
    with pytest.raises(LayerError, match=r"layer 'p' \(PReLU\): expected .* at least 2 axes"):
        make_layer('name: "p" type: "PReLU"', [np.ones(3)])
    layer, bottom, top = make_layer('name: "p" type: "PReLU"', [X])
    bottom[0].reshape(2, 4, 2, 2)
    with pytest.raises(LayerError, match=r"layer 'p' \(PReLU\): expected 3 channels"):
        layer.reshape(bottom, top)
