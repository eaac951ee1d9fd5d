"""Weights and solver states in HDF5 (.caffemodel.h5, .solverstate.h5), laid out as Caffe does.

Weights: /data/<layer>/<i> for the i-th parameter of a layer and, if asked for, /diff/<layer>/<i>
for its gradient. Of parameters that layers share only the owner's are there. A solver state: iter,
current_step, learned_net, and /history/<i>; ours adds what solverstate.py lists.

NOTE: a layer's name may contain "/", where Caffe fails to save: it becomes a group in a group, and
reads back. Caffe itself ignores such groups, as it does any layer that it does not know.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

import numpy as np

from .blobproto import MAX_AXES, BlobData
from .errors import ModelFileError
from .files import atomic_write, foreign_kind, open_file
from .solverstate import INTEGERS

MAX_DEPTH = 32
"""The deepest nesting of groups that is followed: the number of "/" in a layer's name."""

_MAX_DEFLATE_RATIO = 1032  # the most that deflate can compress by


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
    with _reading(path, "weights in HDF5 (.caffemodel.h5)") as file:
        if "data" not in file:
            hint = "It may be a .solverstate.h5, or a data set."
            raise ModelFileError(path, "weights, in a group 'data'", "no such group", hint)
        for name, arrays in _walk(_group(file, "data", path), "", path):
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
        if name in parent and _is_layer(parent[name]):
            raise ModelFileError(path, "layer names that differ", f"{name!r} twice")
        try:
            group = parent.require_group(name)
            group.attrs["layer"] = True
            for i, values in arrays.items():
                group.create_dataset(str(i), data=_storable(values))
        except (TypeError, ValueError) as error:
            found = f"{name!r} beside a layer whose parameters lie under that name"
            raise ModelFileError(path, "a layer name that HDF5 can store", found) from error


def _is_layer(group) -> bool:
    return "layer" in group.attrs


def _storable(values) -> np.ndarray:
    values = np.asarray(values)
    return values if values.dtype == np.float64 else values.astype("<f4", copy=False)


# ---------------------------------------------------------------------------------------- states


def read_state_h5(path) -> dict:
    """Reads a .solverstate.h5 of Caffe's or ours; returns a state as solverstate.read_state does.

    Raises:
        ModelFileError: as read_weights_h5.
    """
    with _reading(path, "a solver state in HDF5 (.solverstate.h5)") as file:
        if "iter" not in file:
            hint = "It may be a .caffemodel.h5: give the .solverstate.h5 beside it."
            raise ModelFileError(path, "a solver state, with 'iter'", "none", hint)
        state = {"iter": 0, "current_step": 0, "learned_net": "", "history": []}
        for name in INTEGERS:
            if name in file:
                state[name] = _integers(file, name, path, 1)[0]
        if "learned_net" in file:
            value = _dataset(file, "learned_net", path)[()]
            state["learned_net"] = value.decode() if isinstance(value, bytes) else str(value)
        if "history" in file:
            group = _group(file, "history", path)
            arrays = _arrays(group, path)
            state["history"] = [arrays[i] for i in sorted(arrays)]
        if "test_passes" in file:
            state["test_passes"] = _integers(file, "test_passes", path)
        if "layer_state" in file:
            layers = _walk(_group(file, "layer_state", path), "", path)
            state["layer_state"] = {
                name: [arrays[i] for i in sorted(arrays)] for name, arrays in layers
            }
        return state


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
            history.create_dataset(str(i), data=_storable(values))
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


# ----------------------------------------------------------------------------- reading, with care


def _walk(group, prefix: str, path, depth: int = 0):
    """Yields (name, {index: array}) for the layers in a group and in the groups within it."""
    if depth > MAX_DEPTH:
        raise ModelFileError(path, f"at most {MAX_DEPTH} groups in one another", "more")
    for key in group:
        if not _is_group(group, key, path):
            continue
        child = _group(group, key, path)
        arrays = _arrays(child, path)
        has_groups = any(_is_group(child, name, path) for name in child)
        if arrays or _is_layer(child) or not has_groups:
            yield prefix + key, arrays
        if has_groups:
            yield from _walk(child, f"{prefix}{key}/", path, depth + 1)


def _arrays(group, path) -> dict[int, np.ndarray]:
    """The arrays of a group whose names are numbers, by number."""
    names = [key for key in group if key.isascii() and key.isdigit() and len(key) < 8]
    names = [key for key in names if not _is_group(group, key, path)]
    return {int(key): _read_array(_dataset(group, key, path), path) for key in names}


def _is_group(group, key: str, path) -> bool:
    import h5py

    # A link to another file could make this one read anything; Caffe writes none.
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ModelFileError(f"{path}, {group.name}/{key}", "an object in this file", "a link")
    return group.get(key, getclass=True) is h5py.Group


def _group(parent, key: str, path):
    if not _is_group(parent, key, path):
        raise ModelFileError(f"{path}, {parent.name}", f"a group {key!r}", "something else")
    return parent[key]


def _dataset(parent, key: str, path):
    import h5py

    where = f"{path}, {parent.name}/{key}"
    if _is_group(parent, key, path) or not isinstance(parent[key], h5py.Dataset):
        raise ModelFileError(where, "a data set", "something else")
    dataset = parent[key]
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(where, "numbers in this file", "a link to other files")
    stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    if dataset.nbytes > stored * (_MAX_DEFLATE_RATIO if dataset.chunks else 1):
        found = f"a claim of {dataset.nbytes} bytes (shape {dataset.shape})"
        raise ModelFileError(where, f"what {stored} stored bytes can hold", found, "It is damaged.")
    return dataset


def _read_array(dataset, path) -> np.ndarray:
    if dataset.dtype.kind not in "fiu" or dataset.ndim > MAX_AXES:
        found = f"type {dataset.dtype} and {dataset.ndim} axes"
        raise ModelFileError(f"{path}, {dataset.name}", "numbers of at most 32 axes", found)
    return _storable(dataset[()])


def _integers(file, key: str, path, count: int | None = None) -> list[int]:
    dataset = _dataset(file, key, path)
    if dataset.dtype.kind not in "iu" or dataset.size != (count or dataset.size):
        found = f"type {dataset.dtype}, shape {dataset.shape}"
        raise ModelFileError(f"{path}, {key}", f"{count or 'some'} integer(s)", found)
    return [int(value) for value in np.ravel(dataset[()])]


@contextlib.contextmanager
def _reading(path, what: str):
    """Opens an HDF5 file; whatever HDF5 raises inside becomes a ModelFileError."""
    import h5py

    with open_file(path, what) as file:
        head = file.read(32)
    kind = foreign_kind(head)
    if kind != "an HDF5 file":
        found = kind or ("bytes that are no HDF5" if head else "an empty file")
        hint = "" if kind else "Give a plain .caffemodel or .solverstate under its own extension."
        raise ModelFileError(path, what, found, hint)
    try:
        with h5py.File(os.fspath(path), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        found = f"a truncated or damaged one ({error})"
        raise ModelFileError(path, what, found, "Copy or download it again.") from error


@contextlib.contextmanager
def _writing(path):
    import h5py

    with atomic_write(path) as file, h5py.File(file.name, "w") as hdf5:
        yield hdf5
