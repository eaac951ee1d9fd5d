"""PASCAL VOC's layout: boxes, classes and splits."""

import data_on_disk as disk
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_records import CAT, load, only_record, problems

from demitasse.detection.datasets import get_imdb
from demitasse.detection.datasets.annotations import SPLITS, seeded_split
from demitasse.detection.datasets.voc import CLASSES
from demitasse.engine.errors import DataError

# ------------------------------------------------------------------------------- boxes


def test_a_record(tmp_path):
    objects = [CAT, ("dog", (1, 1, 60, 40), 1), ("cat", (2.5, 3, 4, 5.25), 0)]
    record, dataset = only_record(tmp_path, objects)
    assert dataset.classes == ("__background__", "cat", "dog")
    assert (record.name, record.width, record.height) == ("a", 60, 40)
    assert record.boxes.dtype == np.float32 and record.labels.dtype == np.int64
    np.testing.assert_array_equal(
        record.boxes, [[10, 5, 29, 19], [0, 0, 59, 39], [1.5, 2, 3, 4.25]]
    )
    assert record.labels.tolist() == [1, 2, 1]
    assert record.difficult.tolist() == [False, True, False] and not record.crowd.any()
    image = record.read()
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    assert image[10, 20].tolist() == [30, 40, 30]  # BGR as written, without loss
    assert dataset.problems == []


def test_an_image_without_objects_stays(tmp_path):
    record, dataset = only_record(tmp_path, [])
    assert record.boxes.shape == (0, 4) and record.labels.shape == (0,) and not dataset.problems


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ((20, 10, 20, 10), None, "has no size"),
        ((20, 10, 20, 30), None, "has no size"),
        ((30, 10, 20, 30), None, "no positive width"),
        ((61, 10, 90, 30), None, "outside of the image of 60 x 40"),
        ((-20, -9, 0, 0), None, "outside of the image"),
        (("nan", 1, 5, 5), None, "not finite"),
        ((1, 1, "inf", 5), None, "not finite"),
        ((1, 1, "1e999", 5), None, "not finite"),
        ((1, 1, "five", 5), None, "'five'"),
        ((1, 1, "", 5), None, "box of four numbers"),
        ((0, 1, 10, 10), (0, 0, 9, 9), "sticks out"),
        ((51, 31, 80, 50), (50, 30, 59, 39), "sticks out of the image of 60 x 40 by 20; clipped"),
        ((0.4, 1, 60.3, 10), (0, 0, 59, 9), None),  # by less than a pixel: rounding
    ],
)
def test_bad_boxes(tmp_path, box, expected, reason):
    record, dataset = only_record(tmp_path, [CAT, ("cat", box)])
    boxes = [[10, 5, 29, 19]] + ([list(expected)] if expected else [])
    np.testing.assert_allclose(record.boxes, boxes)
    if reason is None:
        assert dataset.problems == []
    else:
        ((file, number, text),) = problems(dataset)
        assert (file, number) == ("a.xml", 2) and reason in text


sides = st.floats(-100, 200) | st.integers(-100, 200) | st.floats()


@given(st.lists(st.tuples(sides, sides, sides, sides), max_size=5))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_all_boxes_are_sound_or_named(tmp_path, boxes):
    record, dataset = only_record(tmp_path, [("cat", box) for box in boxes])
    numbers = {p.box for p in dataset.problems}
    x1, y1, x2, y2 = record.boxes.T
    assert (x1 >= 0).all() and (x1 <= x2).all() and (x2 <= 59).all()
    assert (y1 >= 0).all() and (y1 <= y2).all() and (y2 <= 39).all()
    kept = 0
    for number, (a, b, c, d) in enumerate(boxes, 1):
        if 1 <= a < c <= 60 and 1 <= b < d <= 40:
            assert number not in numbers
            np.testing.assert_allclose(record.boxes[kept], np.float32([a - 1, b - 1, c - 1, d - 1]))
        left_out = [p for p in dataset.problems if p.box == number and "left out" in p.reason]
        kept += not left_out
    assert kept == len(record.boxes)


# ----------------------------------------------------------------------------- classes


def test_class_names_match_whatever_their_case(tmp_path):
    images = {"1": [(" Cat ", (1, 1, 9, 9)), ("cat", (2, 2, 9, 9))], "2": [("Cat", (3, 3, 9, 9))]}
    dataset = load(disk.voc(tmp_path, images))
    assert dataset.classes == ("__background__", "Cat")
    assert [r.labels.tolist() for r in dataset.records] == [[1, 1], [1]]


def test_all_splits_share_the_classes(tmp_path):
    images = {"1": [("zebra", (1, 1, 9, 9))], "2": [("ant", (2, 2, 9, 9))]}
    root = disk.voc(tmp_path, images, {"train": ["1"], "test": ["2"]})
    train, test = load(root, "train"), load(root, "test")
    assert train.classes == test.classes == ("__background__", "ant", "zebra")
    assert (train.records[0].labels, test.records[0].labels) == (2, 1)


