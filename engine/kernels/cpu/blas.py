"""Matrix products that NumPy has no form for."""

from scipy.linalg import blas


def _fortran(matrix):
    """The matrix in column-major order, and whether that is its transpose."""
    return (matrix, 0) if matrix.flags.f_contiguous else (matrix.T, 1)


def add_matmul(a, b, out):
    """out += a @ b, without a temporary as large as `out` (BLAS gemm with beta = 1).

    Args:
        a, b: (M, K) and (K, N), each C-contiguous or the transpose of such an array.
        out: (M, N), C-contiguous; all of one dtype, float32 or float64.
    """
    if 0 in a.shape or 0 in b.shape:
        return
    # BLAS is column-major: out^T += b^T a^T.
    left, transpose_left = _fortran(b.T)
    right, transpose_right = _fortran(a.T)
    gemm = blas.sgemm if out.dtype == "float32" else blas.dgemm
    gemm(
        1.0, left, right, beta=1.0, c=out.T, overwrite_c=1,
        trans_a=transpose_left, trans_b=transpose_right,
    )  # fmt: skip
