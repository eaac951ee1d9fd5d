"""Snapshots: the weights and the solver's state in two files that Caffe reads, and back.

Beside what Caffe keeps, the state has the seed, the numbers of passes, and what layers carry from
pass to pass: all that random numbers and data follow from. So a resumed run equals one that was
never interrupted.
"""

import logging
import os
import tempfile
from pathlib import Path

from ..engine import hdf5, solverstate
from ..engine import weights as weight_files
from ..engine.errors import ModelFileError, SolverError
from ..engine.proto import caffe_pb2
from .nets import test_seed

log = logging.getLogger("demitasse.solver")


def check_writable(param):
    """Raise SolverError unless snapshots can be written where a SolverParameter wants them."""
    if not param.HasField("snapshot_prefix"):
        raise SolverError(
            "solver", "a snapshot_prefix", "none",
            "Write snapshot_prefix: \"PATH\", or snapshot_after_train: false and no snapshot.",
        )  # fmt: skip
    folder = os.path.dirname(param.snapshot_prefix) or "."
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise SolverError(
            f"snapshot_prefix {param.snapshot_prefix!r}", f"a folder {folder!r} to write to",
            getattr(error, "strerror", None) or str(error),
            "Create it, or change snapshot_prefix; paths are relative to the working directory, "
            f"{os.getcwd()!r}.",
        ) from None  # fmt: skip


# ---- writing


def write(solver):
    """Write a snapshot of a solver; returns the path of the state file.

    1. Both files are written under temporary names and flushed to the disk.
    2. A state that is there already (of an earlier run) is removed, because it belongs to the
       weights that are to be replaced.
    3. The weights get their name, then the state gets its own, which completes the snapshot.

    So whenever the process dies, a state that can be read stands beside its own weights.

    Raises:
        SolverError: there is no snapshot_prefix.
        ModelFileError: a file cannot be written.

    Of several ranks, only rank 0 writes.
    """
    check_writable(solver.param)
    is_hdf5 = solver.param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    prefix = f"{solver.param.snapshot_prefix}_iter_{solver.iter}"
    ending, kind = (".h5", "HDF5") if is_hdf5 else ("", "binary proto")
    model, state = f"{prefix}.caffemodel{ending}", f"{prefix}.solverstate{ending}"
    save = weight_files.save_hdf5 if is_hdf5 else weight_files.save
    write_state = hdf5.write_state_h5 if is_hdf5 else solverstate.write_state
    if not solver.communicator.is_root:
        return state
    new_model, new_state = f"{model}.new", f"{state}.new"
    try:
        log.info("Snapshotting to %s file %s", kind, model)
        save(solver.net, new_model, solver.param.snapshot_diff)
        log.info("Snapshotting solver state to %s file %s", kind, state)
        write_state(new_state, state_of(solver, model))
        Path(state).unlink(missing_ok=True)
        os.replace(new_model, model)
        os.replace(new_state, state)
    except OSError as error:
        raise ModelFileError(
            state, "to write this snapshot", error.strerror or str(error),
            "Check the folder and the disk.",
        ) from error  # fmt: skip
    finally:
        Path(new_model).unlink(missing_ok=True)
        Path(new_state).unlink(missing_ok=True)
    return state


def state_of(solver, learned_net):
    """The state of a solver (see engine/solverstate.py) whose weights are in `learned_net`."""
    solver.scaler.settle()
    return {
        "iter": solver.iter,
        "current_step": solver.optimizer.current_step,
        "learned_net": learned_net,
        "history": [h.host_data for h in solver.optimizer.history],
        "random_seed": solver.net.context.random.seed,
        # Of all ranks together: so another number of ranks continues with the same data.
        "passes": solver.net.passes * solver.communicator.size,
        "test_passes": [net.passes for net in solver.test_nets],
        "layer_state": {key: [b.host_data for b in blobs] for key, blobs in _carried(solver)},
    }


def _carried(solver):
    """(key in the file, blobs) for what is carried from pass to pass: by layers, the loss scale."""
    for i, net in enumerate([solver.net, *solver.test_nets]):
        for node in net.nodes:
            if node.layer.state_blobs:
                yield (f"test net {i - 1}: " if i else "") + node.name, node.layer.state_blobs
    if solver.scaler.state is not None:
        yield "loss scale", [solver.scaler.state]


# ---- reading


def restore(solver, path):
    """Put a solver where it was when it wrote the state file at `path`, or Caffe did.

    Raises:
        SolverError: the state is of another net or another type of solver, or its weights are
            missing. ModelFileError: a file is broken.
    """
    read = hdf5.read_state_h5 if path.endswith(".h5") else solverstate.read_state
    state = read(path)
    _check_history(solver, state["history"], path)
    if state["learned_net"]:
        weight_files.copy_from(solver.net, find_weights(state["learned_net"], path))
    log.info("SGDSolver: restoring history")
    for blob, values in zip(solver.optimizer.history, state["history"]):
        if blob.has_data or values.any():
            blob.set_data(values)
    solver.iter = state["iter"]
    solver.optimizer.current_step = state["current_step"]
    _restore_surroundings(solver, state)


def find_weights(name, state_path):
    """The path of the weights file that a state file names.

    NOTE: Caffe takes the name as it is, relative to the working directory. Here a file of that
    name beside the state comes first, so that a pair of files can be moved together.

    Raises:
        SolverError: it is in neither place.
    """
    beside = os.path.join(os.path.dirname(state_path), os.path.basename(name))
    for path in (beside, name):
        if os.path.isfile(path):
            return path
    raise SolverError(
        state_path, f"the weights it belongs to, {beside} or {name}", "neither",
        "Keep the .caffemodel beside its .solverstate.",
    )  # fmt: skip


def _check_history(solver, history, path):
    expected = [blob.shape for blob in solver.optimizer.history]
    hint = "It is a state of another net or another type of solver."
    if len(history) != len(expected):
        raise SolverError(
            path, f"{len(expected)} history blobs for this net and type {solver.param.type}",
            f"{len(history)}", hint,
        )  # fmt: skip
    for i, (shape, values) in enumerate(zip(expected, history)):
        # Old files pad shapes to four axes with leading ones.
        if shape != values.shape and (1,) * (4 - len(shape)) + shape != values.shape:
            raise SolverError(path, f"history {i} of shape {shape}", f"shape {values.shape}", hint)


def _restore_surroundings(solver, state):
    """Have random numbers, data and layers' states go on where they were.

    Files of Caffe's own do not tell; then data go on as if every pass had been one of training.
    """
    ranks = solver.communicator.size
    passes = state.get("passes", solver.iter * solver.param.iter_size * ranks)
    seed = state.get("random_seed")
    _seek(solver.net, -(-passes // ranks), seed)
    for i, (net, count) in enumerate(zip(solver.test_nets, state.get("test_passes", ()))):
        _seek(net, count, None if seed is None else test_seed(seed, i))
    saved = state.get("layer_state", {})
    for key, blobs in _carried(solver):
        for blob, values in zip(blobs, saved.get(key, ())):
            blob.reshape(*values.shape)
            blob.set_data(values)
    solver.scaler.restored()


def _seek(net, passes, seed):
    if seed is not None and seed != net.context.random.seed:
        net.context.random.seed = seed
        net.seek(passes + 1)  # drops what was read ahead under the other seed
    net.seek(passes)
