"""Matrix products: cuBLAS through CuPy, straight on the arrays, transposed or not.

Without tensor cores float32 is computed as such (`Precision`). The order of a product's sums is a
function of its shape, on one kind of GPU and version of cuBLAS.
"""

import numpy as np

from ...device import device_of
from ...precision import current
from .pointers import address

# As in cublas_api.h and library_types.h.
_N, _T, _DEFAULT_ALGORITHM = 0, 1, -1
_TYPES = {"float16": 2, "float32": 0, "float64": 1}  # CUDA_R_16F, CUDA_R_32F, CUDA_R_64F
_FLOAT32, _TF32, _FLOAT64 = 68, 77, 70  # CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _64F


def matmul(a, b, out, add=False):
    """out = a @ b, or out += a @ b if `add`, for one product or a group of them.

    Args:
        a, b, out: (M, K), (K, N), (M, N), or with one more axis in front; all of one dtype. The
            rows of `out` are contiguous; a and b may be transposed views.
    """
    if not out.size:
        return
    if not a.shape[-1]:
        if not add:
            out.fill(0)
        return
    device = device_of(out)
    if hasattr(device.xp, "cuda"):
        _cublas(device.xp.cuda, a, b, out, add)
    elif add:
        out += device.xp.matmul(a, b)
    else:
        device.xp.matmul(a, b, out=out)


def _cublas(cuda, a, b, out, add):
    # cuBLAS stores by columns: out^T = b^T a^T.
    a, b = _stored(a), _stored(b)
    *groups, m, n = out.shape
    double = out.dtype == np.float64
    one, factor = (np.array(v, np.float64 if double else np.float32) for v in (1, add))
    compute = _FLOAT64 if double else _TF32 if _rounds(out.dtype) else _FLOAT32
    kind = _TYPES[out.dtype.name]
    sizes = (n, m, a.shape[-1])
    operands = [(address(x), kind, *_pitch(x)) for x in (b, a, out)]
    transposed = [_N if _by_rows(x) else _T for x in (b, a)]
    ends = [one.ctypes.data, factor.ctypes.data]
    handle = cuda.device.get_cublas_handle()
    if not groups:
        (b_, a_, c_) = (operand[:3] for operand in operands)
        cuda.cublas.gemmEx(
            handle, *transposed, *sizes, ends[0], *b_, *a_, ends[1], *c_, compute,
            _DEFAULT_ALGORITHM,
        )  # fmt: skip
        return
    b_, a_, c_ = operands
    cuda.cublas.gemmStridedBatchedEx(
        handle, *transposed, *sizes, ends[0], *b_, *a_, ends[1], *c_, groups[0], compute,
        _DEFAULT_ALGORITHM,
    )  # fmt: skip


def _rounds(dtype):
    return dtype == np.float32 and current().tensor_cores


def _by_rows(x):
    # Whether rows are contiguous, with a pitch that no other row lies in.
    rows, columns = x.strides[-2:]
    size, width = x.itemsize, x.shape[-1]
    return (columns == size or width == 1) and (rows >= width * size or x.shape[-2] == 1)


def _by_columns(x):
    return _by_rows(x.swapaxes(-1, -2))


def _stored(x):
    # x itself if its rows or its columns are contiguous and a copy otherwise.
    if _by_rows(x) or _by_columns(x):
        return x
    return device_of(x).xp.ascontiguousarray(x)


def _pitch(x):
    # (elements from line to line, elements from matrix to matrix)
    if not _by_rows(x):
        x = x.swapaxes(-1, -2)
    pitch = x.strides[-2] // x.itemsize if x.shape[-2] > 1 else x.shape[-1]
    return pitch, (x.strides[0] // x.itemsize if x.ndim == 3 else 0)
