"""Files of instances in COCO's form: JSON, checked entry by entry."""

import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass

from ...engine.errors import DataError
from .record import BACKGROUND, Problem

_HINT = "Restore the file, or name one of instances (not of captions or keypoints)."


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image: `id`, a `name` of its own in the file, and its size (width, height), zeros if the
    file does not tell."""

    id: int | str
    name: str
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CocoObject:
    """An annotation: its `id` (or its number in the file, from 1), the box (x, y, width, height),
    the area in square pixels. `broken` says why it cannot be read, or is None."""

    id: int
    category: int | None
    xywh: tuple = ()
    area: float = 0.0
    crowd: bool = False
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Instances:
    """A file: the classes and COCO's ids of them (both begin with the background), images and
    objects by image id, and what is wrong with entries that belong to no image."""

    classes: tuple[str, ...]
    category_ids: tuple[int | None, ...]
    images: dict[int | str, CocoImage]
    objects: dict[int | str, list[CocoObject]]
    problems: list[Problem]


def read_instances(file):
    """The Instances in a JSON file.

    Classes are in the order of their ids.
    Raises: DataError, which names the file, unless it has images, annotations and categories;
        those of official test sets (image_info_*) need not have annotations.
    """
    content, problems = _read_json(file), []
    classes, ids = _read_categories(content["categories"], file)
    images, skipped = _read_images(content["images"], file, problems)
    objects = defaultdict(list)
    for number, entry in enumerate(content["annotations"], 1):
        image = entry.get("image_id") if isinstance(entry, dict) else None
        if _is_id(image) and image in images:
            objects[image].append(_read_object(number, entry))
        elif not (_is_id(image) and image in skipped):
            reason = f"its image_id {image!r} is that of no image; left out"
            problems.append(Problem(file, _object_id(number, entry), reason))
    return Instances(classes, ids, images, dict(objects), problems)


def _read_json(file):
    try:
        with open(file, "rb") as f:
            content = json.loads(f.read(), object_hook=_without_outline)
    except OSError as error:
        raise DataError(file, "a JSON file", error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(file, "a JSON file", str(error), "Restore the file.") from None
    if not isinstance(content, dict):
        raise DataError(file, "a JSON object", f"a {type(content).__name__}", _HINT)
    if os.path.basename(file).startswith("image_info"):
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(file, f"a list {key!r}", f"only {sorted(content)}", _HINT)
    return content


def _without_outline(entry):
    entry.pop("segmentation", None)  # most of the file, and of no use here
    return entry


def _read_categories(entries, file):
    """The names of the classes and the ids of their categories, background first."""
    names = {}
    for number, entry in enumerate(entries, 1):
        category, name = (_get(entry, key) for key in ("id", "name"))
        name = name.strip() if isinstance(name, str) else ""
        where = f"{file}: category number {number}"
        if type(category) is not int or not name:
            raise DataError(where, "a whole id and a name", f"{entry}")
        if category in names or name in names.values():
            raise DataError(where, "an id and a name that no other has", f"{entry}")
        names[category] = name
    ids = sorted(i for i, name in names.items() if name != BACKGROUND)
    return (BACKGROUND, *(names[i] for i in ids)), (None, *ids)


def _read_images(entries, file, problems):
    """The usable images by id, and the ids of the others."""
    images, skipped, stems = {}, set(), Counter()
    for number, entry in enumerate(entries, 1):
        image, name = (_get(entry, key) for key in ("id", "file_name"))
        if not _is_id(image):
            problems.append(Problem(file, None, f"image number {number} has no id; left out"))
        elif image in images or image in skipped:
            problems.append(Problem(file, None, f"image id {image!r} is there twice; left out"))
        elif not isinstance(name, str) or not name:
            problems.append(Problem(file, None, f"image id {image!r} has no file_name; left out"))
            skipped.add(image)
        else:
            stem = os.path.splitext(name)[0]
            stems[stem] += 1
            unique = stem if stems[stem] == 1 else f"{stem}:{image}"
            size = tuple(_whole(_get(entry, key)) for key in ("width", "height"))
            images[image] = CocoImage(image, unique, name, size)
    return images, skipped


def _read_object(number, entry):
    box, category = entry.get("bbox"), entry.get("category_id")
    number = _object_id(number, entry)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return CocoObject(number, None, broken=f"bbox {box!r} is not four numbers; left out")
    if type(category) is not int:
        return CocoObject(number, None, broken=f"category_id {category!r} is none; left out")
    area = entry.get("area")
    area = float(area) if _is_number(area) else float(box[2] * box[3])
    return CocoObject(number, category, tuple(box), area, entry.get("iscrowd") in (1, True))


def _object_id(number, entry):
    found = _get(entry, "id")
    return found if type(found) is int else number


def _get(entry, key):
    return entry.get(key) if isinstance(entry, dict) else None


def _is_id(value):
    return type(value) in (int, str)


def _is_number(value):
    # Integers beyond the range of floats would not survive arithmetic.
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _whole(value):
    """A positive whole number of pixels, or 0."""
    return int(value) if _is_number(value) and 0 < value < 1 << 31 else 0
