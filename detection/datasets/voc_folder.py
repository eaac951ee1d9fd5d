"""Where things are in a folder of PASCAL VOC's layout: annotations, images, splits."""

import os

from ...engine.errors import DataError, closest
from .annotations import SPLITS, seeded_split
from .image_files import EXTENSIONS
from .record import Problem

_ANNOTATIONS = ("Annotations", "annotations")
_IMAGES = ("JPEGImages", "images", "Images")
_SPLIT_FILES = os.path.join("ImageSets", "Main")


class VocFolder:
    """A folder in VOC's layout.

    Annotations are in Annotations/ or in the folder itself, images in JPEGImages/, images/ or
    beside the annotations; a file's name without its extension says which belong together.
    `annotations` {name: path of the XML}, `images` {name: path}.
    Raises: DataError if there is no annotation at all.
    """

    def __init__(self, root, where):
        self.root, self.where = root, where
        self._annotation_folder = _first_folder(root, _ANNOTATIONS) or root
        self.annotations = _files(self._annotation_folder, (".xml",))
        if not self.annotations:
            inner = [n for n in os.listdir(root) if _first_folder(f"{root}/{n}", _ANNOTATIONS)]
            hint = f"Did you mean its folder {' or '.join(sorted(inner))}?" if inner else ""
            raise DataError(
                where, f"annotations *.xml in {os.path.join(root, 'Annotations')} or {root}",
                "none", hint,
            )  # fmt: skip
        candidates = [_first_folder(root, _IMAGES), root, self._annotation_folder]
        self.image_folders = list(dict.fromkeys(f for f in candidates if f))
        self.images = {}
        for folder in reversed(self.image_folders):  # the first has precedence
            self.images.update(_files(folder, EXTENSIONS))

    def annotation_path(self, name):
        """The path of an image's annotation, whether there is one or not."""
        return self.annotations.get(name) or os.path.join(self._annotation_folder, f"{name}.xml")

    def image_path(self, name, file_name=""):
        """The path of an image, or None. `file_name`, which its annotation gives, counts only if
        no image is called like the annotation."""
        return self.images.get(name) or self.images.get(os.path.splitext(file_name)[0])

    def names(self, split):
        """The names of a split's images, and the Problems of the file that lists them.

        Raises: DataError if there is no such split, or nothing in it.
        """
        folder = os.path.join(self.root, _SPLIT_FILES)
        lists = _files(folder, (".txt",)) if os.path.isdir(folder) else {}
        known = [s for s in SPLITS if s in lists]
        if {"train", "val"} <= lists.keys() and "trainval" not in lists:
            known.append("trainval")
        if split in lists:
            names, problems = self._read_list(lists[split])
        elif split in known:
            train, problems = self._read_list(lists["train"])
            val, more = self._read_list(lists["val"])
            names, problems = list(dict.fromkeys(train + val)), problems + more
        elif split == "all" or (not lists and split in SPLITS):
            names, problems = seeded_split(self.annotations, split), []
        else:
            hint = closest(split, lists or SPLITS)
            expected = f"a split of {', '.join(known or sorted(lists) or SPLITS)}"
            found = f"{split!r}, of which {folder} has no list" if lists else f"{split!r}"
            raise DataError(self.where, expected, found, hint)
        if not names:
            place = lists.get(split, self.root)
            raise DataError(f"{self.where}: {place}", f"images in the split {split}", "none")
        return names, problems

    def _read_list(self, path):
        """The names in a split's file, one a line, perhaps with an extension or, as in the files
        of single classes, with a number after the name."""
        try:
            with open(path, encoding="utf-8-sig") as file:
                lines = [line.strip() for line in file]
        except UnicodeDecodeError as error:
            raise DataError(path, "names of images, in UTF-8", str(error)) from None
        names, problems = {}, []
        for number, line in enumerate(lines, 1):
            name = self._known_name(line)
            if name in names:
                problems.append(Problem(f"{path}:{number}", None, f"{name} is there twice"))
            elif name:
                names[name] = None
        return list(names), problems

    def _known_name(self, line):
        forms = [line, os.path.splitext(line)[0], line.split()[0] if line else line]
        return next((f for f in forms if f in self.annotations or f in self.images), forms[0])


def _first_folder(root, names):
    paths = (os.path.join(root, name) for name in names)
    return next((path for path in paths if os.path.isdir(path)), None)


def _files(folder, extensions):
    """{name without extension: path} of a folder's files with one of the extensions."""
    files = {}
    for file in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(file)
        if extension.lower() in extensions:
            files.setdefault(stem, os.path.join(folder, file))
    return files
