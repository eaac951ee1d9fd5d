"""Functions of single elements, each in one pass; arrays are flat and of one dtype.

Outputs may be inputs. As on the CPU, NaN passes, and a negative number times zero plus zero is 0.
"""

import numpy as np

from .launch import BLOCK, elementwise_grid, launch, number


def relu(x, slope, y):
    """y = x where x > 0, slope * x elsewhere."""
    _run("relu", x, y, numbers=[slope])


def relu_backward(x, dy, slope, dx):
    """dx = dy where x > 0, slope * dy elsewhere."""
    _run("relu_backward", x, dy, dx, numbers=[slope])


def scaled(x, a, out):
    """out = a * x."""
    _run("scaled", x, out, numbers=[a])


def weighted_sum(x, a, y, b, rectify, out):
    """out = a * x + b * y, or max(., 0) of it if `rectify`."""
    _run("weighted_sum", x, y, out, numbers=[a, b, rectify])


def sigmoid(x, y):
    """y = 1 / (1 + exp(-x))."""
    _run("sigmoid", x, y)


def sigmoid_backward(y, dy, dx):
    """dx = dy * y * (1 - y)."""
    _run("sigmoid_backward", y, dy, dx)


def tanh_backward(y, dy, dx):
    """dx = dy * (1 - y^2)."""
    _run("tanh_backward", y, dy, dx)


def elu(x, alpha, y):
    """y = x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    _run("elu", x, y, numbers=[alpha])


def elu_backward(x, y, alpha, dy, dx):
    """dx = dy where x > 0, dy * (y + alpha) elsewhere."""
    _run("elu_backward", x, y, dy, dx, numbers=[alpha])


def larger_backward(x, y, first, dy, out):
    """out = dy where x > y is `first`, dy * 0 elsewhere: the gradient of x or y in max(x, y)."""
    _run("larger_backward", x, y, dy, out, choice=int(first))


def pick_backward(winner, k, dy, dx):
    """dx = dy where `winner`, of int32, is k, dy * 0 elsewhere."""
    _run("pick_backward", winner, dy, dx, choice=k)


def _run(name, *arrays, numbers=(), choice=None):
    out = arrays[-1]
    args = [number(value, out) for value in numbers]
    if choice is not None:
        args.append(np.int32(choice))
    grid, args = elementwise_grid(out), (*args, out.size)
    launch("activations.cu", name, arrays, grid, (BLOCK,), args, dtype=out.dtype)
