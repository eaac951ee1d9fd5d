"""Stopping a training run whose numbers have gone bad, and saying where they did."""

import contextlib
import math

import numpy as np

from ..engine.errors import LayerError, SolverError

_HINT = "Lower the learning rate, set clip_gradients, or check the data."


def check_loss(solver, loss, iteration=None):
    """For `Solver.on_forward`: raise SolverError if the loss of this pass is not finite.

    The error names the iteration (counted from 0, as in Caffe's log; the present one if not given)
    and the first blob that is not finite, in the order in which the net computes.
    """
    loss = float(loss)
    if not math.isfinite(loss):
        bad = first_bad(solver.net) or "every blob is finite: their sum is too large"
        where = f"iteration {solver.iter if iteration is None else iteration}"
        raise SolverError(where, "a finite loss", f"{loss}; {bad}", _HINT)


@contextlib.contextmanager
def layers_explained(solver):
    """While the context lasts, an error of a layer that is due to bad numbers says so.

    Layers that cannot work with such numbers (Proposal) stop before there is a loss.
    """
    try:
        yield
    except LayerError as error:
        bad = first_bad(solver.net)
        if bad is None:
            raise
        where = f"iteration {solver.iter}"
        raise SolverError(where, "finite numbers", f"others; {bad}", _HINT) from error


def check_parameters(solver):
    """Raise SolverError if a parameter is not finite, before it would be written to a file."""
    for p in solver.net.learnable:
        if not _finite(p.blob, "data"):
            node = solver.net.nodes[p.layer]
            raise SolverError(
                f"iteration {solver.iter}", "finite parameters",
                f"parameter {p.index} of layer {node.name!r} ({node.type}) is not", _HINT,
            )  # fmt: skip


def first_bad(net):
    """A phrase that names the first thing in a net that is not finite; None if all is.

    Layer by layer, in order: the parameters, which an earlier update spoilt, then the tops; after
    them the gradients of parameters, which earlier passes of the same iteration have summed up.
    """
    for node in net.nodes:
        for k, blob in enumerate(node.layer.blobs):
            if not _finite(blob, "data"):
                return f"the first to go bad is {_parameter(k, node)}, in an update before"
        for k, (top_id, top) in enumerate(zip(node.top_ids, node.tops)):
            if not _finite(top, "data"):
                name = net.blob_names[top_id]
                return f"the first to go bad is blob {name!r}, top {k} of {_layer(node)}"
    for node in net.nodes:
        for k, blob in enumerate(node.layer.blobs):
            if blob.has_grad and not _finite(blob, "diff"):
                return f"the first to go bad is the gradient of {_parameter(k, node)}"
    return None


def _finite(blob, kind):
    return bool(np.isfinite(getattr(blob, f"host_{kind}")).all())


def _layer(node):
    return f"layer {node.name!r} ({node.type})"


def _parameter(k, node):
    return f"parameter {k} of {_layer(node)}"
