"""Data sets by their names: splits, sums of data sets, misspellings; and what a data set holds."""

from pathlib import Path

import data_on_disk as disk
import numpy as np
import pytest

from demitasse.detection.datasets import Dataset, Record, add_split, get_imdb, split
from demitasse.engine.errors import DataError

# --------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "which", "expected"),
    [
        ("voc_2007_trainval", "test", "voc_2007_test"),
        ("voc_2007_train+voc_2007_val", "test", "voc_2007_test"),
        ("voc_2007_trainval + voc_2012_trainval", "test", "voc_2007_test+voc_2012_test"),
        ("voc:some/folder", "test", "voc:some/folder:test"),
        ("voc:some/folder:train", "test", "voc:some/folder:test"),
        ("coco:a.json:b", "val", "coco:a.json:b:val"),
        ("coco:a.json:b:test", "val", "coco:a.json:b:val"),
        ("coco:c:d.json:e:f:test", "val", "coco:c:d.json:e:f:val"),
        ("coco_2014_train", "test", "coco_2014_minival"),
        ("coco_2014_minival", "trainval", "coco_2014_train+coco_2014_valminusminival"),
        ("coco_2017_train", "test", "coco_2017_val"),
        ("shapes", "test", "shapes_test"),
        ("shapes_train:400", "test", "shapes_test"),
    ],
)
def test_split(name, which, expected):
    assert split(name, which) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc:some/folder", "voc:some/folder:test"),
        ("voc:some/folder:val", "voc:some/folder:val"),
        ("shapes:40+coco:a.json:b+shapes_val", "shapes_test:40+coco:a.json:b:test+shapes_val"),
    ],
)
def test_add_split(name, expected):
    assert add_split(name, "test") == expected


@pytest.mark.parametrize(
    ("name", "which"), [("voc_2007_train", "tset"), ("shapes", "all"), ("coco_2015_test", "train")]
)
def test_a_split_that_there_is_not(name, which):
    with pytest.raises(DataError, match=f"expected a split of .*test.*, found '{which}'"):
        split(name, which)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("voc_2007_trianval", "'voc_2007_trainval'"),
        ("voc_2006_test", "'voc_2007_test'"),
        ("coco_2014_minval", "'coco_2014_minival'"),
        ("Shapes_Train", "'shapes_train'"),
        ("shapes_train:many", "'shapes_train'"),
        ("imagenet", r"Known: voc_\{2007,2012\}.*coco_2017_val.*shapes"),
        ("voc_2007_test+", "data set ''"),
        ("", "a name, found ''"),
        (None, "a name, found None"),
        ("coco:", "coco:FILE.json:IMAGES"),
        ("coco:a.json", "coco:FILE.json:IMAGES"),
        ("coco:a.json:", "coco:FILE.json:IMAGES"),
        ("coco:a.json:b", r"a file /.*/a\.json, found none"),
        ("annotations.json", "write coco:annotations.json:IMAGES"),
        (str(Path(__file__).parent), "write voc:/"),
        ("shapes_test:0", "at least 1 image"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(DataError, match=match):
        get_imdb(name)


def test_an_unknown_split_of_a_file(tmp_path):
    name = disk.coco(tmp_path, [1], [])
    with pytest.raises(DataError, match=r"found 'tran'.*Did you mean 'train'"):
        get_imdb(f"{name}:tran")


def test_shapes():
    assert get_imdb("shapes_test:3").name == "shapes_test:3"
    dataset = get_imdb("shapes_train:2+shapes_test:3")
    assert len(dataset) == 5 and len({r.name for r in dataset.records}) == 5
    assert dataset.classes == get_imdb("shapes:5").classes


def test_joining(tmp_path):
    cats = disk.voc(tmp_path / "cats", {"1": [("Cat", (1, 1, 9, 9))], "2": []})
    more = disk.voc(tmp_path / "more", {"1": [("cat", (2, 2, 8, 8))], "3": []})
    dogs = disk.voc(tmp_path / "dogs", {"1": [("dog", (1, 1, 9, 9))]})
    first, second = f"voc:{cats}:all", f"voc:{more}:all"
    dataset = get_imdb(f"{first}+{second}")
    assert dataset.name == f"{first}+{second}"
    assert [r.name for r in dataset.records] == [f"{first}/1", "2", f"{second}/1", "3"]
    assert dataset.records[2].boxes.tolist() == [[1, 1, 7, 7]]
    with pytest.raises(DataError, match=r"the classes of .*Cat, in all its parts, found in .*dog"):
        get_imdb(f"{first}+voc:{dogs}:all")
    with pytest.raises(DataError, match="each data set once"):
        get_imdb(f"{first}+{first}")


# ----------------------------------------------------------------------- Record, Dataset


def test_a_record_must_be_consistent():
    with pytest.raises(DataError, match="as many boxes, labels"):
        Record("a", 9, 9, [[1, 1, 2, 2]], [1, 2], path="a.jpg")
    with pytest.raises(DataError, match="as many boxes, labels"):
        Record("a", 9, 9, [[1, 1, 2, 2]], [1], difficult=[False, True], path="a.jpg")
    for source in ({}, {"path": "a.jpg", "draw": lambda: None}):
        with pytest.raises(DataError, match="a path or a function"):
            Record("a", 9, 9, [], [], **source)
    pixels = np.zeros((9, 9, 3), np.uint8)
    assert Record("a", 9, 9, [], [], draw=lambda: pixels).read() is pixels


def test_class_0_is_the_background():
    with pytest.raises(DataError, match="__background__ as class 0"):
        Dataset("a", ("cat",), [])
