"""What loaders of annotations share: boxes that fit their image, sizes, seeded splits."""

import hashlib
import math
import os

from ...engine.errors import DataError
from .image_files import image_size, read_image
from .record import Problem

SPLITS = ("train", "val", "trainval", "test", "all")
"""The splits that a data set without split files is cut into."""

_TEST_PART = _VAL_PART = 0.2


def fit_box(box, width, height, shown):
    """Fit a box (x1, y1, x2, y2), 0-based and inclusive, into an image.

    Returns: the box, clipped to the image, or None if nothing of it is inside; and the reason why
        it is bad, or None if it is not. `shown` is how the reason calls the box. To stick out by
        less than a pixel is a matter of rounding, and not bad.
    """
    if not all(map(math.isfinite, box)):
        return None, f"{shown} is not finite; left out"
    x1, y1, x2, y2 = box
    if x1 > x2 or y1 > y2:
        return None, f"{shown} has no positive width and height; left out"
    right, bottom = width - 1, height - 1
    if x1 >= 0 and y1 >= 0 and x2 <= right and y2 <= bottom:
        return box, None
    excess = max(-x1, -y1, x2 - right, y2 - bottom)
    if x2 <= -1 or y2 <= -1 or x1 >= width or y1 >= height:
        return None, f"{shown} is outside of the image of {width} x {height}; left out"
    reason = f"{shown} sticks out of the image of {width} x {height} by {excess:g}; clipped"
    clipped = (
        min(max(x1, 0), right), min(max(y1, 0), bottom),
        min(max(x2, 0), right), min(max(y2, 0), bottom),
    )  # fmt: skip
    return clipped, reason if excess >= 1 else None


def checked_size(path, annotated):
    """The (width, height) of an image file, and what is wrong with the annotated one, or None.

    `annotated` may have zeros: annotators leave the size out. It counts if the file has the size
    as stored or, for a photograph that EXIF turns, after the turn; otherwise the file does.
    Raises: DataError if the file is missing or no image.
    """
    size = image_size(path)
    if size == tuple(annotated) or min(annotated) <= 0:
        return size, None
    try:
        read_image(path, annotated)
        return tuple(annotated), None
    except DataError:
        found = f"{size[0]} x {size[1]}"
        return size, f"size {annotated[0]} x {annotated[1]}, but its image has {found}; corrected"


def seeded_split(names, split):
    """The sorted names of one of `SPLITS`: train 60 %, val 20 %, test 20 %, trainval and all.

    A pure function of the names. Their order is that of a hash, so that images added later leave
    nearly all others in their split.
    """
    names = sorted(names, key=_hash)
    count = len(names)
    # Small sets: the first image goes to train, the second to test, the third to val.
    test = max(round(_TEST_PART * count), int(count > 1))
    val = max(round(_VAL_PART * count), int(count > 2))
    start, stop = {
        "test": (0, test), "val": (test, test + val), "train": (test + val, count),
        "trainval": (test, count), "all": (0, count),
    }[split]  # fmt: skip
    # Whole numbers come before texts; a COCO file may have both.
    return sorted(names[start:stop], key=lambda name: (isinstance(name, str), name))


def _hash(name):
    # A file name of bytes that are no text has lone surrogates for them.
    return hashlib.blake2b(str(name).encode(errors="surrogatepass")).digest()


def existing_folder(path, where, form):
    """`path` with its "~" expanded if it is a folder, else a DataError; `form` is the name's."""
    folder = os.path.expanduser(path)
    if not path:
        raise DataError(where, f"a folder in its name, {form}", "none")
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(
            where, f"a folder {os.path.abspath(folder)}", f"{found} there",
            f"The form is {form}; a relative path starts from the working directory.",
        )  # fmt: skip
    return folder


def unless_empty(dataset, where):
    """The data set itself; a DataError if not one of its images can be used."""
    if dataset.records:
        return dataset
    found, problems = "none", dataset.problems
    if problems:
        found = f"{len(problems)} problems, the first of them: {problems[0]}"
    raise DataError(f"data set {dataset.name}: {where}", "at least one usable image", found)


def left_out(error, path):
    """The Problem of a file that could not be used because of a DataError."""
    text = str(error).removeprefix(f"{path}: ")
    return Problem(path, None, f"{text} The image is left out.")
