"""SoftmaxWithLoss."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)
IGNORED = 2


def text(rest="", axis=1):
    return f'type: "SoftmaxWithLoss" softmax_param {{ axis: {axis} }} loss_param {{ {rest} }}'


def oracle(scores, labels, axis, mode="VALID", ignored=None):
    """The loss by loops over the predictions."""
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    losses = [
        -special.log_softmax(row)[int(label)]
        for row, label in zip(rows, labels.reshape(-1), strict=True)
        if int(label) != ignored
    ]
    counts = {
        "VALID": len(losses), "FULL": len(rows), "BATCH_SIZE": math.prod(scores.shape[:axis]),
        "NONE": 1,
    }  # fmt: skip
    return sum(losses) / max(1, counts[mode])


@pytest.mark.parametrize("mode", ["VALID", "FULL", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("shape, axis", [((3, 4), 1), ((2, 3, 2, 2), 1), ((2, 2, 3), -1)])
def test_values_and_gradients(mode, ignore, shape, axis):
    scores = rng.standard_normal(shape)
    classes = shape[axis]
    labels = rng.integers(0, classes, np.delete(shape, axis)).astype(float)
    labels.flat[0] = IGNORED
    rest = f"normalization: {mode} " + (f"ignore_label: {IGNORED}" if ignore else "")
    layer, bottom, top = make_layer(text(rest, axis), [scores, labels])
    layer.forward(bottom, top)
    expected = oracle(scores, labels, axis % len(shape), mode, IGNORED if ignore else None)
    assert top[0].array == pytest.approx(expected, rel=1e-12)
    check_gradients(text(rest, axis), [scores, labels], check_bottoms=[0])


@pytest.mark.parametrize("value, mode", [("true", "VALID"), ("false", "BATCH_SIZE")])
def test_legacy_normalize(value, mode):
    scores, labels = rng.standard_normal((2, 3, 5)), rng.integers(0, 3, (2, 5)).astype(float)
    layer, bottom, top = make_layer(text(f"normalize: {value}"), [scores, labels])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(scores, labels, 1, mode), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 3), max_size=2),
    st.integers(1, 4),
    st.lists(st.integers(0, 3), max_size=2),
)
def test_odd_shapes(before, classes, after):
    shape = [2, *before, classes, *after]
    scores = rng.standard_normal(shape).astype(np.float32)
    labels = rng.integers(0, classes, (2, *before, *after)).astype(np.float32)
    axis = 1 + len(before)
    layer, bottom, top = make_layer(text(axis=axis), [scores, labels], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(scores, labels, axis), rel=1e-4, abs=1e-6)
    assert layer.prob.dtype == top[0].array.dtype == np.float32


def test_labels_may_keep_an_axis_for_the_class():
    scores, labels = rng.standard_normal((2, 3, 2, 2)), rng.integers(0, 3, (2, 1, 2, 2))
    layer, bottom, top = make_layer(text(), [scores, labels])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(scores, labels[:, 0], 1), rel=1e-12)


def test_second_top_is_the_probabilities():
    scores = rng.standard_normal((3, 4))
    layer, bottom, top = make_layer(text(), [scores, np.zeros(3)], num_tops=2)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[1].array, special.softmax(scores, axis=1), rtol=1e-12)
    check_gradients(text(), [scores, np.zeros(3)], check_bottoms=[0], check_tops=[0], num_tops=2)


def test_all_ignored():
    layer, bottom, top = make_layer(text("ignore_label: -1"), [np.ones((2, 3)), [-1, -1]])
    layer.forward(bottom, top)
    assert top[0].array == 0
    top[0].grad[...] = 1
    bottom[0].grad[...] = np.nan
    layer.backward(top, [True, False], bottom)
    assert (bottom[0].grad == 0).all()


def test_an_ignored_label_may_be_outside_the_classes():
    scores = rng.standard_normal((3, 4))
    check_gradients(text("ignore_label: 255"), [scores, [0, 255, 3]], check_bottoms=[0])


def test_a_probability_of_zero_has_a_finite_loss():
    layer, bottom, top = make_layer(text(), [np.array([[200, 0]]), np.array([1])], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(-math.log(np.finfo(np.float32).tiny), rel=1e-6)


def test_nan_scores_give_a_nan_loss():
    layer, bottom, top = make_layer(text(), [np.array([[np.nan, 0]]), np.array([1])])
    layer.forward(bottom, top)
    assert np.isnan(top[0].array)


def test_shape_errors():
    with pytest.raises(
        LayerError, match=r"'layer' \(SoftmaxWithLoss\).*8 labels.*\(2, 3, 2, 2\).*found 6.*N\*H\*W"
    ):
        make_layer(text(), [np.zeros((2, 3, 2, 2)), np.zeros((2, 3))])
    with pytest.raises(LayerError, match=r"an axis in \[-2, 1\]"):
        make_layer(text(axis=2), [np.zeros((2, 3)), np.zeros(2)])
