"""Embed."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

INDEX = np.array([[0, 3, 3], [1, 0, 3]])  # 2 is missing, 3 repeats


def _text(options=""):
    filler = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    options = f"num_output: 2 input_dim: 4 {filler} {options}"
    return f'name: "e" type: "Embed" embed_param {{ {options} }}'


@pytest.mark.parametrize("options", ["", "bias_term: false"])
def test_values_and_gradient(options):
    layer, bottom, top = make_layer(_text(options), [INDEX])
    layer.forward(bottom, top)
    expected = layer.blobs[0].data[INDEX]
    if not options:
        expected = expected + layer.blobs[1].data
    assert top[0].shape == (2, 3, 2)
    np.testing.assert_array_equal(top[0].array, expected)
    check_gradients(_text(options), [INDEX], check_bottoms=[])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1, 2)])
def test_shapes(shape):
    layer, bottom, top = make_layer(_text(), [np.zeros(shape)])
    layer.forward(bottom, top)
    layer.backward(top, [False], bottom)
    assert top[0].shape == (*shape, 2)


@pytest.mark.parametrize("index", [[0, 4], [-1, 0], [np.nan, 0]])
def test_index_out_of_range(index):
    layer, bottom, top = make_layer(_text(), [index])
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(LayerError, match=r"layer 'e' \(Embed\): expected indices in \[0, 3\]"),
    ):
        layer.forward(bottom, top)


def test_errors():
    layer, bottom, top = make_layer(_text(), [INDEX])
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match=r"layer 'e' \(Embed\): .*propagate_down: false"):
        layer.backward(top, [True], bottom)
    with pytest.raises(LayerError, match=r"layer 'e' \(Embed\): .*found 3 and 0"):
        make_layer('name: "e" type: "Embed" embed_param { num_output: 3 }', [INDEX])
