"""Small images with known objects, for tests of what is trained on."""

import dataclasses

import numpy as np

from demitasse.detection.config import Config
from demitasse.detection.datasets.record import BACKGROUND, Dataset, Record

CLASSES = (BACKGROUND, "a", "b", "c")


def pixels(height, width, seed):
    """A random image, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_record(k, size=(30, 40), boxes=((2, 3, 20, 25),), labels=(1,), **more):
    """Record number k, (height, width) = size."""
    height, width = size
    if "path" not in more:
        more.setdefault("draw", lambda: pixels(height, width, k))
    boxes = np.reshape(np.array(boxes, np.float32), (-1, 4))
    return Record(f"image{k}", width, height, boxes, labels, **more)


def make_dataset(*records, name="drawn"):
    """A Dataset of three classes."""
    return Dataset(name, CLASSES, list(records))


def make_cfg(means=(1.0, 2.0, 3.0), **train):
    """A Config with these TRAIN settings: unless they say otherwise, one image a batch, of which
    each keeps its size."""
    train = {"SCALES": (30,), "MAX_SIZE": 1000, "IMS_PER_BATCH": 1, **train}
    return Config(TRAIN=dataclasses.replace(Config().TRAIN, **train), PIXEL_MEANS=((means,),))


def random_boxes(rng, count, width, height):
    """Boxes (count, 4) of whole pixels inside an image."""
    x = np.sort(rng.integers(0, width, (count, 2)), axis=1)
    y = np.sort(rng.integers(0, height, (count, 2)), axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
