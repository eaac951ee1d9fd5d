"""Accuracy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer


def run(scores, labels, param="", num_tops=2):
    layer, bottom, top = make_layer(
        f'type: "Accuracy" accuracy_param {{ {param} }}', [scores, labels], dtype=np.float32,
        num_tops=num_tops,
    )  # fmt: skip
    layer.forward(bottom, top)
    return [t.array for t in top]


def oracle(scores, labels, axis, top_k, ignored):
    """Overall and by class, by loops."""
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    hits, counts = np.zeros(scores.shape[axis]), np.zeros(scores.shape[axis])
    for row, label in zip(rows, labels.ravel(), strict=True):
        if label == ignored:
            continue
        others = np.delete(row, int(label))
        hits[int(label)] += (others >= row[int(label)]).sum() < top_k
        counts[int(label)] += 1
    return hits.sum() / max(1, counts.sum()), hits / np.maximum(1, counts)


# Few different values, so that there are ties.
scores_with_ties = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
)  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(scores_with_ties, st.data())
def test_agrees_with_loops(scores, data):
    axis = data.draw(st.integers(-scores.ndim, scores.ndim - 1)) % scores.ndim
    classes = scores.shape[axis]
    top_k = data.draw(st.integers(1, classes))
    ignored = data.draw(st.sampled_from([None, 0, 255]))
    allowed = [*range(classes)] + ([ignored] if ignored is not None else [])
    shape = scores.shape[:axis] + scores.shape[axis + 1 :]
    labels = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(allowed)))
    param = f"axis: {axis} top_k: {top_k} "
    param += f"ignore_label: {ignored}" if ignored is not None else ""
    total, by_class = run(scores, labels, param)
    expected_total, expected_by_class = oracle(scores, labels, axis, top_k, ignored)
    assert total.shape == () and total == pytest.approx(expected_total, rel=1e-6)
    np.testing.assert_allclose(by_class, expected_by_class, rtol=1e-6)


def test_ties_count_against_the_label():
    (accuracy,) = run([[1, 1, 0], [1, 2, 0]], [0, 1], num_tops=1)
    assert accuracy == 0.5


def test_nan_is_wrong():
    (accuracy,) = run([[np.nan, 0], [0, np.nan], [2, 1]], [0, 0, 0], num_tops=1)
    assert accuracy == pytest.approx(1 / 3)


def test_nothing_to_count():
    total, by_class = run(np.zeros((2, 3)), [-1, -1], "ignore_label: -1")
    assert total == 0 and not by_class.any()
    total, by_class = run(np.zeros((0, 3)), np.zeros(0))
    assert total == 0 and by_class.shape == (3,)


def test_errors():
    where = r"'layer' \(Accuracy\).*"
    with pytest.raises(LayerError, match=where + r"top_k from 1 to the number of classes, 3.*4"):
        run(np.zeros((2, 3)), np.zeros(2), "top_k: 4")
    with pytest.raises(LayerError, match=where + "found 0"):
        run(np.zeros((2, 3)), np.zeros(2), "top_k: 0")
    with pytest.raises(LayerError, match=where + r"8 labels.*found 2, of shape \(2,\)"):
        run(np.zeros((2, 3, 2, 2)), np.zeros(2))
    with pytest.raises(LayerError, match=where + r"label 3 at index \(1,\)"):
        run(np.zeros((2, 3)), [0, 3])
    layer, bottom, top = make_layer('type: "Accuracy"', [np.zeros((2, 3)), np.zeros(2)])
    for flags, what in (([True, False], "differentiated"), ([False, True], "the labels")):
        with pytest.raises(LayerError, match=where + what):
            layer.backward(top, flags, bottom)
    layer.backward(top, [False, False], bottom)
