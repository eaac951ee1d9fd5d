"""Convolution: forward, and the gradients of data, weights and bias.

Shapes and arguments are those of kernels/cpu/convolution.py; a deconvolution's forward pass is
`backward_data`. There are two ways:

    cudnn       `by_cudnn`: NVIDIA's cuDNN, where nvidia-cudnn-frontend is installed
    columns     `by_columns`: im2col and cuBLAS, for all else: float64, more than three spatial
                axes, and where cuDNN is missing or has no plan

How precisely they compute is said by `Precision`.
"""

from . import activations, by_columns, by_cudnn, channelwise


def algorithm_for(geometry, array):
    """The name of the way to compute a convolution of arrays like `array`."""
    return "cudnn" if by_cudnn.suits(geometry, array) else "columns"


def forward(x, weight, bias, y, geometry, algorithm=None, relu=False):
    """y = x convolved with weight, plus bias (None for none); then max(y, 0) if `relu`."""
    if not y.size:
        return
    algorithm = algorithm or algorithm_for(geometry, y)
    if algorithm == "cudnn" and by_cudnn.forward(x, weight, bias, y, geometry, relu):
        return
    by_columns.forward(x, weight, bias, y, geometry, relu)


def backward_data(dy, weight, dx, geometry, algorithm=None, gate=None):
    """dx = the gradient of x: dy convolved with the transposed weight.

    `gate`: an array like x, the result of a ReLU whose gradient dx becomes; None for none.
    """
    if not dx.size:
        return
    algorithm = algorithm or algorithm_for(geometry, dx)
    if algorithm == "cudnn" and by_cudnn.backward_data(dy, weight, dx, geometry, gate):
        return
    by_columns.backward_data(dy, weight, dx, geometry)
    if gate is not None:
        dx = dx.reshape(-1)
        activations.relu_backward(gate.reshape(-1), dx, dx.dtype.type(0), dx)


def backward_weight(x, dy, dw, geometry, algorithm=None, db=None, add=True):
    """dw += the gradient of the weight; db (None for none) += that of the bias."""
    if db is not None:
        backward_bias(dy, db, geometry)
    if not x.size or not dy.size:
        return
    algorithm = algorithm or algorithm_for(geometry, dw)
    if algorithm == "cudnn" and by_cudnn.backward_weight(x, dy, dw, geometry):
        return
    by_columns.backward_weight(x, dy, dw, geometry)


def add_bias(y, bias, geometry):
    """y += bias, for every channel of y, which may be of x's shape (a deconvolution's top)."""
    channels = geometry.by_channel(y, bias.size)
    channels += bias[:, None]


def backward_bias(dy, db, geometry):
    """db += dy summed over images and positions; dy may be of x's shape, as in `add_bias`."""
    total = channelwise.totals(geometry.by_channel(dy, db.size))
    db += total.astype(db.dtype, copy=False)
