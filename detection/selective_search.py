"""Selective search: region proposals without a network, computed once for each data set.

Uijlings et al., "Selective search for object recognition", IJCV 2013, which Fast R-CNN begins with.
"""

import hashlib
import logging
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..engine.cores import thread_limit, usable_cores
from ..engine.errors import DataError
from .proposals import load_proposals, save_proposals

log = logging.getLogger("demitasse.detection")

_SIDE = 500  # pixels of the longer side that larger images are scaled to, as those of VOC have
_MIN_SIDE = 2  # of a proposal, x2 - x1: py-faster-rcnn's limit
_SAVE_SECONDS = 60.0  # between savings of what has been computed so far


def selective_search(image):
    """The proposals in an image (H, W, 3) BGR uint8: (R, 4) float32, each once, sorted.

    NOTE: the authors' program is in MATLAB; this is the fast mode of OpenCV's implementation, whose
    regions are similar, not the same. Its order of them is random, and so not kept.
    """
    from ..engine.opencv import cv2

    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image))
    search.switchToSelectiveSearchFast()
    x, y, w, h = np.reshape(search.process(), (-1, 4)).T
    # From edges to pixels, both ends included: scaled first, because edges scale, pixels do not.
    edges = np.round(np.stack([x, y, x + w, y + h], axis=1) / scale)
    boxes = np.minimum(edges, (width, height, width, height)) - (0, 0, 1, 1)
    return usable_boxes(np.unique(boxes, axis=0)).astype(np.float32)


def usable_boxes(boxes):
    """The boxes (R, 4) that are at least _MIN_SIDE from end to end both ways."""
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= _MIN_SIDE).all(axis=1)]


def selective_search_proposals(dataset, data_dir="data", threads=None):
    """Proposals for all images of a data set, {record name: (R, 4) float32}.

    They are read from `data_dir`/selective_search_data/<data set>.mat, which Fast R-CNN offers for
    PASCAL VOC, if it is there; else computed, about a second an image, and kept in
    `data_dir`/cache, so that a run that was stopped continues. An image that cannot be read is
    named in the log and has none.

    Args: threads: how many compute; by default OMP_NUM_THREADS, or the cores that may be used.

    Raises: DataError if a file is broken or belongs to another data set.
    """
    data_dir = os.path.expanduser(data_dir)
    files = [
        os.path.join(data_dir, "selective_search_data", f"{part}.mat")
        for part in dataset.name.split("+")
    ]
    if all(map(os.path.isfile, files)):
        return read_mat_proposals(files, dataset)
    path = cache_path(dataset, data_dir)
    found = load_proposals(path) if os.path.exists(path) else {}
    missing = [record for record in dataset.records if record.name not in found]
    if missing:
        _search_all(missing, found, path, threads or thread_limit() or usable_cores())
    return {r.name: found.get(r.name, np.zeros((0, 4), np.float32)) for r in dataset.records}


def cache_path(dataset, data_dir):
    """Where computed proposals are kept: a name for these very images."""
    key = hashlib.blake2b(digest_size=8)
    for r in dataset.records:
        size = os.path.getsize(r.path) if r.path and os.path.exists(r.path) else None
        key.update(repr((r.name, r.width, r.height, size)).encode())
    name = re.sub(r"[^\w.+-]+", "_", dataset.name)[-80:]
    return os.path.join(data_dir, "cache", f"{name}_selective_search_{key.hexdigest()}.npz")


def _search_all(records, found, path, threads):
    """Add the proposals of `records` to `found`, and save it to `path` every now and then."""
    log.info("selective search in %d images; they are kept in %s", len(records), path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    saved = time.monotonic()
    # Threads, not processes: OpenCV lets others run meanwhile.
    with ThreadPoolExecutor(threads) as pool:
        try:
            for k, (record, boxes) in enumerate(zip(records, pool.map(_search, records)), 1):
                if boxes is not None:
                    found[record.name] = boxes
                if time.monotonic() - saved > _SAVE_SECONDS:
                    save_proposals(path, found)
                    saved = time.monotonic()
                    log.info("selective search: %d of %d images", k, len(records))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            save_proposals(path, found)


def _search(record):
    try:
        return selective_search(record.read())
    except DataError as e:
        log.warning("image %r has no proposals: %s", record.name, e)
        return None


# ---- py-faster-rcnn's files


def read_mat_proposals(paths, dataset):
    """Proposals of a data set from the .mat files of its parts: {record name: (R, 4) float32}.

    A file has `boxes`, a cell for each image with rows y1, x1, y2, x2 that count from 1, and maybe
    `images`, their names; without names they are in the order of the data set.

    Raises: DataError, which names the files, if one is broken or does not fit the data set.
    """
    names, tables = [], []
    for path in paths:
        found_names, found_tables = _read_mat(path)
        names += found_names
        tables += found_tables
    records = [record.name for record in dataset.records]
    if not names and len(tables) == len(records):
        names = records
    found = dict(zip(names, tables))
    lacking = [name for name in records if name not in found]
    if lacking or len(names) != len(tables):
        raise DataError(
            " and ".join(paths), f"boxes of {len(records)} images of data set {dataset.name!r}",
            f"{len(tables)}" + (f", none of {lacking[0]!r}" if names else " without names"),
            "Remove the file to have the proposals computed.",
        )  # fmt: skip
    return {name: found[name] for name in records}


def _read_mat(path):
    """Names ([] if the file has none) and boxes of a .mat file."""
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
        cells, names = content["boxes"].ravel(), content.get("images", np.array([])).ravel()
        tables = [_from_matlab(table) for table in cells]
        return [str(np.ravel(name)[0]) for name in names], tables
    except Exception as e:  # a broken file can raise nearly anything
        raise DataError(path, "a MATLAB file (v5 to v7) with a cell array 'boxes'",
                        str(e) or type(e).__name__) from None  # fmt: skip


def _from_matlab(table):
    boxes = np.asarray(table, np.float32).reshape(-1, 4)[:, (1, 0, 3, 2)] - 1
    # Each box once, where it first stands.
    boxes = boxes[np.sort(np.unique(boxes, axis=0, return_index=True)[1])]
    return usable_boxes(boxes)
