"""Tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("tiles", [1, 3])
def test_gradient(axis, tiles):
    text = f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}'
    check_gradients(text, [rng.standard_normal((2, 3, 2))])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=4), st.integers(1, 4), st.data())
def test_agrees_with_numpy(shape, tiles, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = rng.standard_normal(shape).astype(np.float32)
    layer, bottom, top = make_layer(
        f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}', [x], dtype=np.float32
    )
    layer.forward(bottom, top)
    repeats = [tiles if k == axis else 1 for k in range(x.ndim)]
    np.testing.assert_array_equal(top[0].array, np.tile(x, repeats))


def test_errors():
    with pytest.raises(LayerError, match=r"\(Tile\).*tile_param.tiles of at least 1, found 0"):
        make_layer('type: "Tile"', [np.zeros((2, 3))])
    with pytest.raises(LayerError, match=r"\(Tile\).*an axis in \[-2, 1\]"):
        make_layer('type: "Tile" tile_param { axis: 2 tiles: 2 }', [np.zeros((2, 3))])
