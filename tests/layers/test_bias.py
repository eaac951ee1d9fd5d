"""Bias."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 2))


def _text(options=""):
    return f'name: "b" type: "Bias" bias_param {{ {options} }}'


# (options, shape of the bias, the same with ones to broadcast)
CASES = [
    ("", (3,), (3, 1, 1)),
    ("axis: 0", (2,), (2, 1, 1, 1)),
    ("axis: -1", (2,), (2,)),
    ("axis: 0 num_axes: 2", (2, 3), (2, 3, 1, 1)),
    ("axis: 1 num_axes: 2", (3, 4), (3, 4, 1)),
    ("axis: 1 num_axes: -1", (3, 4, 2), (3, 4, 2)),
    ("axis: 0 num_axes: -1", (2, 3, 4, 2), (2, 3, 4, 2)),
    ("num_axes: 0", (), ()),
]


@pytest.mark.parametrize(("options", "shape", "broadcast"), CASES)
@pytest.mark.parametrize("in_place", [False, True])
def test_learned(options, shape, broadcast, in_place):
    b = RNG.normal(size=shape)
    layer, bottom, top = make_layer(_text(options), [X], in_place=in_place)
    assert layer.blobs[0].shape == shape and (layer.blobs[0].data == 0).all()
    layer.blobs[0].set_data(b)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, X + b.reshape(broadcast))
    check_gradients(_text(options), [X], params=[b], in_place=in_place)


@pytest.mark.parametrize(("options", "shape", "broadcast"), CASES)
@pytest.mark.parametrize("in_place", [False, True])
def test_two_bottoms(options, shape, broadcast, in_place):
    b = RNG.normal(size=shape)
    layer, bottom, top = make_layer(_text(options), [X, b], in_place=in_place)
    assert layer.blobs == []
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, X + b.reshape(broadcast))
    check_gradients(_text(options), [X, b], in_place=in_place)


def test_filler():
    layer, _, _ = make_layer(_text("filler { value: 3 }"), [X])
    assert (layer.blobs[0].data == 3).all()


@pytest.mark.parametrize(
    ("options", "bottoms", "message"),
    [
        ("axis: 4", [X], r"an axis in \[-4, 3\]"),
        ("axis: 2 num_axes: 3", [X], "num_axes from -1 to 2"),
        ("num_axes: -2", [X], "num_axes from -1 to 3"),
        ("axis: 1", [X, np.ones(2)], r"coefficients of shape \(3,\)"),
        ("axis: 2", [X, np.ones((4, 2, 1))], r"from axis 2 of bottom shape \(2, 3, 4, 2\)"),
    ],
)
def test_errors(options, bottoms, message):
    with pytest.raises(LayerError, match=r"layer 'b' \(Bias\): expected .*" + message):
        make_layer(_text(options), bottoms)


def test_batch_size_may_change_unless_the_bias_has_it():
    layer, bottom, top = make_layer(_text(), [X])
    bottom[0].reshape(5, 3, 1, 1)
    layer.reshape(bottom, top)
    assert top[0].shape == (5, 3, 1, 1)
    layer, bottom, top = make_layer(_text("axis: 0"), [X])
    bottom[0].reshape(5, 3, 1, 1)
    with pytest.raises(LayerError, match="layer 'b'"):
        layer.reshape(bottom, top)
