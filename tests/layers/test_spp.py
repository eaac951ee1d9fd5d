"""SPP."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(options):
    return f'type: "SPP" spp_param {{ {options} }}'


def distinct(shape):
    return rng.permutation(np.prod(shape)).reshape(shape) * 0.1 + 0.05


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("height", [1, 2, 3])
def test_gradient(pool, height):
    x = distinct((2, 2, 7, 6))
    check_gradients(text(f"pyramid_height: {height} pool: {pool}"), [x])


def test_gradient_of_stochastic():
    # 8 x 4 divides by 1, 2 and 4, so that no level needs padding.
    x = distinct((1, 2, 8, 4))
    check_gradients(text("pyramid_height: 3 pool: STOCHASTIC"), [x], step=1e-7)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_agrees_with_block_reductions(pool):
    x = rng.standard_normal((2, 3, 8, 12)).astype(np.float32)
    layer, bottom, top = make_layer(text(f"pyramid_height: 3 pool: {pool}"), [x], dtype=np.float32)
    layer.forward(bottom, top)
    reduce = np.max if pool == "MAX" else np.mean
    levels = []
    for bins in (1, 2, 4):
        blocks = x.reshape(2, 3, bins, 8 // bins, bins, 12 // bins)
        levels.append(reduce(blocks, axis=(3, 5)).reshape(2, -1))
    np.testing.assert_allclose(top[0].array, np.concatenate(levels, axis=1), rtol=1e-5, atol=1e-6)


def test_a_new_image_size_gives_as_many_features():
    layer, bottom, top = make_layer(text("pyramid_height: 2"), [np.zeros((1, 2, 4, 4))])
    for shape in ((3, 2, 7, 5), (0, 2, 4, 4), (1, 2, 9, 20)):
        bottom[0].reshape(*shape)
        bottom[0].array[...] = distinct(shape)
        layer.reshape(bottom, top)
        layer.forward(bottom, top)
        assert top[0].shape == (shape[0], 2 * 5)
        if shape[0]:
            np.testing.assert_array_equal(top[0].array[:, :2], bottom[0].array.max(axis=(2, 3)))
        top[0].grad[...] = 1
        layer.backward(top, [True], bottom)
        assert bottom[0].grad.sum() == top[0].count


def test_one_level_keeps_four_axes():
    _, _, top = make_layer(text("pyramid_height: 1"), [np.zeros((2, 3, 4, 5))])
    assert top[0].shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    "options, shape, message",
    [
        ("", (1, 1, 4, 4), "pyramid_height from 1 to 16, found 0"),
        ("pyramid_height: 3", (1, 1, 2, 2), r"4 x 4 bins can share out, found \(2, 2\)"),
        ("pyramid_height: 2", (1, 1, 4), r"a bottom \(N, C, H, W\)"),
        ("pyramid_height: 2 pool: STOCHASTIC", (1, 1, 5, 5), "no padding with STOCHASTIC"),
    ],
)
def test_errors(options, shape, message):
    with pytest.raises(LayerError, match=rf"\(SPP\).*{message}"):
        make_layer(text(options), [np.zeros(shape)])
