"""What a data set is: records of images and their objects, and the problems found on loading."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...engine.errors import DataError
from .image_files import read_image

BACKGROUND = "__background__"


def new_digest():
    """A hash object for what tells a run's files and data apart: 8 bytes."""
    return hashlib.blake2b(digest_size=8)


@dataclass(frozen=True)
class Problem:
    """Something bad in a data set's files: an annotation clipped or left out, an image missing.

    `file` is the path of the file that it is in; `box` which object of the file, counted from 1 as
    it stands there (COCO: the annotation's id), or None for the file as a whole; `reason` what is
    wrong and what became of it.
    """

    file: str
    box: int | None
    reason: str

    def __str__(self):
        place = self.file if self.box is None else f"{self.file}, object {self.box}"
        return f"{place}: {self.reason}"


@dataclass(frozen=True, eq=False, slots=True)
class Record:
    """One image and its objects.

    `name` is unique in its data set (VOC: the name of the image in ImageSets; COCO: the file name
    without extension). `width` and `height` are in pixels. Of the G objects, `boxes` (G, 4) float32
    are xyxy, 0-based, inclusive, inside of the image; `labels` (G,) int64 count from 1; `difficult`
    and `crowd` (G,) bool are objects that evaluation ignores. The pixels come from the file
    `path` or from the function `draw() -> (height, width, 3) BGR uint8`.

    `image_id` and `areas` (G,), in square pixels, are what COCO's evaluation wants; None for data
    sets that do not have them.
    """

    name: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray | None = None
    crowd: np.ndarray | None = None
    path: str | None = None
    draw: Callable[[], np.ndarray] | None = None
    image_id: int | None = None
    areas: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.labels)
        self._set("boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        self._set("labels", np.asarray(self.labels, np.int64))
        for name in ("difficult", "crowd"):
            flags = getattr(self, name)
            self._set(name, np.zeros(count, bool) if flags is None else np.asarray(flags, bool))
        if self.areas is not None:
            self._set("areas", np.asarray(self.areas, np.float64))
        arrays = [self.boxes, self.labels, self.difficult, self.crowd, self.areas]
        lengths = [len(a) for a in arrays if a is not None]
        if any(length != count for length in lengths):
            expected = "as many boxes, labels, flags and areas"
            raise DataError(f"record {self.name!r}", expected, f"{lengths}")
        if (self.path is None) == (self.draw is None):
            found = "neither" if self.path is None else "both"
            raise DataError(f"record {self.name!r}", "a path or a function that draws", found)

    def _set(self, name, value):
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def read(self):
        """The image, (height, width, 3) BGR uint8.

        Raises: DataError, which names the file, if it is missing, corrupt or of another size.
        """
        if self.draw is not None:
            return self.draw()
        return read_image(self.path, (self.width, self.height))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A list of records and the names of their classes; class 0 is the background.

    `problems` has everything that was wrong in the files; what is in `records` is sound.
    `category_ids` gives COCO's category id of each label (None for label 0).
    """

    name: str
    classes: tuple[str, ...]
    records: list[Record]
    problems: list[Problem] = field(default_factory=list)
    category_ids: tuple[int | None, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes or self.classes[0] != BACKGROUND:
            raise DataError(f"data set {self.name}", f"{BACKGROUND} as class 0", f"{self.classes}")

    def __len__(self):
        return len(self.records)

    def digest(self):
        """What the records are told apart by, as text: names, sizes, and objects, not pixels."""
        found = new_digest()
        for r in self.records:
            found.update(repr((r.name, r.width, r.height, len(r.labels))).encode())
            for values in (r.boxes, r.labels, r.difficult, r.crowd):
                found.update(values.tobytes())
        return found.hexdigest()
