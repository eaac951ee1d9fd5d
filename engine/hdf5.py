"""Weights and solver states in HDF5 (.caffemodel.h5, .solverstate.h5), laid out as Caffe does.

Weights: /data/<layer>/<i> for the i-th parameter of a layer and, if asked for, /diff/<layer>/<i>
for its gradient. Of parameters that layers share only the owner's are there. A solver state: iter,
current_step, learned_net, and /history/<i>; ours adds what solverstate.py lists.

NOTE: a layer's name may contain "/", where Caffe fails to save: it becomes a group in a group, and
reads back. Caffe itself ignores such groups, as it does any layer that it does not know.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from .blobproto import BlobData
from .errors import ModelFileError
from .files import atomic_write
from .hdf5_reader import LAYER_MARK, as_float, open_reader
from .solverstate import INTEGERS

# --------------------------------------------------------------------------------------- weights


def read_weights_h5(path) -> Iterator[tuple[str, dict[int, BlobData]]]:
    """Reads the weights in an HDF5 file, of Caffe's or ours, one layer at a time.

    Yields:
        (layer name, {parameter index: BlobData}), by name; a layer without parameters, or with
        only shared ones of which it is not the owner, has an empty dict.

    Raises:
        ModelFileError: the file is missing, of another format, truncated or damaged, or claims
            more numbers than it can hold.
    """
    with open_reader(path, "weights in HDF5 (.caffemodel.h5)") as reader:
        if "data" not in reader.file:
            hint = "It may be a .solverstate.h5, or a data set."
            raise ModelFileError(path, "weights, in a group 'data'", "no such group", hint)
        for name, arrays in reader.layers("data"):
            yield name, {i: BlobData(values.shape, values) for i, values in arrays.items()}


def write_weights_h5(path, layers: Iterable, diffs: Iterable | None = None) -> None:
    """Writes weights as Caffe's Net::ToHDF5 does, complete or not at all.

    Args:
        path: the file.
        layers: pairs (layer name, {parameter index: array}); a generator will do.
        diffs: the same for the gradients, or None to leave them out.

    Raises:
        ModelFileError: the file cannot be written, or a name cannot be stored in HDF5.
    """
    with _writing(path) as file:
        for group, pairs in (("data", layers), ("diff", diffs)):
            if pairs is not None:
                _write_layers(file.create_group(group), pairs, path)


def _write_layers(parent, layers, path) -> None:
    for name, arrays in layers:
        if not all(part not in ("", ".") for part in name.split("/")) or "\0" in name:
            hint = "Rename the layer, or save as a plain .caffemodel."
            raise ModelFileError(path, "a layer name that HDF5 can store", repr(name), hint)
        if name in parent and LAYER_MARK in parent[name].attrs:
            raise ModelFileError(path, "layer names that differ", f"{name!r} twice")
        try:
            group = parent.require_group(name)
            group.attrs[LAYER_MARK] = True
            for i, values in arrays.items():
                group.create_dataset(str(i), data=as_float(values))
        except (TypeError, ValueError) as error:
            found = f"{name!r} beside a layer whose parameters lie under that name"
            raise ModelFileError(path, "a layer name that HDF5 can store", found) from error


# ---------------------------------------------------------------------------------------- states


def read_state_h5(path) -> dict:
    """Reads a .solverstate.h5 of Caffe's or ours; returns a state as solverstate.read_state does.

    Raises:
        ModelFileError: as read_weights_h5.
    """
    with open_reader(path, "a solver state in HDF5 (.solverstate.h5)") as reader:
        if "iter" not in reader.file:
            hint = "It may be a .caffemodel.h5: give the .solverstate.h5 beside it."
            raise ModelFileError(path, "a solver state, with 'iter'", "none", hint)
        state = {"iter": 0, "current_step": 0, "learned_net": "", "history": []}
        state |= {name: reader.integers(name, 1)[0] for name in INTEGERS if name in reader.file}
        if "learned_net" in reader.file:
            state["learned_net"] = reader.string("learned_net")
        if "history" in reader.file:
            state["history"] = _in_order(reader.arrays(reader.group(reader.file, "history")))
        if "test_passes" in reader.file:
            state["test_passes"] = reader.integers("test_passes")
        if "layer_state" in reader.file:
            layers = reader.layers("layer_state")
            state["layer_state"] = {name: _in_order(arrays) for name, arrays in layers}
        return state


def _in_order(arrays: dict) -> list:
    return [arrays[i] for i in sorted(arrays)]


def write_state_h5(path, state: dict) -> None:
    """Writes a state (see solverstate) as Caffe does, complete or not at all.

    Raises:
        ModelFileError: the file cannot be written.
    """
    with _writing(path) as file:
        for name, number in INTEGERS.items():
            if name in state:
                kind = np.int32 if number < 100 else np.uint64
                file.create_dataset(name, data=np.array([state[name]], kind))
        _write_string(file, "learned_net", state["learned_net"])
        history = file.create_group("history")
        for i, values in enumerate(state["history"]):
            history.create_dataset(str(i), data=as_float(values))
        if "test_passes" in state:
            file.create_dataset("test_passes", data=np.array(state["test_passes"], np.uint64))
        if "layer_state" in state:
            layers = ((name, dict(enumerate(a))) for name, a in state["layer_state"].items())
            _write_layers(file.create_group("layer_state"), layers, path)


def _write_string(file, name: str, text: str) -> None:
    """A string with its terminating zero, which Caffe relies on."""
    import h5py

    raw = text.encode()
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(raw) + 1)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(raw, f"S{len(raw) + 1}"))


@contextlib.contextmanager
def _writing(path):
    import h5py

    with atomic_write(path) as file, h5py.File(file.name, "w") as hdf5:
        yield hdf5
