"""Crop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(options):
    return f'type: "Crop" crop_param {{ {options} }}'


@pytest.mark.parametrize(
    "options, shape, reference",
    [
        ("", (1, 2, 4, 5), (3, 1, 2, 3)),
        ("offset: 1", (1, 2, 4, 4), (1, 1, 2, 3)),
        ("axis: 1 offset: 1 offset: 0 offset: 2", (2, 3, 2, 5), (9, 2, 2, 2)),
        ("axis: -1 offset: 1", (2, 3, 4), (2, 3, 2)),
        ("axis: 0", (3, 2), (2, 1)),
        ("axis: 1", (3, 4), (2, 3, 9)),  # only the axes that bottom 0 has count
    ],
)
def test_gradient(options, shape, reference):
    check_gradients(
        text(options), [rng.standard_normal(shape), np.zeros(reference)], check_bottoms=[0]
    )


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_agrees_with_slicing(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    offset = [data.draw(st.integers(0, n)) for n in shape[axis:]]
    cropped = [data.draw(st.integers(0, n - o)) for n, o in zip(shape[axis:], offset)]
    reference = (*(7 for _ in shape[:axis]), *cropped)
    options = f"axis: {axis} " + " ".join(f"offset: {o}" for o in offset)
    x = rng.standard_normal(shape)
    layer, bottom, top = make_layer(text(options), [x, np.zeros(reference)])
    layer.forward(bottom, top)
    part = tuple(slice(o, o + n) for o, n in zip(offset, cropped))
    np.testing.assert_array_equal(top[0].array, x[(slice(None),) * axis + part])


def test_no_gradient_for_the_reference():
    layer, bottom, top = make_layer(text("axis: 0"), [np.ones((3, 2)), np.ones((2, 2))])
    bottom[1].grad[...] = np.nan
    layer.backward(top, [False, True], bottom)
    assert (bottom[1].grad == 0).all()


@pytest.mark.parametrize(
    "options, reference, message",
    [
        ("offset: 2", (1, 2, 3, 3), "offset 2 and size 3 within the 4 of axis 2"),
        ("offset: 1 offset: 1 offset: 0", (1, 2, 3, 3), "each of the 2 axes cropped, found 3"),
        ("", (3, 3), "bottom 1 with 4 axes"),
        ("axis: 4", (1, 2, 3, 3), r"an axis in \[-4, 3\]"),
    ],
)
def test_errors(options, reference, message):
    with pytest.raises(LayerError, match=rf"\(Crop\).*{message}"):
        make_layer(text(options), [np.zeros((1, 2, 4, 4)), np.zeros(reference)])
