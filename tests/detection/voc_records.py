"""Records of data sets in PASCAL VOC's layout, and what was wrong with these."""

from pathlib import Path

import data_on_disk as disk

from demitasse.detection.datasets import get_imdb

CAT = ("cat", (11, 6, 30, 20))


def problems(dataset):
    """(file, number of the box, reason) of each."""
    return [(Path(p.file).name, p.box, p.reason) for p in dataset.problems]


def load(root, split="all"):
    return get_imdb(f"voc:{root}:{split}", report=False)


def only_record(tmp_path, objects, size=(60, 40)):
    """The record of one image with these objects, and its data set."""
    disk.image(tmp_path / "a.png")
    disk.annotation(tmp_path / "a.xml", objects, size)
    dataset = load(tmp_path)
    return dataset.records[0], dataset
