import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.blob import MAX_COUNT, Blob, check_shape
from demitasse.engine.errors import NetError

SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@settings(deadline=None)
@given(st.lists(SHAPES, min_size=1, max_size=6))
def test_any_sequence_of_shapes(shapes):
    blob = Blob()
    for k, shape in enumerate(shapes):
        blob.reshape(*shape)
        assert (blob.shape, blob.count, blob.num_axes) == (shape, math.prod(shape), len(shape))
        assert blob.array.shape == blob.grad.shape == shape
        blob.array[...] = k
        blob.grad[...] = -k
        assert (blob.data == k).all() and (blob.diff == -k).all()


@settings(deadline=None)
@given(SHAPES, SHAPES)
def test_values_are_kept_while_the_memory_suffices(first, second):
    blob = Blob(first)
    values = np.arange(blob.count, dtype=np.float32)
    blob.set_data(values)
    blob.reshape(*second)
    expected = values[: blob.count] if blob.count <= values.size else np.zeros(blob.count)
    assert (blob.array.ravel() == expected).all()
    blob.reshape(*first)
    if blob.count >= math.prod(second):
        assert (blob.array.ravel()[: math.prod(second)] == expected).all()


@pytest.mark.parametrize("arguments", [(2, 3), ((2, 3),), ([2, 3],), (np.array([2, 3]),), (2.0, 3)])
def test_ways_to_give_a_shape(arguments):
    blob = Blob()
    blob.reshape(*arguments)
    assert blob.shape == (2, 3) and all(type(d) is int for d in blob.shape)
    blob.reshape(np.int64(4))
    assert blob.shape == (4,)
    blob.reshape()
    assert blob.shape == () and blob.count == 1


@pytest.mark.parametrize(
    "shape, what",
    [
        ((2, -1), "negative"),
        ((1 << 16, 1 << 15), str(MAX_COUNT)),
        ((10**12,), str(MAX_COUNT)),
        ((2.5,), "integers"),
        ((float("inf"),), "integers"),
        ((float("nan"),), "integers"),
        ((None,), "integers"),
        (("a",), "integers"),
    ],
)
def test_shapes_that_are_refused(shape, what):
    blob = Blob((2, 3))
    with pytest.raises(NetError, match=f"^blob: .*{what}"):
        blob.reshape(*shape)
    assert blob.shape == (2, 3) and blob.array.shape == (2, 3)


def test_a_zero_dimension_does_not_hide_others():
    assert check_shape((0, 10**6, 7)) == (0, 10**6, 7)
    with pytest.raises(NetError, match="at most"):
        check_shape((0, 10**12))
    with pytest.raises(NetError, match="negative"):
        check_shape((0, -1))


def test_memory_is_taken_at_first_access():
    blob = Blob((MAX_COUNT,))  # 8 GB, were it taken
    assert not blob.has_data and not blob.has_grad
    blob.reshape(3)
    assert blob.data.shape == (3,) and not blob.has_grad
    assert (blob.diff == 0).all() and blob.has_grad


def test_data_and_array_are_the_same_memory_on_the_cpu():
    blob = Blob((2,))
    kept = blob.data
    blob.array[...] = 5
    assert (kept == 5).all() and np.shares_memory(blob.diff, blob.grad)
    kept[0] = 1
    assert blob.array[0] == 1


def test_a_kept_view_stays_the_blobs_memory_after_reshapes():
    blob = Blob((2, 3))
    kept = blob.data
    blob.reshape(3, 2)
    blob.reshape(2, 3)
    kept[...] = 4
    assert (blob.array == 4).all()


def test_dtype():
    assert Blob((2,)).array.dtype == np.float32
    assert Blob((2,), np.float64).grad.dtype == np.float64


def test_set_data_takes_as_many_values_of_any_shape():
    blob = Blob((2, 3))
    blob.set_data(range(6))
    assert blob.array[1, 2] == 5
    blob.set_data(np.zeros((3, 2)))
    assert not blob.array.any()
    with pytest.raises(ValueError):
        blob.set_data([1, 2])


# ---- lazy fillers


def test_a_filler_runs_at_first_access_and_once():
    runs = []
    blob = Blob((2, 2))
    blob.fill_data(lambda flat: (runs.append(flat.size), flat.fill(3)))
    assert not runs
    assert (blob.data == 3).all() and (blob.array == 3).all()
    assert runs == [4]


def test_a_filler_is_dropped_if_values_come_first():
    blob = Blob((2,))
    blob.fill_data(lambda flat: pytest.fail("the filler ran"))
    blob.set_data([1, 2])
    assert blob.array.tolist() == [1, 2]


def test_a_gradient_filler_runs_again_when_the_memory_grows():
    blob = Blob((1,))
    blob.fill_diff(lambda flat: flat.fill(0.5))
    assert blob.grad.tolist() == [0.5]
    blob.reshape(3)
    assert blob.grad.tolist() == [0.5] * 3


# ---- sharing


def test_sharing_is_in_both_directions_and_follows_growth():
    owner, other = Blob((2, 3)), Blob((3, 2))
    other.array[...] = 1
    other.share_data(owner)
    assert not other.array.any() and other.array.shape == (3, 2)
    other.array[...] = 2
    assert (owner.array == 2).all()
    assert not np.shares_memory(other.grad, owner.grad)
    other.share_diff(owner)
    assert np.shares_memory(other.grad, owner.grad)
    owner.reshape(10)
    owner.array[...] = 3
    other.reshape(10)
    assert (other.array == 3).all()


def test_sharing_before_anything_is_allocated():
    owner, other = Blob((4,)), Blob((4,))
    owner.fill_data(lambda flat: flat.fill(7))
    other.fill_data(lambda flat: pytest.fail("the filler of one that shares ran"))
    other.share_data(owner)
    assert (other.array == 7).all() and np.shares_memory(other.array, owner.array)


def test_sharing_needs_equal_counts():
    with pytest.raises(NetError, match=r"\(2, 3\).*\(2, 2\)"):
        Blob((2, 3)).share_data(Blob((2, 2)))
    with pytest.raises(NetError, match="sharing blobs"):
        Blob((2, 3)).share_diff(Blob((2, 2)))


# ---- shape helpers


def test_legacy_names_count_missing_axes_as_one():
    blob = Blob((2, 3))
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 1, 1)
    blob.reshape(2, 3, 4, 5)
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 4, 5)
    blob.reshape(1, 2, 3, 4, 5)
    with pytest.raises(NetError, match=r"at most 4 axes.*blob\.shape"):
        _ = blob.width


def test_counts_of_some_axes():
    blob = Blob((2, 3, 4))
    assert [blob.count_from(1), blob.count_from(3), blob.count_from(0, 2)] == [12, 1, 6]


def test_reshape_like_and_repr():
    blob = Blob()
    blob.reshape_like(Blob((4, 5)))
    assert blob.shape == (4, 5) and "(4, 5)" in repr(blob)
