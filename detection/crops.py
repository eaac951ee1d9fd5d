"""Crops of objects and of background, with labels: what `pretrain` learns from."""

import numpy as np

from ..engine.errors import DataError
from ..engine.random import RandomStream
from .roidb import make_roidb

_MARGIN = (1.0, 1.2)  # a crop's side by the object's longer side
_SHIFT = 0.04  # of the crop's side, at most, in each direction
_BACKGROUNDS = 1  # an image
_MAX_COVERED = 0.1  # of a background crop, by any one object
_TRIES = 20
_PASSES = 50  # over images without finding a crop, before giving up


class CropBatches:
    """Batches of crops; number k is a pure function of the seed and k.

    Args: dataset: a Dataset. cfg: its PRETRAIN and PIXEL_MEANS count.
    """

    def __init__(self, dataset, cfg, seed):
        self._entries = make_roidb(dataset, flipped=False)
        if not any(len(entry.boxes) for entry in self._entries):
            raise DataError(f"data set {dataset.name}", "objects to crop", "none")
        self._settings = cfg.PRETRAIN
        self._means = np.ravel(cfg.PIXEL_MEANS).astype(np.float32)
        self._stream = RandomStream(seed)

    def load(self, k):
        """Batch number k: crops (N, 3, size, size) float32, means subtracted, and labels (N,)."""
        sizes = self._settings.CROP_SIZES
        size = sizes[k % len(sizes)]
        count = max(1, self._settings.BATCH_SIZE * sizes[0] ** 2 // size**2)
        rng = self._stream.generator("crops", k)
        crops, labels = np.empty((count, 3, size, size), np.float32), np.empty(count, np.float32)
        found = tries = 0
        while found < count:
            tries += 1
            if tries > _PASSES * count:
                raise DataError("pretraining", "images to crop from", "none that can be read")
            entry = self._entries[rng.integers(len(self._entries))]
            for crop, label in self._crops(entry, size, rng):
                if found < count:
                    crops[found], labels[found] = crop.transpose(2, 0, 1), label
                    found += 1
        return [crops, labels]

    def _crops(self, entry, size, rng):
        """(crop (size, size, 3), label) of each object of an image, and of some background."""
        try:
            image = entry.record.read()
        except DataError:
            return  # the training that follows names such files
        objects = zip(entry.boxes, entry.labels)
        windows = [(*window_around(box, rng), label) for box, label in objects]
        for _ in range(_BACKGROUNDS):
            window = background_window(image.shape, entry.boxes, rng)
            if window is not None:
                windows.append((*window, 0))
        for x, y, side, label in windows:
            crop = cut(image, x, y, side, size) - self._means
            yield crop[:, :: rng.choice((-1, 1))], label


def window_around(box, rng):
    """The centre (x, y) and side of a square around a box, its place and size varied a little."""
    side = max(box[2] - box[0] + 1, box[3] - box[1] + 1) * rng.uniform(*_MARGIN)
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-_SHIFT, _SHIFT, 2) * side
    return *centre, side


def background_window(shape, boxes, rng):
    """The centre and side of a square that objects hardly cover, or None if none is found."""
    height, width = shape[:2]
    shorter = min(height, width)
    for _ in range(_TRIES):
        side = rng.uniform(min(16, shorter / 2), shorter / 2)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        shared = np.minimum(boxes[:, 2:] + 1, (x + side, y + side)) - np.maximum(
            boxes[:, :2], (x, y)
        )
        if (shared.clip(0).prod(axis=1) <= _MAX_COVERED * side**2).all():
            return x + side / 2, y + side / 2, side
    return None


def cut(image, x, y, side, size):
    """The square of `side` pixels around (x, y), resized to (size, size, 3) float32.

    Beyond the image its border is mirrored.
    """
    import cv2

    factor = size / side
    matrix = np.array(
        [[factor, 0, size / 2 - factor * x], [0, factor, size / 2 - factor * y]], np.float32
    )
    if factor < 0.5:  # as a mean of pixels, which interpolation between four of them is not
        image = cv2.blur(image, (round(0.5 / factor),) * 2)
    cropped = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return cropped.astype(np.float32)
