"""That all ranks have the same net, weights and history: before and after they train."""

import hashlib

import numpy as np

from .communicator import ParallelError


def check_same(solver, learnt_only=False):
    """Raise ParallelError, on every rank, that names the first rank and thing that differ.

    Args: learnt_only: leave out what each rank keeps for itself, statistics of its own batches
        (BatchNorm).
    """
    communicator = solver.communicator
    if communicator.size == 1:
        return
    first, *others = communicator.gather(digests(solver, learnt_only))
    for rank, found in enumerate(others, 1):
        if list(found) != list(first):
            names = sorted({*found} ^ {*first})[:1] or ["the order of layers"]
            raise ParallelError(
                f"rank {rank}", "the net of rank 0", f"another one ({names[0]})",
                "All ranks must read the same files.",
            )  # fmt: skip
        for name, digest in first.items():
            if found[name] != digest:
                raise ParallelError(
                    f"rank {rank}", f"{name} as on rank 0", "others",
                    "All ranks must read the same files with the same versions of all packages.",
                )  # fmt: skip


def digests(solver, learnt_only=False):
    """{what it is: a digest}, in the order of the layers."""
    found = {"the iteration": str(solver.iter), "the seed": str(solver.net.context.random.seed)}
    for parameter in solver.net.learnable:
        if parameter.lr_mult or not learnt_only:
            name = solver.net.nodes[parameter.layer].name
            key = f"parameter {parameter.index} of layer {name!r} {parameter.blob.shape}"
            found[key] = _digest(parameter.blob)
    for k, blob in enumerate(solver.optimizer.history):
        if blob.has_data:
            found[f"history {k} of the solver"] = _digest(blob)
    return found


def _digest(blob):
    values = np.ascontiguousarray(blob.host_data).reshape(-1).view(np.uint8)
    return hashlib.blake2b(values, digest_size=16).hexdigest()
