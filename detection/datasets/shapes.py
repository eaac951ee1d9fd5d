"""A detection data set that is drawn: six shapes, textured, on textured and cluttered backgrounds.

It needs no download, and every image is a pure function of its split and index. A class has an
outline, a pattern (discs have stripes), and a direction in which the two colours of the pattern
differ. A colour says nothing about the class, since the mean of the two is any; and neither a
pattern nor a difference alone says that there is an object, because backgrounds and clutter have
the same ones.
"""

import functools
from dataclasses import dataclass

import numpy as np

from ...engine.errors import DataError, closest
from ...engine.random import RandomStream
from .record import Dataset, Record

CLASSES = ("__background__", "disc", "square", "triangle", "star", "ring", "cross")
COUNTS = {"train": 300, "val": 60, "trainval": 360, "test": 200}
"""Images in each split unless a count is given."""
MIN_SIDE, MAX_SIDE = 16, 160
"""Limits of the longer side of a box, in pixels."""
MIN_VISIBLE = 0.7
"""Every object keeps at least this part of its pixels inside the image and uncovered."""

_STREAM = RandomStream(20150604)
_MAX_OBJECTS = 6
_MAX_COVERING = 0.4  # part of an object that may lie on others: none looks like a part of one
_WIDTHS, _HEIGHTS = (256, 320), (192, 240)
_TRIES = 12
_FIXED_POINT = 4  # fractional bits of the coordinates given to cv2.fillPoly


def make_shapes(split="train", count=None):
    """The Dataset "shapes_<split>", or the first `count` images of that split.

    Splits are train, val and test, which share no image, and trainval, whose images are those of
    train and val, five to one.

    Raises: DataError for an unknown split or a count below 1.
    """
    if split not in COUNTS:
        hint = closest(split, COUNTS)
        raise DataError("data set shapes", f"a split of {', '.join(COUNTS)}", repr(split), hint)
    name = f"shapes_{split}" if count is None else f"shapes_{split}:{count}"
    count = COUNTS[split] if count is None else count
    if count < 1:
        raise DataError(f"data set shapes_{split}", "at least 1 image", count)
    parts = {split: count}
    if split == "trainval":
        parts = {"train": count - count // 6, "val": count // 6}
    records = [make_record(part, i) for part, n in parts.items() for i in range(n)]
    return Dataset(name, CLASSES, records)


def make_record(split, index):
    """The Record of one image. Only its geometry is worked out; `read()` draws the rest."""
    scene = make_scene(split, index)
    boxes = np.array([shape.box(scene.width, scene.height) for shape in scene.shapes], np.float32)
    return Record(
        name=f"shapes_{split}_{index:06d}", width=scene.width, height=scene.height, boxes=boxes,
        labels=[shape.label for shape in scene.shapes],
        draw=functools.partial(draw_image, split, index),
    )  # fmt: skip


def draw_image(split, index):
    """The image (height, width, 3), BGR uint8."""
    from .shapes_drawing import draw_scene

    return draw_scene(make_scene(split, index), _STREAM.generator("drawing", split, index))


# ---- geometry


@dataclass(frozen=True)
class Shape:
    """One object: its class, its mask (h, w) of 0 and 1 without empty margins, and the image
    coordinates (x, y) of the mask's top left pixel, which may lie outside the image."""

    label: int
    mask: np.ndarray
    x: int
    y: int

    def box(self, width, height):
        """x1, y1, x2, y2 of the pixels of the mask that lie inside the image."""
        image, inside = self.slices(width, height)
        rows, columns = (np.flatnonzero(self.mask[inside].any(axis)) for axis in (1, 0))
        top, left = image[0].start, image[1].start
        return left + columns[0], top + rows[0], left + columns[-1], top + rows[-1]

    def slices(self, width, height):
        """Where the mask lies in an image, and which part of the mask that is, as (rows,
        columns) to index both with."""
        h, w = self.mask.shape
        top, bottom = max(self.y, 0), min(self.y + h, height)
        left, right = max(self.x, 0), min(self.x + w, width)
        image = slice(top, bottom), slice(left, right)
        return image, (slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x))


