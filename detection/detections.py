"""Detections of a whole data set: their form in memory, their files.

In memory they are `all_boxes[class][image]`, an array (D, 5) of x1, y1, x2, y2, score for each
class (0, the background, has none) and each record of the data set, in its order. A list that is
empty stands for no boxes.
"""

import json
import os

import numpy as np

from ..boxes.nms import nms
from ..engine.errors import DataError, closest
from ..engine.files import atomic_write, open_file

DETECTIONS_FILE = "detections.json"
"""Name of the file in the folder of a tested net."""

_FORMAT = "demitasse detections 1"


def check_detections(dataset, all_boxes, where="detections"):
    """Raise DataError unless `all_boxes` has an array (D, 5) for each class and record."""
    if len(all_boxes) != len(dataset.classes):
        raise DataError(where, f"a list for each of {len(dataset.classes)} classes", len(all_boxes))
    for name, images in list(zip(dataset.classes, all_boxes))[1:]:
        if len(images) != len(dataset):
            expected = f"boxes for each of {len(dataset)} images of {dataset.name}"
            raise DataError(f"{where}, class {name}", expected, len(images))
        for record, boxes in zip(dataset.records, images):
            shape = np.shape(boxes)
            if shape != (0,) and (len(shape) != 2 or shape[1] != 5):
                place = f"{where}, class {name}, image {record.name}"
                raise DataError(place, "an array of shape (D, 5)", f"shape {shape}")


def join_images(images):
    """The boxes of one class as one array.

    Returns: boxes (N, 4) float64, scores (N,) float64, and the number of the image of each (N,).
    """
    counts = [len(boxes) for boxes in images]
    rows = [np.asarray(boxes, np.float64) for boxes, count in zip(images, counts) if count]
    table = np.concatenate(rows) if rows else np.zeros((0, 5))
    return table[:, :4], table[:, 4], np.repeat(np.arange(len(counts)), counts)


def apply_nms(all_boxes, threshold):
    """A copy of `all_boxes` after non-maximum suppression in each image and class.

    Boxes without extent go, too (as in py-faster-rcnn).
    """
    return [[_suppress(np.asarray(boxes), threshold) for boxes in images] for images in all_boxes]


def _suppress(boxes, threshold):
    if not len(boxes):
        return boxes
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    boxes = boxes.astype(np.float32, copy=False)
    return boxes[nms(boxes, threshold)] if len(boxes) else boxes


# ---- our own file


def save_detections(path, dataset, all_boxes):
    """Write detections as a JSON object: the class names, the image names, and a list with
    [class, image, x1, y1, x2, y2, score] for each box, class and image as numbers of those lists.

    The file appears under its name only when it is complete.
    Raises: DataError if a value is not finite, or `all_boxes` does not fit the data set;
    ModelFileError if the file cannot be written.
    """
    check_detections(dataset, all_boxes)
    rows = []
    for label, images in enumerate(all_boxes[1:], 1):
        for image, boxes in enumerate(images):
            if len(boxes) and not np.isfinite(boxes).all():
                place = f"class {dataset.classes[label]}, image {dataset.records[image].name}"
                raise DataError(f"{path}: {place}", "finite boxes and scores", "NaN or infinity")
            rows += ([label, image, *box] for box in np.asarray(boxes).tolist())
    head = {
        "format": _FORMAT,
        "classes": list(dataset.classes),
        "images": [record.name for record in dataset.records],
        "columns": ["class", "image", "x1", "y1", "x2", "y2", "score"],
    }
    text = json.dumps({**head, "detections": rows}, separators=(",", ":"))
    with atomic_write(path) as file:
        file.write(text.encode())


