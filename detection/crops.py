"""Mosaics of crops of objects and of background: what `pretrain` learns from."""

import numpy as np

from ..engine.errors import DataError
from ..engine.random import RandomStream
from .roidb import make_roidb

_MARGIN = (0.8, 1.4)  # a crop's side by the object's longer side
_SHIFT = 0.12  # of the crop's side, at most, in each direction
_LEAST_OVERLAP = 0.4  # of an object and its crop, for the crop to say where the object is
_DEVIATIONS = 0.1, 0.1, 0.2, 0.2  # by which places are divided, as py-faster-rcnn's
_MAX_ZOOM = 1.5  # of a crop, up or down
_BACKGROUNDS = 1  # an image
_MAX_COVERED = 0.1  # of a background crop, by any one object
_TRIES = 20
_PATIENCE = 1000  # images without a crop in a row, before giving up


class CropBatches:
    """Batches of mosaics; number k is a pure function of the seed and k.

    A mosaic is a square image that is put together from crops of one size. What a convolution sees
    around an object is thus as cluttered as in a whole image, and not the zeros of padding, by
    which features of small images would go.

    Args:
        dataset: a Dataset. cfg: its PRETRAIN and PIXEL_MEANS count.
        stride: of the features that regions are pooled from, in pixels.
    """

    def __init__(self, dataset, cfg, seed, stride=16):
        self._entries = make_roidb(dataset, flipped=False)
        if not any(len(entry.boxes) for entry in self._entries):
            raise DataError(f"data set {dataset.name}", "objects to crop", "none")
        self._settings = cfg.PRETRAIN
        self._means = np.ravel(cfg.PIXEL_MEANS).astype(np.float32)
        self._stream = RandomStream(seed)
        # RoI pooling rounds: half a stride less keeps it out of the next crop's features.
        self._inset = 1 + stride // 2

    def load(self, k):
        """Batch number k.

        Returns:
            mosaics (N, 3, side, side) float32, means subtracted; the crops' places in them (R, 5):
            number of the mosaic, x1, y1, x2, y2; the crops' labels (R,); where in its crop the
            object is (R, 4), see `place_in`; and 1 where that is to be learned, else 0, (R, 4).
        """
        settings = self._settings
        size = settings.CROP_SIZES[k % len(settings.CROP_SIZES)]
        a_row = max(1, settings.MOSAIC_SIZE // size)
        count = settings.BATCH_SIZE * a_row**2
        mosaics = np.empty((settings.BATCH_SIZE, 3, a_row * size, a_row * size), np.float32)
        places, labels = np.empty((count, 5), np.float32), np.empty(count, np.float32)
        boxes, weights = np.empty((count, 4), np.float32), np.empty((count, 4), np.float32)
        crops = self._endless(size, self._stream.generator("crops", k))
        for i, (crop, label, box) in zip(range(count), crops):
            n, cell = divmod(i, a_row**2)
            y, x = (size * v for v in divmod(cell, a_row))
            mosaics[n, :, y : y + size, x : x + size] = crop.transpose(2, 0, 1)
            places[i] = n, x, y, x + size - self._inset, y + size - self._inset
            labels[i] = label
            weights[i] = box is not None
            boxes[i] = 0 if box is None else box
        return [mosaics, places, labels, boxes, weights]

    def _endless(self, size, rng):
        """What `_crops` gives, without end, of images drawn by lot."""
        fruitless = 0
        while fruitless < _PATIENCE:
            entry = self._entries[rng.integers(len(self._entries))]
            found = list(self._crops(entry, size, rng))
            yield from found
            fruitless = 0 if found else fruitless + 1
        raise DataError("pretraining", "images to crop from", "none that can be read")

    def _crops(self, entry, size, rng):
        """(crop (size, size, 3), label, place or None) of each object of an image, and of some
        background."""
        try:
            image = entry.record.read()
        except DataError:
            return  # the training that follows names such files
        objects = zip(entry.boxes, entry.labels)
        windows = [(*window_around(box, size, rng), label, box) for box, label in objects]
        for _ in range(_BACKGROUNDS):
            window = background_window(image.shape, entry.boxes, size, rng)
            if window is not None:
                windows.append((*window, 0, None))
        for x, y, side, label, box in windows:
            crop, turn = cut(image, x, y, side, size) - self._means, rng.choice((-1, 1))
            place = None if box is None else place_in(x, y, side, box)
            yield crop[:, ::turn], label, None if place is None else place * (turn, 1, 1, 1)


def window_around(box, size, rng):
    """The centre (x, y) and side of a square around a box, or inside a large one.

    It is about as large as the box, but not so much smaller or larger than `size`, which it will be
    resized to, that textures would look different from those in an image.
    """
    longer = max(box[2] - box[0] + 1, box[3] - box[1] + 1) * rng.uniform(*_MARGIN)
    side = np.clip(longer, size / _MAX_ZOOM, size * _MAX_ZOOM)
    shift = max(_SHIFT * side, (longer - side) / 3)
    return *((box[:2] + box[2:]) / 2 + rng.uniform(-shift, shift, 2)), side


def place_in(x, y, side, box):
    """The offsets (4,) from a square to a box, as of bounding-box regression, in units of
    `_DEVIATIONS`; None if they hardly overlap."""
    half, size = side / 2, box[2:] - box[:2] + 1
    shared = np.minimum(box[2:] + 1, (x + half, y + half)) - np.maximum(
        box[:2], (x - half, y - half)
    )
    both = shared.clip(0).prod()
    if both < _LEAST_OVERLAP * (side**2 + size.prod() - both):
        return None
    offsets = (box[:2] + size / 2 - (x, y)) / side
    return np.concatenate([offsets, np.log(size / side)]) / _DEVIATIONS


def background_window(shape, boxes, size, rng):
    """The centre and side of a square that objects hardly cover, or None if none is found."""
    height, width = shape[:2]
    shorter = min(height, width)
    for _ in range(_TRIES):
        side = min(size * rng.uniform(1 / _MAX_ZOOM, _MAX_ZOOM), shorter)
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
    from ..engine.opencv import cv2

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
