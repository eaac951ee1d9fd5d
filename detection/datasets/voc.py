"""PASCAL VOC: the devkits of 2007 and 2012, and any folder in their layout."""

import os
from collections import Counter, defaultdict

from ...engine.errors import DataError, closest
from .annotations import checked_size, existing_folder, fit_box, left_out, unless_empty
from .record import BACKGROUND, Dataset, Problem, Record
from .voc_folder import VocFolder
from .voc_xml import Annotation, read_annotation

CLASSES = (
    BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
FORM = "voc:FOLDER or voc:FOLDER:SPLIT"

_ARCHIVES = {
    "2007": "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
    "2012": "VOCtrainval_11-May-2012.tar (its test images, without annotations: VOC2012test.tar)",
}
YEARS = tuple(_ARCHIVES)
SPLITS = ("train", "val", "trainval", "test")


def load_devkit(name, year, split, data_dir):
    """The Dataset of one split of a devkit; its classes are the twenty of the challenge.

    Raises: DataError if the devkit or the split is not there.
    """
    where, data_dir = f"data set {name}", os.path.expanduser(data_dir)
    places = [
        os.path.join(data_dir, devkit, f"VOC{year}") for devkit in (f"VOCdevkit{year}", "VOCdevkit")
    ]
    for place in places:
        if os.path.isdir(place):
            return _load(name, VocFolder(place, where), split, CLASSES)
    raise DataError(
        where, "a folder " + " or ".join(map(os.path.abspath, places)), "neither",
        f"Unpack {_ARCHIVES[year]} of http://host.robots.ox.ac.uk/pascal/VOC in "
        f"{os.path.abspath(data_dir)}; the folder then has Annotations/, ImageSets/Main/ and "
        f"JPEGImages/. If it is elsewhere, set DATA_DIR or name it: voc:FOLDER:{split}.",
    )  # fmt: skip


def load_folder(name, folder, split):
    """The Dataset of one split of a folder in VOC's layout.

    Splits are those of ImageSets/Main/SPLIT.txt or, if it has none, seeded (see `seeded_split`).
    The classes are those found in all annotations, whatever the split, sorted by name; the case
    of letters does not count.
    Raises: DataError if the folder or the split is not there or has no usable image.
    """
    where = f"data set {name}"
    return _load(name, VocFolder(existing_folder(folder, where, FORM), where), split, None)


def _load(name, folder, split, classes):
    names, problems = folder.names(split)
    # To find classes takes all annotations: every split has the same ones.
    wanted = dict.fromkeys([*folder.annotations, *names] if classes is None else names)
    withheld = split == "test" and folder.annotations.keys().isdisjoint(names)
    annotations, broken = {}, {}
    for image in wanted:
        path = folder.annotation_path(image)
        if withheld and image not in folder.annotations:
            annotations[image] = Annotation(path, "", (0, 0))
            continue
        try:
            annotations[image] = read_annotation(path)
        except DataError as error:
            broken[image] = left_out(error, path)
    classes = classes or find_classes(annotations.values())
    labels = {c.lower(): label for label, c in enumerate(classes) if label}
    if withheld:
        reason = f"no annotation of any image of {split}; it cannot be evaluated"
        problems.append(Problem(folder.root, None, reason))
    records = []
    for image in names:
        if image in broken:
            problems.append(broken[image])
        else:
            records += _records(image, folder, annotations[image], labels, problems)
    return unless_empty(Dataset(name, classes, records, problems), folder.root)


def find_classes(annotations):
    """The background and the classes of all objects, sorted; each as it is mostly spelt."""
    spellings = defaultdict(Counter)
    for annotation in annotations:
        for obj in annotation.objects:
            spellings[obj.name.lower()][obj.name] += 1
    # Among spellings as frequent the first in the order of letters.
    return (BACKGROUND, *(
        min(spellings[key].items(), key=lambda item: (-item[1], item[0]))[0]
        for key in sorted(spellings)
    ))  # fmt: skip


def _records(name, folder, annotation, labels, problems):
    """The Record of an annotated image in a list, empty if its image cannot be used. What is wrong
    is appended to `problems`."""
    path = folder.image_path(name, annotation.image)
    if path is None:
        reason = f"no image {name}.* in {' or '.join(folder.image_folders)}; left out"
        problems.append(Problem(annotation.path, None, reason))
        return []
    try:
        (width, height), wrong = checked_size(path, annotation.size)
    except DataError as error:
        problems.append(left_out(error, path))
        return []
    if wrong:
        problems.append(Problem(annotation.path, None, wrong))
    problems += annotation.problems
    kept = []
    for obj in annotation.objects:
        box, reason = _fit(obj, width, height, labels)
        if reason:
            problems.append(Problem(annotation.path, obj.number, reason))
        if box is not None:
            kept.append((box, labels[obj.name.lower()], obj.difficult))
    boxes, found, difficult = zip(*kept) if kept else ((), (), ())
    return [Record(name, width, height, boxes, found, difficult, path=path)]


def _fit(obj, width, height, labels):
    """An object's box, 0-based, or None; and what is wrong with the object, or None."""
    if obj.name.lower() not in labels:
        near = closest(obj.name, labels)
        return None, f"unknown class {obj.name!r}; left out" + (f". {near}" if near else "")
    x1, y1, x2, y2 = obj.box
    # NOTE: py-faster-rcnn trains on a box that begins and ends in the same pixel; here it is
    # taken for a slip of the annotator's.
    if x1 == x2 or y1 == y2:
        return None, f"{obj} has no size; left out"
    return fit_box((x1 - 1, y1 - 1, x2 - 1, y2 - 1), width, height, str(obj))