def load_detections(path, dataset):
    """Read what `save_detections` wrote as the `all_boxes` (float32) of a data set.

    Classes and images are matched by name: the file may have others beside those of the data set.

    Raises: DataError, which names the file, if it is not of that form or lacks a class or image;
    ModelFileError if it cannot be opened.
    """
    content = _read(path)
    classes = _positions(path, "classes", content, dataset.classes)
    images = _positions(path, "images", content, [record.name for record in dataset.records])
    table = _table(path, content)
    label, image = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    for numbers, names in ((label, "classes"), (image, "images")):
        count = len(content[names])
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
            found = f"{numbers.min()} to {numbers.max()}"
            raise DataError(path, f"numbers of {names} from 0 to {count - 1}", found)
    # Boxes of the same class and image follow each other, in the file's order.
    group = label * len(content["images"]) + image
    order = np.argsort(group, kind="stable")
    boxes, group = table[order, 2:].astype(np.float32), group[order]
    empty = [np.zeros((0, 5), np.float32) for _ in images]
    all_boxes = [empty]
    for c in classes[1:]:
        wanted = c * len(content["images"]) + images
        starts, ends = np.searchsorted(group, wanted), np.searchsorted(group, wanted, side="right")
        all_boxes.append([boxes[a:b] for a, b in zip(starts, ends)])
    return all_boxes


def _read(path):
    with open_file(path, "a file of detections") as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(path, "a JSON file of detections", str(error)) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(path, f'a JSON object with "format": "{_FORMAT}"', "another one")
    return content


def _positions(path, key, content, wanted):
    """Where each of the names `wanted` stands in the list of names content[key]."""
    names = content.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(path, f"{key!r}: a list of names", type(names).__name__)
    where = {name: i for i, name in enumerate(names)}
    if len(where) < len(names):
        raise DataError(path, f"{key!r}: each name once", "a name twice")
    missing = [name for name in wanted if name not in where]
    if missing:
        found = f"not {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        hint = closest(missing[0], names[:1000]) or "It is a file of another data set."
        raise DataError(path, f"all {len(wanted)} {key} of the data set", found, hint)
    return np.array([where[name] for name in wanted], np.int64)


def _table(path, content):
    """The rows of a file as an array (N, 7)."""
    rows, expected = content.get("detections"), "'detections': a list of rows of 7 numbers"
    if not isinstance(rows, list):
        raise DataError(path, expected, type(rows).__name__)
    try:
        table = np.array(rows, np.float64) if rows else np.zeros((0, 7))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(path, expected, str(error)) from None
    if table.ndim != 2 or table.shape[1] != 7:
        raise DataError(path, expected, f"shape {table.shape}")
    # Boxes are kept as float32, and what does not fit in there is no coordinate.
    if not (np.abs(table) <= np.finfo(np.float32).max).all():
        raise DataError(path, expected, "values that are not finite")
    if (table[:, :2] % 1).any():
        raise DataError(path, "whole numbers of class and image", "others")
    return table


# ---- PASCAL VOC's files


def write_voc_results(dataset, all_boxes, folder, competition="comp4", image_set="test"):
    """Write the files of PASCAL VOC's development kit, `<competition>_det_<image_set>_<class>.txt`,
    with lines "image score x1 y1 x2 y2", scores to 3 digits, coordinates 1-based and to 1 digit.

    Returns: the paths. Raises: DataError; ModelFileError if a file cannot be written.
    """
    check_detections(dataset, all_boxes)
    names = [record.name for record in dataset.records]
    paths = []
    for name, images in list(zip(dataset.classes, all_boxes))[1:]:
        if "/" in name or os.sep in name:
            raise DataError(f"class {name!r}", "a name that a file can have", "a slash in it")
        path = os.path.join(folder, f"{competition}_det_{image_set}_{name}.txt")
        boxes, scores, numbers = join_images(images)
        rows = zip(numbers.tolist(), scores.tolist(), (boxes + 1).tolist())
        text = "".join(_voc_line(names[i], score, box) for i, score, box in rows)
        with atomic_write(path) as file:
            file.write(text.encode())
        paths.append(path)
    return paths


def _voc_line(image, score, box):
    x1, y1, x2, y2 = box
    return f"{image} {score:.3f} {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}\n"
