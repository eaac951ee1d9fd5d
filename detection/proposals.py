"""Region proposals of a whole data set in one file: {record name: (R, 5)}."""

import zipfile
import zlib

import numpy as np

from ..engine.errors import DataError
from ..engine.files import atomic_write, open_file

_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, OverflowError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy raises for an archive that is broken."""


def save_proposals(path, proposals):
    """Write {record name: array (R, 5)} of x1, y1, x2, y2, score, best first.

    The file is NumPy's .npz: `names` (N,), `counts` (N,), and all `boxes` (sum of counts, 5)
    float32 one after another. (R, 4), without scores, will do if all are so. It appears under its
    name, which gets no extension added, only when it is complete.

    Raises: DataError if an array has another shape, or is not finite; ModelFileError if the file
    cannot be written.
    """
    tables = {name: np.asarray(boxes, np.float32) for name, boxes in proposals.items()}
    columns = {table.shape[1] if table.ndim == 2 else 0 for table in tables.values()} or {5}
    if len(columns) > 1 or not columns <= {4, 5}:
        raise DataError(path, "proposals (R, 5) for all images", f"{sorted(columns)} columns")
    boxes = np.concatenate([*tables.values(), np.zeros((0, *columns), np.float32)])
    if not np.isfinite(boxes).all():
        raise DataError(path, "finite proposals", "NaN or infinity")
    counts = np.array([len(table) for table in tables.values()], np.int64)
    with atomic_write(path) as file:
        np.savez(file, names=np.array(list(tables), np.str_), counts=counts, boxes=boxes)


def load_proposals(path):
    """Read what `save_proposals` wrote: {record name: (R, 5) or (R, 4) float32}.

    Raises: DataError, which names the file, if it is broken or of another form; ModelFileError if
    it cannot be opened.
    """
    names, counts, boxes = _read(path)
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        raise DataError(path, "'names', each once", f"{names.dtype} of shape {names.shape}")
    if counts.shape != names.shape or counts.dtype.kind != "i" or (counts < 0).any():
        raise DataError(path, f"{len(names)} 'counts'", f"{counts.dtype} of shape {counts.shape}")
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5) or boxes.dtype != np.float32:
        found = f"{boxes.dtype} of shape {boxes.shape}"
        raise DataError(path, "'boxes' (R, 5) float32", found)
    # Python's integers, because the sum of bad ones might overflow.
    if sum(counts.tolist()) != len(boxes):
        raise DataError(path, f"{sum(counts.tolist())} boxes as the counts say", len(boxes))
    if not np.isfinite(boxes).all():
        raise DataError(path, "finite boxes", "NaN or infinity")
    parts = np.split(boxes, np.cumsum(counts)[:-1]) if len(counts) else []
    return dict(zip(names.tolist(), parts))


def _read(path):
    expected = "a .npz file of names, counts and boxes"
    with open_file(path, expected) as file:
        try:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(path, expected, "a file of one array")
            with archive:
                return archive["names"], archive["counts"], archive["boxes"]
        except DataError:
            raise
        except _UNREADABLE as error:
            found = str(error) or type(error).__name__
            raise DataError(path, expected, found) from None
