"""HDF5Data: batches of rows from the datasets of HDF5 files."""

import bisect
import functools
import itertools

import numpy as np

from ..engine.blob import check_shape
from ..engine.errors import DataError
from ..engine.layer import register
from .prefetch import PrefetchingLayer

_MAX_CACHED_BYTES = 1 << 30  # a file up to this size is read whole, a larger one row by row
_MAX_SHUFFLED_ROWS = 1 << 27


@register("HDF5Data")
class HDF5Data(PrefetchingLayer):
    """Rows of any arrays: each top is the dataset of its name (Caffe: HDF5DataLayer).

    Tops: (N, ...), where the dataset is (rows, ...). `source` lists one file a line; after the
    last row of the last file comes the first again. `shuffle` gives every epoch an order of its
    own of the files and of the rows within each. Nothing is transformed.
    """

    min_top = 1

    def setup(self, bottom, top):
        p = self.param.hdf5_data_param
        if self.param.HasField("transform_param"):
            raise self.error(
                "no transform_param", "one", "HDF5Data does not transform: prepare the files."
            )
        if p.batch_size <= 0:
            raise self.error("a positive batch_size in hdf5_data_param", p.batch_size)
        find = self.context.find
        paths = read_file_list(find(p.source), self._where())
        files = [_File(find(path), list(self.param.top), self._where()) for path in paths]
        check_alike(files)
        if p.shuffle and max(f.rows for f in files) > _MAX_SHUFFLED_ROWS:
            raise self.error(
                f"at most {_MAX_SHUFFLED_ROWS} rows a file with shuffle",
                max(f.rows for f in files), "Split the file, or leave out shuffle.",
            )  # fmt: skip
        for blob, shape in zip(top, files[0].shapes):
            blob.reshape(*check_shape((p.batch_size, *shape[1:]), self._where()))
        source = _Source(files, p.batch_size, p.shuffle, self.context.random, self.name)
        self.prefetch(lambda: source.load)


def read_file_list(path, where):
    """The paths in a list file, separated by white space as in Caffe."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            paths = f.read().split()
    except (OSError, ValueError) as e:
        found = getattr(e, "strerror", None) or str(e)
        raise DataError(f"{where}: source {path!r}", "a list of HDF5 files", found) from None
    if not paths:
        raise DataError(f"{where}: source {path!r}", "at least one HDF5 file", "none")
    return paths


class _File:
    """The datasets of one file. `shapes` are theirs, `rows` is the first dimension of all."""

    def __init__(self, path, names, where):
        self.path, self.names, self.where = path, names, where
        self.shapes = self._with_file(self._read_shapes)
        self.rows = self.shapes[0][0]

    def _with_file(self, action):
        import h5py

        try:
            with h5py.File(self.path, "r") as f:
                return action(f)
        except OSError as e:
            raise DataError(
                f"{self.where}: {self.path}", "a readable HDF5 file", str(e),
                "The lines of the source name files relative to the working directory, or to the "
                "net's folder or one above it.",
            ) from None  # fmt: skip

    def _read_shapes(self, f):
        import h5py

        shapes = []
        for name in self.names:
            where = f"{self.where}: {self.path}"
            if not isinstance(f.get(name), h5py.Dataset):
                raise DataError(
                    where, f"a dataset {name!r} (the tops name the datasets)",
                    f"only {', '.join(sorted(f)) or 'nothing'}",
                )  # fmt: skip
            if f[name].dtype.kind not in "fiu":
                raise DataError(where, f"numbers in dataset {name!r}", f[name].dtype)
            if not f[name].shape or f[name].shape[0] == 0:
                raise DataError(where, f"rows in dataset {name!r}", f"shape {f[name].shape}")
            shapes.append(f[name].shape)
        if len({shape[0] for shape in shapes}) > 1:
            found = ", ".join(f"{n} {s}" for n, s in zip(self.names, shapes))
            raise DataError(where, "datasets with the same number of rows", found)
        return shapes

    def read(self, rows):
        """The given rows of all datasets, float32. `rows` are increasing."""
        # Neighbouring rows as a slice: h5py is slow with lists of indices.
        if rows[-1] - rows[0] == len(rows) - 1:
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        return self._with_file(
            lambda f: [np.asarray(f[name][rows], np.float32) for name in self.names]
        )

    def read_whole(self):
        """All rows of all datasets, float32; None if that is too much."""
        sizes = [4 * np.prod(shape, dtype=object) for shape in self.shapes]
        return None if sum(sizes) > _MAX_CACHED_BYTES else self.read(range(self.rows))


def check_alike(files):
    """Raise DataError unless all files have rows of the same shapes."""
    first = files[0]
    for f in files[1:]:
        for name, expected, found in zip(f.names, first.shapes, f.shapes):
            if expected[1:] != found[1:]:
                raise DataError(
                    f"{f.where}: {f.path}",
                    f"rows of dataset {name!r} of shape {expected[1:]} as in {first.path}",
                    found[1:],
                )  # fmt: skip


class _Source:
    """What batch number k holds: a pure function of the files, the seed, the name and k."""

    def __init__(self, files, batch_size, shuffle, random, name):
        self.files, self.batch_size, self.shuffle = files, batch_size, shuffle
        self.random, self.name = random, name
        self.epoch_rows = sum(f.rows for f in files)
        self.layout = functools.lru_cache(2)(self._layout)
        self.row_order = functools.lru_cache(2)(self._row_order)
        self.whole = functools.lru_cache(1)(lambda number: files[number].read_whole())

    def load(self, k):
        """Batch number k, one array a dataset."""
        shapes = self.files[0].shapes
        batch = [np.empty((self.batch_size, *shape[1:]), np.float32) for shape in shapes]
        done = 0
        while done < self.batch_size:
            number, rows = self._run(k * self.batch_size + done, self.batch_size - done)
            for out, values in zip(batch, self._rows(number, rows)):
                out[done : done + len(rows)] = values
            done += len(rows)
        return batch

    def _run(self, index, most):
        """The file of row `index` of the endless sequence, and at most `most` rows from there."""
        epoch, row = divmod(index, self.epoch_rows)
        order, starts = self.layout(epoch, self.random.seed)
        place = bisect.bisect_right(starts, row) - 1
        first = row - starts[place]
        rows = np.arange(first, min(first + most, self.files[order[place]].rows))
        if self.shuffle:
            rows = self.row_order(epoch, order[place], self.random.seed)[rows]
        return order[place], rows

    # The seed is an argument for the cache's sake: a restored solver changes it.

    def _layout(self, epoch, seed):
        """The order of the files in an epoch, and the row at which each of them starts."""
        order = range(len(self.files))
        if self.shuffle:
            rng = self.random.generator("data", self.name, "files", epoch)
            order = rng.permutation(len(self.files)).tolist()
        counts = [self.files[number].rows for number in order]
        return order, list(itertools.accumulate(counts[:-1], initial=0))

    def _row_order(self, epoch, number, seed):
        rng = self.random.generator("data", self.name, "rows", epoch, number)
        return rng.permutation(self.files[number].rows)

    def _rows(self, number, rows):
        whole = self.whole(number)
        if whole is not None:
            return [values[rows] for values in whole]
        places = np.argsort(rows)
        back = np.argsort(places)
        return [values[back] for values in self.files[number].read(rows[places])]
