"""What a data set's name stands for.

    voc_2007_trainval         a devkit under the data folder (years 2007, 2012)
    voc:FOLDER[:SPLIT]        any folder in PASCAL VOC's layout
    coco_2014_minival         an official COCO split under the data folder
    coco:FILE.json:IMAGES[:SPLIT]   any COCO file of instances, and the folder of its images
    shapes[_SPLIT][:COUNT]    drawn images

and several of them, with the same classes, joined by "+". Splits are train, val, trainval and
test; without one a name means trainval.
"""

import collections
import dataclasses
import logging
import os
import re

from ...engine.errors import DataError, closest
from . import coco, voc
from .record import Dataset

log = logging.getLogger("demitasse.data")

_DEFAULT_SPLIT = "trainval"
# What the splits that COCO does not have are made of; its test sets have no public annotations.
_COCO_PARTS = {
    ("2014", "trainval"): ("train", "valminusminival"),
    ("2014", "test"): ("minival",),
    ("2017", "trainval"): ("train",),
    ("2017", "test"): ("val",),
}
_BEGINNING = re.compile(r"(voc|coco)(:|_\d)|shapes(_|:|$)")
_SHOWN_PROBLEMS = 10


@dataclasses.dataclass(frozen=True)
class _Part:
    """One data set of a name: its `kind` (voc_devkit, voc, coco_official, coco, shapes), what tells
    it from others of the kind, and its split or None."""

    kind: str
    source: tuple
    split: str | None
    count: int | None = None

    def name(self, split, keep_count=False):
        """The name of the split `split` of the same data; raises DataError if it has none."""
        if self.kind in ("shapes", "voc_devkit") and split not in voc.SPLITS:
            expected, hint = f"a split of {', '.join(voc.SPLITS)}", closest(split, voc.SPLITS)
            raise DataError(
                f"data set {self.kind.removesuffix('_devkit')}", expected, repr(split), hint
            )
        if self.kind == "shapes":
            count = f":{self.count}" if keep_count and self.count else ""
            return f"shapes_{split}{count}"
        if self.kind == "coco_official":
            year = self.source[0]
            parts = _COCO_PARTS.get((year, split), (split,))
            if (year, parts[0]) not in coco.OFFICIAL:
                known = ", ".join(s for y, s in coco.OFFICIAL if y == year)
                raise DataError(f"data set coco_{year}", f"a split of {known}", repr(split))
            return "+".join(f"coco_{year}_{part}" for part in parts)
        separator = "_" if self.kind == "voc_devkit" else ":"
        return separator.join((self.kind.removesuffix("_devkit"), *self.source, split))


def get_imdb(name, data_dir="data", report=True):
    """Load a data set by its name (see the module), several if joined by "+".

    Args: `data_dir`, where the official data sets are; `report`, whether problems are logged.
    Raises: DataError for an unknown name, missing or unusable data, or parts whose classes differ.
    """
    parts = [(text, _parse(text)) for text in _parts(name)]
    datasets = [_load(text, part, data_dir) for text, part in parts]
    dataset = datasets[0] if len(datasets) == 1 else _join(name, datasets)
    if report:
        _report(dataset)
    return dataset


def split(name, which):
    """The name of the split `which` (train, val, trainval, test) of the same data.

    For example voc_2007_trainval and test: voc_2007_test; voc:DIR and test: voc:DIR:test;
    coco_2014_train and test: coco_2014_minival (test sets have no public annotations).
    """
    return "+".join(dict.fromkeys(_parse(text).name(which) for text in _parts(name)))


def add_split(name, which):
    """`name` with the split `which` for those of its parts that do not name one."""
    parts = [(text, _parse(text)) for text in _parts(name)]
    return "+".join(t if p.split else p.name(which, keep_count=True) for t, p in parts)


def _parts(name):
    """The names joined in a name. A "+" inside of a path stays there."""
    if not isinstance(name, str) or not name.strip():
        raise DataError("data set", "a name", repr(name), _known_forms())
    parts = []
    for piece in name.split("+"):
        in_path = parts and parts[-1].lstrip().startswith(("voc:", "coco:"))
        if in_path and not _BEGINNING.match(piece.strip()):
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return [part.strip() for part in parts]


def _parse(text):
    """The _Part that a name without "+" stands for; raises DataError if it stands for none."""
    if text.startswith("voc:"):
        folder, which = _cut_split(text[len("voc:") :])
        return _Part("voc", (folder,), which)
    if text.startswith("coco:"):
        return _parse_coco(text)
    if match := re.fullmatch(r"voc_(\d+)_(\w+)", text):
        year, which = match.groups()
        if year in voc.YEARS and which in voc.SPLITS:
            return _Part("voc_devkit", (year,), which)
    if match := re.fullmatch(r"coco_(\d+)_([\w-]+)", text):
        year, which = match.groups()
        if (year, which) in coco.OFFICIAL:
            return _Part("coco_official", (year,), which)
    if match := re.fullmatch(r"shapes(?:_([a-z]+))?(?::([0-9]{1,9}))?", text):
        which, count = match.groups()
        if which in (None, *voc.SPLITS):
            return _Part("shapes", (), which, int(count) if count else None)
    raise DataError(f"data set {text!r}", "a known name", "none", _suggestion(text))


