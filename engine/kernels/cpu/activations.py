"""Functions of single elements, each in one pass; arrays are flat and of one dtype.

Outputs may be inputs. No more of fastmath than what makes a product and a sum one instruction: NaN
must pass, and a negative number times zero plus zero is 0, not -0.
"""

from numba import prange

from . import adaptive_njit
from .exponential import exp


@adaptive_njit
def relu(x, slope, y):
    """y = x where x > 0, slope * x elsewhere."""
    zero = x.dtype.type(0)
    for i in prange(x.size):
        v = x[i]
        y[i] = v if v > zero else v * slope + zero


@adaptive_njit
def relu_backward(x, dy, slope, dx):
    """dx = dy where x > 0, slope * dy elsewhere."""
    zero = x.dtype.type(0)
    for i in prange(x.size):
        d = dy[i]
        dx[i] = d if x[i] > zero else d * slope


@adaptive_njit
def scaled(x, a, out):
    """out = a * x."""
    for i in prange(x.size):
        out[i] = x[i] * a


@adaptive_njit
def weighted_sum(x, a, y, b, rectify, out):
    """out = a * x + b * y, or max(., 0) of it if `rectify`."""
    zero = x.dtype.type(0)
    for i in prange(x.size):
        v = x[i] * a + y[i] * b
        out[i] = v if v > zero or not rectify else v * zero + zero


@adaptive_njit(fastmath={"contract"})
def sigmoid(x, y):
    """y = 1 / (1 + exp(-x))."""
    one = x.dtype.type(1)
    for i in prange(x.size):
        y[i] = one / (one + exp(-x[i]))


@adaptive_njit
def sigmoid_backward(y, dy, dx):
    """dx = dy * y * (1 - y)."""
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * y[i] * (one - y[i])


@adaptive_njit
def tanh_backward(y, dy, dx):
    """dx = dy * (1 - y^2)."""
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@adaptive_njit(fastmath={"contract"})
def elu(x, alpha, y):
    """y = x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in prange(x.size):
        v = x[i]
        below = alpha * (exp(v) - one)
        y[i] = v if v > zero else below


@adaptive_njit
def elu_backward(x, y, alpha, dy, dx):
    """dx = dy where x > 0, dy * (y + alpha) elsewhere."""
    zero = x.dtype.type(0)
    for i in prange(x.size):
        slope = dy[i] * (y[i] + alpha)
        dx[i] = dy[i] if x[i] > zero else slope


@adaptive_njit
def larger_backward(x, y, first, dy, out):
    """out = dy where x > y is `first`, dy * 0 elsewhere: the gradient of x or y in max(x, y)."""
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    for i in prange(dy.size):
        out[i] = dy[i] * (one if (x[i] > y[i]) == first else zero)


@adaptive_njit
def pick_backward(winner, k, dy, dx):
    """dx = dy where `winner` is k, dy * 0 elsewhere."""
    zero, one = dy.dtype.type(0), dy.dtype.type(1)
    for i in prange(dy.size):
        dx[i] = dy[i] * (one if winner[i] == k else zero)
