"""Matrix products on Numba's threads.

NumPy's BLAS brings threads of its own, which wait actively. Beside Numba's there are then twice as
many as cores, and a product of a small net can take many times as long as on one thread. So the
parts of a product are dealt to Numba's threads here, and each part is one call of the BLAS
that SciPy publishes for Cython, a library of its own in SciPy's wheels, which is limited to one
thread for good.
"""

import functools
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic

from . import denormals, parallel_njit, sums
from .denormals import flush_denormals, restore_denormals
from .simd_dots import SUMS, four_dots, one_dot

SERIAL_BELOW = 1 << 18  # multiplications; NumPy's BLAS, too, does fewer on one thread
_ROUND = 16  # parts begin at multiples of this, where the inner loops of BLAS do


@functools.cache
def _gemm_address(dtype):
    """Where SciPy's product of matrices begins; it differs from process to process."""
    import scipy.linalg.cython_blas  # noqa: F401 (loads the library that is to be limited)
    import threadpoolctl

    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    # (NumPy's wheels, too, call theirs libscipy_openblas; only the folders differ.)
    folders = {"scipy", "scipy.libs"}
    own = [lib for lib in libraries if folders.intersection(Path(lib.filepath).parts)]
    # Where NumPy and SciPy share one BLAS, its limit holds for both.
    for library in own or libraries:
        library.set_num_threads(1)
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype.name]
    return get_cython_function_address("scipy.linalg.cython_blas", name)


@intrinsic
def _gemm(typing, function, like, size, a, b, c, add):
    """C = A B, or C += A B if `add`, by the BLAS function at an address.

    Args:
        like: an array of the matrices' dtype.
        size: (M, N, K).
        a, b: (address, row pitch in elements, whether it is stored transposed); c: (address, row
            pitch). All int64, and stored row by row.
    """
    dtype = like.dtype

    def generate(context, builder, signature, arguments):
        number = context.get_value_type(dtype)
        small = ir.IntType(32)

        def stored(value):
            place = cgutils.alloca_once(builder, value.type)
            builder.store(value, place)
            return place

        def part(i, k):
            return builder.extract_value(arguments[i], k)

        def integer(value):
            return stored(builder.trunc(value, small))

        def address(i):
            return builder.inttoptr(part(i, 0), number.as_pointer())

        def letter(i):
            n, t = (ir.Constant(ir.IntType(8), ord(c)) for c in "NT")
            return stored(builder.select(builder.trunc(part(i, 2), ir.IntType(1)), t, n))

        one, zero = ir.Constant(number, 1), ir.Constant(number, 0)
        m, n, k = (integer(part(2, i)) for i in range(3))
        beta = stored(builder.select(builder.trunc(arguments[6], ir.IntType(1)), one, zero))
        # BLAS stores by columns: C^T = B^T A^T.
        values = [
            letter(4), letter(3), n, m, k, stored(one), address(4), integer(part(4, 1)),
            address(3), integer(part(3, 1)), beta, address(5), integer(part(5, 1)),
        ]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        before = denormals.begin(builder)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), values)
        denormals.end(builder, before)
        return context.get_dummy_value()

    three, two = types.UniTuple(types.int64, 3), types.UniTuple(types.int64, 2)
    return types.void(types.int64, like, three, three, three, two, types.int64), generate


@parallel_njit
def _products(function, like, groups, parts, size, a, b, c, steps, add):
    # Part p of `parts` is a range of C's rows if there are more rows than columns, else of columns.
    m, n, k = size
    width = like.itemsize
    by_rows = m >= n
    chunk = -(-max(m, n) // parts)
    chunk = -(-chunk // _ROUND) * _ROUND
    for item in numba.prange(groups * parts):
        g, low = item // parts, item % parts * chunk
        count = min(chunk, max(m, n) - low)
        if count > 0:
            a_, b_, c_ = a[0] + g * steps[0], b[0] + g * steps[1], c[0] + g * steps[2]
            if by_rows:
                a_ += low * width * (1 if a[2] else a[1])
                c_ += low * width * c[1]
                part = (count, n, k)
            else:
                b_ += low * width * (b[1] if b[2] else 1)
                c_ += low * width
                part = (m, count, k)
            _gemm(function, like, part, (a_, a[1], a[2]), (b_, b[1], b[2]), (c_, c[1]), add)


def matmul(a, b, out, add=False):
    """out = a @ b, or out += a @ b if `add`, for one product or a group of them.

    Args:
        a, b, out: (M, K), (K, N), (M, N), or with one more axis in front; float32 or float64, all
            of one dtype. The rows of `out` are contiguous; a and b may be transposed views.
    """
    *groups, m, n = out.shape
    k = a.shape[-1]
    count = groups[0] if groups else 1
    if not groups and _by_dots(a, b, out, add):
        return
    if count * m * n * k < SERIAL_BELOW or m == 1 or n == 1:
        if add:
            out += np.matmul(a, b)
        else:
            np.matmul(a, b, out=out)
        return
    a, b = _stored(a), _stored(b)
    threads = numba.get_num_threads()
    parts = 1 if count % threads == 0 else threads
    _products(
        _gemm_address(out.dtype), _LIKE[out.dtype.name], count, parts, (m, n, k),
        _describe(a), _describe(b), _describe(out)[:2],
        tuple(x.strides[0] if x.ndim == 3 else 0 for x in (a, b, out)), int(add),
    )  # fmt: skip


def _by_dots(a, b, out, add):
    # A vector with the rows of a matrix: memory is the bound. Whether this was such a product.
    if out.shape[0] == 1:
        rows, vector = b.T, a[0]
    elif out.shape[1] == 1:
        rows, vector = a, b[:, 0]
    else:
        return False
    in_order = all(x.flags.c_contiguous for x in (rows, vector, out))
    if rows.size < SERIAL_BELOW or not in_order:
        return False
    _dots(rows, vector, out.reshape(-1), add)
    return True


@parallel_njit
def _dots(rows, vector, out, add):
    flat, (height, width) = rows.reshape(-1), rows.shape
    for item in numba.prange((height + 3) // 4):
        before = flush_denormals()
        row, count = 4 * item, min(4, height - 4 * item)
        parts = np.empty((4, SUMS), rows.dtype)
        if count == 4:
            four_dots(flat, row * width, width, vector, width, parts.reshape(-1), 0)
        else:
            for i in range(count):
                one_dot(flat, (row + i) * width, width, vector, width, parts.reshape(-1), i * SUMS)
        for i in range(count):
            total = sums.total(parts[i])
            out[row + i] = out[row + i] + total if add else total
        restore_denormals(before)


_LIKE = {name: np.empty(0, name) for name in ("float32", "float64")}


def _stored(x):
    # x itself if its rows or its columns are contiguous and a copy otherwise.
    rows, columns = x.strides[-2:]
    if columns == x.itemsize and rows >= x.shape[-1] * x.itemsize:
        return x
    if rows == x.itemsize and columns >= x.shape[-2] * x.itemsize:
        return x
    return np.ascontiguousarray(x)


def _describe(x):
    # (address, pitch in elements, whether it is stored transposed)
    rows, columns = x.strides[-2:]
    transposed = columns != x.itemsize or rows < x.shape[-1] * x.itemsize
    pitch = (columns if transposed else rows) // x.itemsize
    return x.__array_interface__["data"][0], pitch, int(transposed)
