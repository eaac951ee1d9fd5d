"""Matrix products on the device, and how cuBLAS is called for them."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from demitasse.engine import precision
from demitasse.engine.kernels.cuda import blas
from demitasse.engine.precision import Precision

SHAPES = [(1, 1, 1), (5, 7, 3), (1, 6, 4), (6, 1, 4), (33, 17, 65), (4, 5, 0)]
ORDERS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.fixture(autouse=True)
def exact():
    precision.use(Precision("float32"))
    yield
    precision.use(None)


def matrices(m, n, k, dtype, groups=(), transposed=(False, False)):
    """a, b and out; those `transposed` are views of what is stored so."""
    rng = np.random.default_rng(m + 10 * n + 100 * k)
    a, b = (rng.standard_normal((*groups, *s)).astype(dtype) for s in ((m, k), (k, n)))
    a, b = (
        np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) if t else x
        for x, t in zip((a, b), transposed)
    )
    return a, b, rng.standard_normal((*groups, m, n)).astype(dtype)


def on(place, array):
    """An array on the device in the order in memory that it has here."""
    if array.flags.c_contiguous:
        return place.put(array)
    return place.put(np.ascontiguousarray(array.swapaxes(-1, -2))).swapaxes(-1, -2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transposed", ORDERS)
@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.parametrize("add", [False, True])
def test_products(place, shape, transposed, groups, add):
    a, b, out = matrices(*shape, np.float32, groups, transposed)
    expected = np.matmul(a.astype(float), b) + add * out.astype(float)
    found = place.put(out)
    place.blas.matmul(on(place, a), on(place, b), found, add=add)
    assert np.allclose(place.get(found), expected, rtol=0, atol=1e-5 * (1 + abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(place, dtype):
    a, b, out = matrices(9, 8, 30, dtype)
    found = place.put(out)
    place.blas.matmul(*place.put(a, b), found)
    tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    expected = a.astype(float) @ b.astype(float)
    error = abs(place.get(found) - expected).max()
    assert found.dtype == dtype and error <= tolerance * abs(expected).max()


class Cublas:
    """cuBLAS as CuPy hands it on, column by column on the host; remembers the kinds of sums."""

    HELD = {0: np.float32, 1: np.float64, 2: np.float16}
    SUMS = {68: np.float32, 77: np.float32, 70: np.float64}

    def __init__(self):
        self.kinds = []

    def gemmEx(
        self, handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype,
        ldc, computeType, algo,
    ):  # fmt: skip
        self.gemmStridedBatchedEx(
            handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C,
            Ctype, ldc, 0, 1, computeType, algo,
        )  # fmt: skip

    def gemmStridedBatchedEx(
        self, handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb,
        strideB, beta, C, Ctype, ldc, strideC, batchCount, computeType, algo,
    ):  # fmt: skip
        assert handle == 5 and algo == -1 and lda >= (k if transa else m)
        assert ldb >= (n if transb else k) and ldc >= m
        self.kinds.append(computeType)
        one, factor = (
            np.ctypeslib.as_array((ctypes.c_char * 8).from_address(p)).view(self.SUMS[computeType])
            for p in (alpha, beta)
        )
        for g in range(batchCount):
            a = self._matrix(A, Atype, lda, strideA, g, (k, m) if transa else (m, k))
            b = self._matrix(B, Btype, ldb, strideB, g, (n, k) if transb else (k, n))
            c = self._matrix(C, Ctype, ldc, strideC, g, (m, n))
            product = (a.T if transa else a).astype(float) @ (b.T if transb else b).astype(float)
            c[...] = one[0] * product + (factor[0] * c if factor[0] else 0)

    def _matrix(self, pointer, kind, pitch, stride, g, shape):
        held = np.dtype(self.HELD[kind])
        count = (shape[1] - 1) * pitch + shape[0]
        begin = pointer + g * stride * held.itemsize
        memory = (ctypes.c_char * (count * held.itemsize)).from_address(begin)
        flat = np.frombuffer(memory, held)
        return np.lib.stride_tricks.as_strided(flat, shape, (held.itemsize, pitch * held.itemsize))


@pytest.fixture
def cublas(place):
    """The stand-in, under a device that has it."""
    if hasattr(place.device.xp, "cuda"):
        pytest.skip("the stand-in computes on the host")
    library = Cublas()
    place.device.xp.cuda = SimpleNamespace(
        cublas=library, device=SimpleNamespace(get_cublas_handle=lambda: 5)
    )
    return library


@pytest.mark.parametrize("shape", [s for s in SHAPES if all(s)])
@pytest.mark.parametrize("transposed", ORDERS)
@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.parametrize("add", [False, True])
def test_calls_of_cublas(place, cublas, shape, transposed, groups, add):
    a, b, out = matrices(*shape, np.float32, groups, transposed)
    expected = np.matmul(a.astype(float), b) + add * out.astype(float)
    found = place.put(out)
    place.blas.matmul(on(place, a), on(place, b), found, add=add)
    assert np.allclose(place.get(found), expected, rtol=0, atol=1e-5 * (1 + abs(expected).max()))
    assert cublas.kinds == [68]


def test_rows_with_a_pitch(place, cublas):
    a, b, out = matrices(6, 5, 8, np.float32)
    wide, b, out = place.put(np.repeat(a, 2, axis=1)), *place.put(b, out)
    part = wide[:, 4:12]  # rows of 8 in 16
    place.blas.matmul(part, b, out)
    expected = place.get(place.device.xp.ascontiguousarray(part)) @ place.get(b)
    assert np.allclose(place.get(out), expected, atol=1e-5)


def test_kinds_of_sums(place, cublas):
    for math in precision.MATHS:
        precision.use(Precision(math))
        for dtype in ("float16", "float32", "float64"):
            a, b, out = place.put(*matrices(4, 4, 4, dtype))
            place.blas.matmul(a, b, out)
    exact, rounded = [68, 68, 70], [68, 77, 70]
    assert cublas.kinds == exact + 3 * rounded


def test_without_numbers_to_sum(place):
    a, b, out = (place.put(np.ones(s, np.float32)) for s in ((3, 0), (0, 2), (3, 2)))
    blas.matmul(a, b, out, add=True)
    assert (place.get(out) == 1).all()
    blas.matmul(a, b, out)
    assert (place.get(out) == 0).all()


@pytest.mark.gpu
def test_the_same_twice(place):
    a, b, out = place.put(*matrices(300, 4096, 2500, np.float32))
    for math in ("float32", "tf32"):
        precision.use(Precision(math))
        place.blas.matmul(a, b, out)
        first = place.get(out).copy()
        place.blas.matmul(a, b, out)
        assert np.array_equal(place.get(out), first)