@pytest.mark.parametrize("name", ["", "  ", "__background__"])
def test_an_object_must_have_a_class(tmp_path, name):
    record, dataset = only_record(tmp_path, [(name, (1, 1, 9, 9)), CAT])
    assert len(record.labels) == 1 and "is no class" in problems(dataset)[0][2]
    assert problems(dataset)[0][:2] == ("a.xml", 1)


def test_devkit(tmp_path):
    objects = [("Aeroplane", (1, 1, 9, 9), 1), ("tvmonitor", (2, 2, 9, 9)), ("tvmonitr", CAT[1])]
    images = {"000005": objects, "000007": [("person", (1, 1, 9, 9))]}
    splits = {"trainval": ["000005"], "test": ["000007"]}
    for folder in ("VOCdevkit2007", "VOCdevkit"):
        data = tmp_path / folder
        disk.voc(data / folder / "VOC2007", images, splits)
        dataset = get_imdb("voc_2007_trainval", data, report=False)
        assert dataset.classes == CLASSES and len(CLASSES) == 21
        assert [r.name for r in dataset.records] == ["000005"]
        assert dataset.records[0].labels.tolist() == [1, 20]
        ((file, number, reason),) = problems(dataset)
        assert (file, number) == ("000005.xml", 3)
        assert "unknown class 'tvmonitr'" in reason and "Did you mean 'tvmonitor'" in reason


def test_a_test_set_whose_annotations_are_withheld(tmp_path):
    root = tmp_path / "VOCdevkit2012" / "VOC2012"
    disk.voc(root, {"a": [("cat", (1, 1, 9, 9))]}, {"train": ["a"], "test": ["t"]})
    disk.image(root / "JPEGImages" / "t.jpg", 30, 20)
    dataset = get_imdb("voc_2012_test", tmp_path, report=False)
    (record,) = dataset.records
    assert (record.width, record.height, len(record.boxes)) == (30, 20, 0)
    assert "cannot be evaluated" in dataset.problems[0].reason


# ------------------------------------------------------------------------------ splits


@given(st.sets(st.text(min_size=1, max_size=8), max_size=40))
@settings(max_examples=40, deadline=None)
def test_seeded_split(names):
    parts = {split: seeded_split(names, split) for split in SPLITS}
    assert sorted(parts["train"] + parts["val"]) == parts["trainval"]
    assert sorted(parts["trainval"] + parts["test"]) == parts["all"] == sorted(names)
    assert abs(len(parts["test"]) - 0.2 * len(names)) <= 1
    assert abs(len(parts["val"]) - 0.2 * len(names)) <= 1
    if len(names) >= 3:
        assert all(parts.values())
    assert seeded_split(sorted(names, reverse=True), "val") == parts["val"]


def test_seeded_split_changes_little_with_more_names():
    names = [f"{i:06d}" for i in range(1000)]
    before, after = (set(seeded_split(names[:n], "test")) for n in (990, 1000))
    assert len(before & after) > 0.95 * len(before)
    assert len(before) == 198 and before != set(names[:198])


def test_splits_of_image_sets(tmp_path):
    images = {name: [CAT] for name in "abcde"}
    lists = {"train": ["b", "a"], "val": ["c.jpg", "a"], "mine": ["e  1", "e"], "cat_train": []}
    root = disk.voc(tmp_path, images, lists)
    assert [r.name for r in load(root, "train").records] == ["b", "a"]
    assert [r.name for r in get_imdb(f"voc:{root}", report=False).records] == ["b", "a", "c"]
    mine = load(root, "mine")
    assert [r.name for r in mine.records] == ["e"]
    assert problems(mine) == [("mine.txt:2", None, "e is there twice")]
    assert [r.name for r in load(root, "all").records if r.name == "d"] == ["d"]
    with pytest.raises(DataError, match=r"a split of train, val, trainval, found 'test'"):
        load(root, "test")
    with pytest.raises(DataError, match=r"Did you mean 'mine'"):
        load(root, "mien")
    with pytest.raises(DataError, match=r"cat_train.txt: expected images in the split"):
        load(root, "cat_train")


def test_splits_without_lists(tmp_path):
    root = disk.voc(tmp_path, {f"{i}": [CAT] for i in range(10)})
    names = {s: {r.name for r in load(root, s).records} for s in SPLITS}
    assert [len(names[s]) for s in ("train", "val", "trainval", "test")] == [6, 2, 8, 2]
    assert {r.name for r in get_imdb(f"voc:{root}").records} == names["trainval"]
    with pytest.raises(DataError, match=r"a split of train, val, .*found 'tset'.*'test'"):
        load(root, "tset")