def _cut_split(text):
    """FOLDER or FOLDER:SPLIT as (folder, split or None); a folder may have colons in its name."""
    folder, colon, which = text.rpartition(":")
    if not colon or os.path.isdir(os.path.expanduser(text)):
        return text, None
    # A drive's letter, or a path with a colon that does not exist: the error shall show all of it.
    is_path = "/" in which or "\\" in which or not folder
    if is_path and not os.path.isdir(os.path.expanduser(folder)):
        return text, None
    return folder, which or None


def _parse_coco(text):
    """coco:FILE.json:IMAGES[:SPLIT]; the file and the folder may have colons in their names."""
    words = text[len("coco:") :].split(":")
    cuts = [(":".join(words[:i]), ":".join(words[i:])) for i in range(1, len(words))]
    for is_file in (lambda file: os.path.isfile(os.path.expanduser(file)), _is_json_name):
        for file, rest in cuts:
            if rest and is_file(file):
                folder, which = _cut_split(rest)
                return _Part("coco", (file, folder), which)
    raise DataError(f"data set {text!r}", coco.FORM, "a name without a JSON file and a folder")


def _is_json_name(file):
    return file.lower().endswith(".json")


def _load(text, part, data_dir):
    which = part.split or _DEFAULT_SPLIT
    if part.kind == "shapes":
        from .shapes import make_shapes

        return make_shapes(which, part.count)
    if part.kind == "voc_devkit":
        return voc.load_devkit(text, *part.source, which, data_dir)
    if part.kind == "voc":
        return voc.load_folder(text, *part.source, which)
    if part.kind == "coco_official":
        return coco.load_official(text, *part.source, which, data_dir)
    return coco.load_file(text, *part.source, which)


def _join(name, datasets):
    """Several data sets as one. Where names of records clash, they get that of their data set."""
    first = datasets[0]
    for other in datasets[1:]:
        if [c.lower() for c in other.classes] != [c.lower() for c in first.classes]:
            raise DataError(
                f"data set {name}", f"the classes of {first.name}, {', '.join(first.classes[1:])},"
                " in all its parts", f"in {other.name} {', '.join(other.classes[1:])}",
            )  # fmt: skip
    times = collections.Counter(r.name for d in datasets for r in d.records)
    records = [
        dataclasses.replace(r, name=f"{d.name}/{r.name}") if times[r.name] > 1 else r
        for d in datasets
        for r in d.records
    ]
    if len({r.name for r in records}) < len(records):
        raise DataError(f"data set {name}", "each data set once", "one of them twice")
    same_ids = all(d.category_ids == first.category_ids for d in datasets)
    problems = [problem for d in datasets for problem in d.problems]
    ids = first.category_ids if same_ids else None
    return Dataset(name, first.classes, records, problems, ids)


def _report(dataset):
    """Log the first problems of a data set, and how many there are."""
    for problem in dataset.problems[:_SHOWN_PROBLEMS]:
        log.warning("%s", problem)
    more = len(dataset.problems) - _SHOWN_PROBLEMS
    if more > 0:
        log.warning("%s: %d more problems; `check_dataset` lists them all", dataset.name, more)


def _suggestion(text):
    """What may have been meant by an unknown name, and which forms there are."""
    known = [f"voc_{year}_{s}" for year in voc.YEARS for s in voc.SPLITS]
    known += [f"coco_{year}_{s}" for year, s in coco.OFFICIAL]
    known += ["shapes", *(f"shapes_{s}" for s in voc.SPLITS)]
    path = os.path.expanduser(text)
    near = closest(text, known)
    if os.path.isdir(path):
        near = f"Is it a folder in VOC's layout? Then write voc:{text}."
    elif _is_json_name(path) or os.path.isfile(path):
        near = f"Is it a COCO file? Then write coco:{text}:IMAGES."
    return f"{near} {_known_forms()}".lstrip()


def _known_forms():
    official = ", ".join(f"coco_{year}_{s}" for year, s in coco.OFFICIAL)
    return (
        f"Known: voc_{{{','.join(voc.YEARS)}}}_{{{','.join(voc.SPLITS)}}}, voc:FOLDER[:SPLIT], "
        f"{official}, coco:FILE.json:IMAGES[:SPLIT], shapes[_SPLIT][:COUNT]; several joined by +."
    )
