"""ArgMax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer
from demitasse.layers.argmax import top_indices


def run(param, x):
    layer, bottom, top = make_layer(
        f'type: "ArgMax" argmax_param {{ {param} }}', [x], dtype=np.float32
    )
    layer.forward(bottom, top)
    return top[0].array


def by_sorting(row, count):
    """Caffe's order: pairs of value and index, the largest first."""
    return [k for _, k in sorted(((v, k) for k, v in enumerate(row)), reverse=True)[:count]]


# Few different values, so that there are ties.
ties = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(ties, st.data())
def test_order_and_ties(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    count = data.draw(st.integers(1, x.shape[axis]))
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    found = np.moveaxis(top_indices(np, x, count, axis), axis, -1).reshape(-1, count)
    np.testing.assert_array_equal(found, [by_sorting(row, count) for row in rows])


@settings(deadline=None, max_examples=30)
@given(ties, st.booleans(), st.data())
def test_every_item_flattened(x, out_max_val, data):
    columns = x[0].size
    count = data.draw(st.integers(1, columns))
    y = run(f"top_k: {count} out_max_val: {str(out_max_val).lower()}", x)
    assert y.shape == (len(x), 1 + out_max_val, count) + (1,) * (x.ndim - 3)
    y = y.reshape(len(x), 1 + out_max_val, count)
    for row, out in zip(x.reshape(len(x), columns), y):
        expected = by_sorting(row, count)
        np.testing.assert_array_equal(out[0], expected)
        if out_max_val:
            np.testing.assert_array_equal(out[1], row[expected])


def test_with_an_axis():
    x = np.array([[1, 5, 5, 2], [4, 0, 3, 9]], np.float32)
    np.testing.assert_array_equal(run("axis: 1 top_k: 2", x), [[2, 1], [3, 0]])
    np.testing.assert_array_equal(run("axis: -1 top_k: 2 out_max_val: true", x), [[5, 5], [9, 4]])
    np.testing.assert_array_equal(run("axis: 0", x), [[1, 0, 0, 1]])


def test_no_items():
    assert run("", np.zeros((0, 3, 2))).shape == (0, 1, 1)


def test_errors():
    with pytest.raises(LayerError, match=r"\(ArgMax\).*top_k from 1 to 6.*found 7"):
        run("top_k: 7", np.zeros((2, 3, 2)))
    with pytest.raises(LayerError, match=r"top_k from 1 to 3.*found 4"):
        run("top_k: 4 axis: 1", np.zeros((2, 3, 2)))
    with pytest.raises(LayerError, match="found 0"):
        run("top_k: 0", np.zeros((2, 3)))
    with pytest.raises(LayerError, match=r"an axis in \[-2, 1\]"):
        run("axis: 2", np.zeros((2, 3)))
    layer, bottom, top = make_layer('type: "ArgMax"', [np.zeros((2, 3))])
    with pytest.raises(LayerError, match="cannot be differentiated"):
        layer.backward(top, [True], bottom)
    layer.backward(top, [False], bottom)
