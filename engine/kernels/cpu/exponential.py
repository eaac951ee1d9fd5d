"""exp for kernels, in instructions that LLVM turns into vectors.

exp(x) = 2^n * e^r with r = x - n * ln 2 in [-0.35, 0.35], e^r by its series. The error is about one
unit in the last place. Infinities and NaN are as in the C library; results below the smallest
normal numbers are 0.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_LOG2E = float(np.log2(np.e))
# ln 2 in two parts; products of the first one with n are exact.
_SINGLE = 0.693359375, -2.12194440e-4
_DOUBLE = 6.93145751953125e-1, 1.42860682030941723212e-6


@intrinsic
def _power_of_two(typing, n, like):
    """2^n in the type of `like`, for an integer n, given as a float; 0 just below the normal."""

    def generate(context, builder, signature, arguments):
        single = like == types.float32
        bits = ir.IntType(32 if single else 64)
        number = builder.fptosi(arguments[0], bits)
        raised = builder.add(number, bits(127 if single else 1023))
        raised = builder.shl(raised, bits(23 if single else 52))
        return builder.bitcast(raised, context.get_value_type(like))

    return like(n, like), generate


def exp(x):
    """e^x, for a float32 or float64; only within kernels."""
    raise TypeError("a function for kernels; elsewhere, use numpy.exp")


@overload(exp)
def _exp(x):
    return {types.float32: _exp_single, types.float64: _exp_double}.get(x)


def _exp_single(x):
    f = np.float32
    x = f(-87.6) if x < f(-87.6) else x
    x = f(89) if x > f(89) else x
    n = np.floor(x * f(_LOG2E) + f(0.5))
    r = x - n * f(_SINGLE[0]) - n * f(_SINGLE[1])
    s = f(1 / 720) + r * f(1 / 5040)
    s = f(1 / 24) + r * (f(1 / 120) + r * s)
    s = f(1) + r * (f(1) + r * (f(0.5) + r * (f(1 / 6) + r * s)))
    # 2^n itself may be too large; at the lower bound 2^(n - 1) comes out as 0.
    return (s + s) * _power_of_two(n - f(1), x)


def _exp_double(x):
    x = -708.5 if x < -708.5 else x
    x = 710.0 if x > 710.0 else x
    n = np.floor(x * _LOG2E + 0.5)
    r = x - n * _DOUBLE[0] - n * _DOUBLE[1]
    s = 1 / 479001600 + r * (1 / 6227020800)
    s = 1 / 3628800 + r * (1 / 39916800 + r * s)
    s = 1 / 40320 + r * (1 / 362880 + r * s)
    s = 1 / 720 + r * (1 / 5040 + r * s)
    s = 1 / 24 + r * (1 / 120 + r * s)
    s = 1.0 + r * (1.0 + r * (0.5 + r * (1 / 6 + r * s)))
    return (s + s) * _power_of_two(n - 1.0, x)
