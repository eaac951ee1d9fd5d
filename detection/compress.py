"""Fully connected layers in two factors: truncated SVD (Fast R-CNN, section 3.1).

A layer W (u outputs, v inputs) becomes two, U (u, t) after L (t, v), without an activation between
them: t (u + v) weights in place of u v. W ~ U L keeps the t largest singular values.
"""

from dataclasses import dataclass

import numpy as np

from ..engine.errors import NetError, closest
from ..engine.graph import layer_where
from ..engine.proto import caffe_pb2

FIRST, SECOND = "_L", "_U"  # what the names of the two layers end with, as Fast R-CNN's
_COLUMNS = 2048  # of a matrix that are worked on at once


@dataclass(frozen=True)
class Compressed:
    """What became of one layer: its shape (outputs, inputs), the rank kept, and the relative error
    ||W - U L|| / ||W|| (Frobenius norms)."""

    name: str
    outputs: int
    inputs: int
    rank: int
    error: float

    @property
    def before(self):
        """How many weights the layer had."""
        return self.outputs * self.inputs

    @property
    def after(self):
        """How many weights both factors have."""
        return self.rank * (self.outputs + self.inputs)


def truncated_svd(weights, rank):
    """The best approximation of a matrix by one of the given rank, in two factors.

    The singular vectors of the shorter side are the eigenvectors of W W^T (or W^T W), summed up in
    double precision: for VGG16's fc6, 4096 x 25088, a fraction of the work of a complete SVD.

    Args: weights (u, v).
    Returns: U (u, rank), L (rank, v), of the dtype of `weights`, and the relative error.
    """
    from scipy.linalg import eigh

    wide = weights if weights.shape[0] <= weights.shape[1] else weights.T
    short = wide.shape[0]
    gram = np.zeros((short, short))
    for columns in _blocks(wide):
        gram += columns @ columns.T
    squares, vectors = eigh(gram, subset_by_index=[short - rank, short - 1])
    total = np.trace(gram)
    error = float(np.sqrt(max(0.0, total - squares.sum()) / total)) if total > 0 else 0.0
    # W ~ V (V^T W)
    projected = np.hstack([vectors.T @ columns for columns in _blocks(wide)])
    factors = (vectors, projected) if wide is weights else (projected.T, vectors.T)
    return *(factor.astype(weights.dtype) for factor in factors), error


def _blocks(matrix):
    """Columns of a matrix in double precision, a part at a time, so that it is never there as a
    whole."""
    for begin in range(0, matrix.shape[1], _COLUMNS):
        yield matrix[:, begin : begin + _COLUMNS].astype(np.float64)


# ---- definitions


def compress_definition(net_param, ranks):
    """A copy of a NetParameter in which the layers named in `ranks` are two each.

    Args: ranks: {layer name: rank}.
    Raises: NetError for a name that no InnerProduct layer has, or that shares its parameters.
    """
    names = {layer.name for layer in net_param.layer if layer.type == "InnerProduct"}
    for name in ranks:
        if name not in names:
            hint = closest(name, names) or f"There are: {', '.join(sorted(names))}."
            raise NetError("compression", "the name of an InnerProduct layer", repr(name), hint)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net_param)
    del result.layer[:]
    for layer in net_param.layer:
        if layer.name in ranks and layer.type == "InnerProduct":
            result.layer.extend(_two_layers(layer, ranks[layer.name]))
        else:
            result.layer.add().CopyFrom(layer)
    return result


def _two_layers(layer, rank):
    """The first layer has no bias; the second one has the top of the layer that it replaces."""
    if any(p.name for p in layer.param):
        raise NetError(layer_where(layer), "parameters of its own", "shared ones")
    first, second = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    for part, ending in ((first, FIRST), (second, SECOND)):
        part.CopyFrom(layer)
        part.name = layer.name + ending
        part.inner_product_param.transpose = False
        del part.blobs[:]
    first.top[:] = second.bottom[:] = [first.name]
    del first.param[1:]
    first.inner_product_param.num_output = rank
    first.inner_product_param.bias_term = False
    first.inner_product_param.ClearField("bias_filler")
    return first, second


def ranks_of(net_param):
    """{layer name: rank} of a definition with NAME_L and NAME_U layers (Fast R-CNN's --def-svd).

    Raises: NetError if there are none.
    """
    layers = {layer.name: layer for layer in net_param.layer if layer.type == "InnerProduct"}
    ranks = {}
    for name, layer in layers.items():
        base = name.removesuffix(FIRST)
        if base != name and base + SECOND in layers:
            ranks[base] = layer.inner_product_param.num_output
    if not ranks:
        expected = f"InnerProduct layers in pairs, NAME{FIRST} and NAME{SECOND}"
        raise NetError(f"net {net_param.name!r}", expected, "none")
    return ranks


# ---- weights


def compress_weights(net, compressed, ranks):
    """Fill a net made from a compressed definition with the weights of the original one.

    Args: net: the original, with its weights; compressed: the net to fill; ranks: {name: rank}.
    Returns: [Compressed] in the order of `ranks`.
    Raises: NetError for a rank that the layer does not have, or layers that do not fit.
    """
    for name, blobs in net.params.items():
        if name not in ranks:
            _copy(name, blobs, compressed.params[name])
    return [_compress_layer(net, compressed, name, rank) for name, rank in ranks.items()]


def _compress_layer(net, compressed, name, rank):
    weights, *bias = (blob.data for blob in net.params[name])
    if net.nodes[net.layer_index(name)].param.inner_product_param.transpose:
        weights = weights.T
    if not 1 <= rank <= min(weights.shape):
        shape = f"{weights.shape[0]} x {weights.shape[1]}"
        expected = f"a rank from 1 to {min(weights.shape)} for its {shape} weights"
        raise NetError(f"layer {name!r}", expected, rank)
    second, first, error = truncated_svd(weights, rank)
    _assign(name + FIRST, [first], compressed.params[name + FIRST])
    _assign(name + SECOND, [second, *bias], compressed.params[name + SECOND])
    return Compressed(name, *weights.shape, rank, error)


def _copy(name, source, target):
    _assign(name, [blob.data for blob in source], target)


def _assign(name, values, blobs):
    shapes = [v.shape for v in values], [b.shape for b in blobs]
    if shapes[0] != shapes[1]:
        raise NetError(
            f"layer {name!r} of the compressed net", f"parameters of shapes {shapes[0]}",
            f"{shapes[1]}", "Both definitions must be of the same network and classes.",
        )  # fmt: skip
    for blob, array in zip(blobs, values):
        blob.data[...] = array
