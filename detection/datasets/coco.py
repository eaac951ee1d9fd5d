"""COCO: the official data sets, and any JSON file of instances in their form."""

import math
import os

from ...engine.errors import DataError, closest
from .annotations import (
    SPLITS,
    checked_size,
    existing_folder,
    fit_box,
    left_out,
    seeded_split,
    unless_empty,
)
from .coco_json import read_instances
from .record import Dataset, Problem, Record

FORM = "coco:FILE.json:IMAGES or coco:FILE.json:IMAGES:SPLIT"

# (year, split) -> annotation file, folder of images.
OFFICIAL = {
    ("2014", "train"): ("instances_train2014.json", "train2014"),
    ("2014", "val"): ("instances_val2014.json", "val2014"),
    ("2014", "minival"): ("instances_minival2014.json", "val2014"),
    ("2014", "valminusminival"): ("instances_valminusminival2014.json", "val2014"),
    ("2015", "test"): ("image_info_test2015.json", "test2015"),
    ("2015", "test-dev"): ("image_info_test-dev2015.json", "test2015"),
    ("2017", "train"): ("instances_train2017.json", "train2017"),
    ("2017", "val"): ("instances_val2017.json", "val2017"),
    ("2017", "test-dev"): ("image_info_test-dev2017.json", "test2017"),
}


def load_official(name, year, split, data_dir):
    """The Dataset of an official split under `data_dir`/coco.

    Raises: DataError if its annotations or images are not there.
    """
    file_name, folder = OFFICIAL[year, split]
    where, root = f"data set {name}", os.path.join(os.path.expanduser(data_dir), "coco")
    file = os.path.join(root, "annotations", file_name)
    folders = [os.path.join(root, "images", folder), os.path.join(root, folder)]
    images = next(filter(os.path.isdir, folders), None)
    if os.path.isfile(file) and images:
        return _load(name, file, images, None, exact=True)
    missing = [] if os.path.isfile(file) else [f"a file {os.path.abspath(file)}"]
    if images is None:
        missing.append("a folder " + " or ".join(map(os.path.abspath, folders)))
    raise DataError(
        where, " and ".join(missing), "none",
        f"Unpack {folder}.zip and {_archive(file_name, year)} there. If you have them elsewhere, "
        "set DATA_DIR or name them: coco:FILE.json:IMAGES:all.",
    )  # fmt: skip


def _archive(file_name, year):
    """Which archive has an official annotation file, and where archives are to be had."""
    if "minival" in file_name:
        return f"{file_name}.zip (py-faster-rcnn's data/README.md has a link)"
    kind = "annotations_trainval" if file_name.startswith("instances") else "image_info_test"
    return f"{kind}{year}.zip from https://cocodataset.org"


def load_file(name, file, images, split):
    """The Dataset of a JSON file of instances, whose images are in the folder `images`.

    It is cut into seeded splits by image id (see `seeded_split`); "all" is the whole file.
    Raises: DataError if the file or the folder is not there or has no usable image.
    """
    where, path = f"data set {name}", os.path.expanduser(file)
    if not os.path.isfile(path):
        hint = f"The form is {FORM}; a relative path starts from the working directory."
        raise DataError(where, f"a file {os.path.abspath(path)}", "none", hint)
    folder = existing_folder(images, where, FORM)
    if split not in SPLITS:
        raise DataError(
            where, f"a split of {', '.join(SPLITS)}", repr(split), closest(split, SPLITS)
        )
    return _load(name, path, folder, split, exact=False)


def _load(name, file, folder, split, exact):
    """`exact` says that the sizes in the file need no comparison with the images'."""
    instances = read_instances(file)
    images = instances.images
    if split is not None:
        images = {i: images[i] for i in seeded_split(images, split)}
        if not images and instances.images:
            found = f"{len(instances.images)} images in all"
            raise DataError(file, f"images in the split {split}", found)
    labels = {category: label for label, category in enumerate(instances.category_ids) if label}
    problems = instances.problems
    wanted = [o for i in images for o in instances.objects.get(i, ())]
    problems += [Problem(file, o.id, o.broken) for o in wanted if o.broken]
    records = []
    for image in images.values():
        try:
            path, size = _locate(image, folder, file, exact, problems)
        except DataError as error:
            problems.append(left_out(error, os.path.join(folder, image.file_name)))
            continue
        objects = [o for o in instances.objects.get(image.id, ()) if not o.broken]
        records.append(_record(image, path, size, objects, labels, file, problems))
    dataset = Dataset(name, instances.classes, records, problems, instances.category_ids)
    return unless_empty(dataset, file)


def _locate(image, folder, file, exact, problems):
    """The path of an image and its size (width, height); raises DataError if it is not usable."""
    path = os.path.join(folder, image.file_name)
    if not os.path.isfile(path):
        # Some annotators write the path that the image had on their machine.
        beside = os.path.join(folder, os.path.basename(image.file_name.replace("\\", "/")))
        path = beside if os.path.isfile(beside) else path
    if exact and min(image.size) > 0:
        if os.path.isfile(path):
            return path, image.size
        raise DataError(path, "an image file", "none")
    size, wrong = checked_size(path, image.size)
    if wrong:
        problems.append(Problem(file, None, f"image id {image.id!r}: {wrong}"))
    return path, size


def _record(image, path, size, objects, labels, file, problems):
    """The Record of an image; what is wrong with its objects is appended to `problems`."""
    kept = []
    for obj in objects:
        box, reason = _fit(obj, size, labels)
        if reason:
            problems.append(Problem(file, obj.id, f"image id {image.id!r}: {reason}"))
        if box is not None:
            kept.append((box, labels[obj.category], obj.crowd, obj.area))
    boxes, found, crowd, areas = zip(*kept) if kept else ((), (), (), ())
    return Record(
        image.name, *size, boxes, found, crowd=crowd, path=path, areas=areas,
        image_id=image.id if isinstance(image.id, int) else None,
    )  # fmt: skip


def _fit(obj, size, labels):
    """An object's box, or None; and what is wrong with the object, or None."""
    shown = f"box {list(obj.xywh)} (x, y, width, height)"
    if obj.category not in labels:
        return None, f"{shown} of the unknown category {obj.category!r}; left out"
    x, y, w, h = obj.xywh
    if math.isfinite(w + h) and (w <= 0 or h <= 0 or obj.area <= 0):
        return None, f"{shown} has no size; left out"
    # A side below a pixel makes a box of one pixel, as in py-faster-rcnn.
    return fit_box((x, y, x + max(0, w - 1), y + max(0, h - 1)), *size, shown)