@dataclass(frozen=True)
class Scene:
    """The geometry of an image: later shapes lie on top of earlier ones."""

    width: int
    height: int
    shapes: tuple

    def owners(self):
        """(height, width) uint8: the number of the visible shape from 1, or 0 for background."""
        owners = np.zeros((self.height, self.width), np.uint8)
        for number, shape in enumerate(self.shapes, 1):
            _stamp(owners, shape, number)
        return owners


def make_scene(split, index):
    """The Scene of an image: 1 to 6 shapes, as many of those drawn by lot as find a place."""
    rng = _STREAM.generator("geometry", split, index)
    width, height = (int(rng.integers(low, high + 1)) for low, high in (_WIDTHS, _HEIGHTS))
    builder = _Builder(width, height)
    sides = rng.integers(MIN_SIDE, MAX_SIDE + 1, rng.integers(1, _MAX_OBJECTS + 1))
    # Large ones first find a place more often; the random factor lets some cover smaller ones.
    for side in sides[np.argsort(-sides * rng.uniform(0.5, 1.5, len(sides)))]:
        label = int(rng.integers(1, len(CLASSES)))
        mask = make_mask(label, int(side), rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.0))
        builder.place(label, mask, rng)
    return Scene(width, height, tuple(builder.shapes))


class _Builder:
    """Finds places for shapes so that all of them stay visible."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.shapes = []
        self.owners = np.zeros((height, width), np.uint8)
        self.pixels = [0]  # of the whole shapes, by number; 0 is the background
        self.visible = [0]

    def place(self, label, mask, rng):
        """Add a shape at the first of some random places that will do; none may."""
        h, w = mask.shape
        # Small shapes lie inside the image, large ones may lose an eighth of their side.
        margin = (max(h, w) - MIN_SIDE) // 8
        for attempt in range(_TRIES):
            if attempt == _TRIES // 2:
                margin = 0  # the first shape finds its place here at the latest
            x = int(rng.integers(-margin, self.width - w + margin + 1))
            y = int(rng.integers(-margin, self.height - h + margin + 1))
            if self._add(Shape(label, mask, x, y)):
                return

    def _add(self, shape):
        image, inside = shape.slices(self.width, self.height)
        under = self.owners[image][shape.mask[inside] != 0]
        covered = np.bincount(under, minlength=len(self.pixels))
        covered[0] = 0
        pixels = np.count_nonzero(shape.mask)
        left = np.array([*(self.visible - covered), len(under)])
        if (left < MIN_VISIBLE * np.array([*self.pixels, pixels])).any():
            return False
        if covered.sum() > _MAX_COVERING * pixels:
            return False
        self.shapes.append(shape)
        self.pixels.append(pixels)
        self.visible = left
        _stamp(self.owners, shape, len(self.shapes))
        return True


def _stamp(owners, shape, number):
    image, inside = shape.slices(owners.shape[1], owners.shape[0])
    np.copyto(owners[image], number, where=shape.mask[inside] != 0)


def make_mask(label, side, angle, stretch):
    """The mask of a shape, as small as holds it, its longer side `side` pixels.

    Args: `angle` in radians, and `stretch`, the shape's width by its height before it is turned.
    """
    from ...engine.opencv import cv2

    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c * stretch, s * stretch], [-s, c]])
    contours = [contour @ turn for contour in _outline(label)]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    unit = (side - 1) / (high - low).max()
    width, height = (int(v) + 1 for v in np.rint((high - low) * unit))
    mask = np.zeros((height, width), np.uint8)
    points = [np.rint((p - low) * (unit * (1 << _FIXED_POINT))).astype(np.int32) for p in contours]
    cv2.fillPoly(mask, points, 1, lineType=cv2.LINE_8, shift=_FIXED_POINT)
    x, y, w, h = cv2.boundingRect(mask)
    return mask[y : y + h, x : x + w]


@functools.cache
def _outline(label):
    """Contours (N, 2) of a shape, the outer one first, filled by the even-odd rule."""
    name = CLASSES[label]
    if name == "cross":
        a = 0.32  # half the width of an arm
        return [
            np.array(
                [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a),
                 (-1, a), (-1, -a), (-a, -a)],
                float,
            )
        ]  # fmt: skip
    if name == "star":
        return [_polygon(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]]
    if name == "ring":
        return [_polygon(64), 0.55 * _polygon(64)]
    return [_polygon({"disc": 64, "square": 4, "triangle": 3}[name])]


def _polygon(corners):
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
