"""Any number of samples through a net of fixed batch size: cutting up, padding, collecting."""

import numpy as np

from demitasse.engine.errors import NetError


def check_rows(arrays, where):
    """Raise NetError unless there are arrays (name -> array), all with the same number of rows."""
    if len({len(array) for array in arrays.values()}) != 1:
        found = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items()) or "none"
        raise NetError(where, "arrays with one row a sample", found)


def cut(arrays, size):
    """Yield the arrays in batches of `size` rows, the last one filled up with zeros.

    Without arrays there are no batches.
    """
    count = len(next(iter(arrays.values()), ()))
    for first in range(0, count, size):
        batch = {name: np.asarray(array[first : first + size]) for name, array in arrays.items()}
        missing = first + size - count
        if missing > 0:
            batch = {
                name: np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
                for name, rows in batch.items()
            }
        yield batch


class Collector(dict):
    """Rows of arrays, batch after batch: name -> list of rows."""

    def add(self, arrays):
        """Append copies of the rows of `arrays`; a single number counts as a row."""
        for name, array in arrays.items():
            self.setdefault(name, []).extend(np.atleast_1d(array).copy())

    def first(self, count):
        """The first `count` rows, as arrays: those after are of the last batch's padding."""
        return {name: np.asarray(rows)[:count] for name, rows in self.items()}
