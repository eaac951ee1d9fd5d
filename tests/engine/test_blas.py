"""Matrix products on Numba's threads against NumPy's."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.kernels.cpu import blas

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def operand(rng, shape, transposed, pitched, dtype):
    """A random array of `shape`, stored transposed or with a pitch longer than its rows."""
    *groups, rows, columns = shape
    stored = (*groups, columns, rows) if transposed else shape
    array = rng.normal(size=(*stored[:-1], stored[-1] + 3 * pitched)).astype(dtype)
    array = array[..., : stored[-1]]
    return array.swapaxes(-1, -2) if transposed else array


def check(groups, m, k, n, stored, dtype):
    rng = np.random.default_rng(m + 10 * n + 100 * k)
    ta, tb, pa, pb, pc = stored
    a = operand(rng, (*groups, m, k), ta, pa, dtype)
    b = operand(rng, (*groups, k, n), tb, pb, dtype)
    out = operand(rng, (*groups, m, n), False, pc, dtype)
    before = out.copy()
    product = np.matmul(a.astype("f8"), b.astype("f8"))
    scale = TOLERANCE[dtype] * max(1, k)
    blas.matmul(a, b, out, add=True)
    np.testing.assert_allclose(out, before + product, rtol=0, atol=scale)
    blas.matmul(a, b, out)
    np.testing.assert_allclose(out, product, rtol=0, atol=scale)


STORED = st.tuples(*[st.booleans()] * 5)
DTYPES = st.sampled_from(["float32", "float64"])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([(), (1,), (3,)]), *[st.integers(0, 8)] * 3, STORED, DTYPES)
def test_small_products(groups, m, k, n, stored, dtype):
    check(groups, m, k, n, stored, dtype)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([(), (2,), (3,)]), *[st.integers(60, 200)] * 3, STORED, DTYPES)
def test_products_in_parts(groups, m, k, n, stored, dtype):
    check(groups, m, k, n, stored, dtype)


@pytest.mark.parametrize("m, k, n", [(1, 700, 900), (900, 700, 1), (2, 5000, 70), (70, 5000, 2)])
@pytest.mark.parametrize("pitched", [False, True])
def test_thin_products(m, k, n, pitched):
    check((), m, k, n, (False, True, False, False, pitched), "float32")
    check((), m, k, n, (True, False, pitched, False, False), "float32")


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 20), st.integers(1, 300), DTYPES, st.booleans())
def test_a_vector_with_rows_of_any_length(count, length, dtype, add):
    rng = np.random.default_rng(count + 100 * length)
    rows, vector = (rng.normal(size=shape).astype(dtype) for shape in ((count, length), length))
    out = np.ones(count, dtype)
    blas._dots(rows, vector, out, add)
    expected = rows.astype("f8") @ vector.astype("f8") + add
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE[dtype] * length)
    # A row's result does not depend on the rows beside it.
    last = np.ones(1, dtype)
    blas._dots(rows[-1:].copy(), vector, last, add)
    assert last[0] == out[-1]


def test_a_matrix_in_no_order_of_blas():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(140, 300))[:, ::3], rng.normal(size=(100, 90))
    out = np.empty((140, 90))
    blas.matmul(a, b, out)
    np.testing.assert_allclose(out, a @ b, atol=1e-12)


def test_equal_results_again_and_again():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(300, 300)).astype("f4") for _ in range(2))
    first, again = np.empty((300, 300), "f4"), np.empty((300, 300), "f4")
    blas.matmul(a, b, first)
    for _ in range(10):
        blas.matmul(a, b, again)
        np.testing.assert_array_equal(first, again)


def test_numpy_keeps_its_threads():
    code = """
import numpy as np, threadpoolctl
def threads():
    return {i["filepath"]: i["num_threads"] for i in threadpoolctl.threadpool_info()
            if i["user_api"] == "blas" and "numpy" in i["filepath"]}
before = threads()
from demitasse.engine.kernels.cpu import blas
a = np.ones((200, 200), "f4")
blas.matmul(a, a, np.empty_like(a))
after = threads()
assert before and before == {k: after[k] for k in before}, (before, after)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
