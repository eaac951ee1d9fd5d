"""Reading HDF5 files that may be damaged or hostile: arrays in groups, checked before reading.

What a real file of Caffe's never has is refused: links (which could reach other files), the same
object under two names (which could multiply its size), and claims of more numbers than are stored.
"""

import contextlib
import os

import numpy as np

from .blobproto import MAX_AXES
from .errors import ModelFileError
from .files import foreign_kind, open_file

LAYER_MARK = "layer"
"""An attribute of each group that stands for a layer, in files of ours. It tells a layer without
parameters from a group that is only a part of other layers' names."""

MAX_DEPTH = 32
"""The deepest nesting of groups that is followed: the number of "/" in a layer's name."""

_MAX_DEFLATE_RATIO = 1032  # the most that deflate can compress by


@contextlib.contextmanager
def open_reader(path, what: str):
    """A context that gives a Reader; what HDF5 raises inside becomes a ModelFileError."""
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
            yield Reader(file, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        found = f"a truncated or damaged one ({error})"
        raise ModelFileError(path, what, found, "Copy or download it again.") from error


class Reader:
    """An open HDF5 file.

    Attributes:
        file: the h5py.File, to ask what is in it.
    """

    def __init__(self, file, path):
        self.file = file
        self.path = path
        self.seen = set()

    def layers(self, key: str):
        """Yields (name, {index: array}) for the layers in the group `key` of the file."""
        yield from self._walk(self.group(self.file, key), "", 0)

    def _walk(self, group, prefix: str, depth: int):
        if depth > MAX_DEPTH:
            self.fail(group, f"at most {MAX_DEPTH} groups in one another", "more")
        for key in group:
            if not self._is_group(group, key):
                continue
            child = self.group(group, key)
            arrays = self.arrays(child)
            has_groups = any(self._is_group(child, name) for name in child)
            if arrays or LAYER_MARK in child.attrs or not has_groups:
                yield prefix + key, arrays
            if has_groups:
                yield from self._walk(child, f"{prefix}{key}/", depth + 1)

    def arrays(self, group) -> dict[int, np.ndarray]:
        """The arrays of a group whose names are numbers, by number."""
        names = [key for key in group if key.isascii() and key.isdigit() and len(key) < 8]
        names = [key for key in names if not self._is_group(group, key)]
        return {int(key): self._array(self.dataset(group, key)) for key in names}

    def integers(self, key: str, count: int | None = None) -> list[int]:
        """The integers in a data set of the file; `count` of them, if given."""
        dataset = self.dataset(self.file, key)
        if dataset.dtype.kind not in "iu" or dataset.size != (count or dataset.size):
            found = f"type {dataset.dtype}, shape {dataset.shape}"
            self.fail(dataset, f"{count or 'some'} integer(s)", found)
        return [int(value) for value in np.ravel(dataset[()])]

    def string(self, key: str) -> str:
        """The string in a data set of the file."""
        value = self.dataset(self.file, key)[()]
        return value.decode() if isinstance(value, bytes) else str(value)

    def group(self, parent, key: str):
        """The group `key` of `parent`."""
        if not self._is_group(parent, key):
            self.fail(parent, f"a group {key!r}", "something else")
        return self._once(parent[key])

    def dataset(self, parent, key: str):
        """The data set `key` of `parent`, whose numbers are in this file and not too many."""
        import h5py

        if self._is_group(parent, key) or not isinstance(parent[key], h5py.Dataset):
            self.fail(parent, f"a data set {key!r}", "something else")
        dataset = self._once(parent[key])
        if dataset.external or dataset.is_virtual:
            self.fail(dataset, "numbers in this file", "a link to other files")
        stored = min(dataset.id.get_storage_size(), self.file.id.get_filesize())
        if dataset.nbytes > stored * (_MAX_DEFLATE_RATIO if dataset.chunks else 1):
            found = f"a claim of {dataset.nbytes} bytes (shape {dataset.shape})"
            self.fail(dataset, f"what {stored} stored bytes can hold", found)
        return dataset

    def _array(self, dataset) -> np.ndarray:
        if dataset.dtype.kind not in "fiu" or dataset.ndim > MAX_AXES:
            found = f"type {dataset.dtype} and {dataset.ndim} axes"
            self.fail(dataset, f"numbers of at most {MAX_AXES} axes", found)
        return as_float(dataset[()])

    def _is_group(self, parent, key: str) -> bool:
        import h5py

        if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
            self.fail(parent, f"{key!r} in this file", "a link")
        return parent.get(key, getclass=True) is h5py.Group

    def _once(self, item):
        import h5py

        address = h5py.h5o.get_info(item.id).addr
        if address in self.seen:
            self.fail(item, "each object under one name", "another name of an earlier one")
        self.seen.add(address)
        return item

    def fail(self, item, expected, found):
        """Raises the error about an object of the file."""
        raise ModelFileError(f"{self.path}, {item.name}", expected, found, "The file is damaged.")


def as_float(values) -> np.ndarray:
    """float64 as it is, all else as float32."""
    values = np.asarray(values)
    return values if values.dtype == np.float64 else values.astype("<f4", copy=False)
