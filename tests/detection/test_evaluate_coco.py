"""COCO's twelve numbers of data sets that are not COCO's."""

import sys

import numpy as np
import pytest
from made_up import make_dataset

from demitasse.detection import evaluate_coco
from demitasse.detection.evaluate import coco_eval, coco_table
from demitasse.detection.evaluate_coco import NUMBERS
from demitasse.engine.errors import DataError

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

SMALL, MEDIUM, LARGE = (10, 10, 29, 29), (50, 50, 99, 99), (100, 20, 250, 180)


def numbers_of(objects, detections):
    """COCO's numbers for class 1 of one image."""
    boxes = np.array(detections, float).reshape(-1, 5)
    return coco_eval(make_dataset({"a": objects}), [[[]], [boxes], [[]]])


def test_perfect_detections(capsys):
    objects = [(1, *SMALL), (1, *MEDIUM), (1, *LARGE)]
    numbers = numbers_of(objects, [[*o[1:], 0.5] for o in objects])
    assert tuple(numbers) == NUMBERS
    assert numbers.pop("AR_1") == pytest.approx(1 / 3)
    assert list(numbers.values()) == pytest.approx([1] * 11)
    assert capsys.readouterr().out == ""


def test_overlap_counts_inclusive_corners():
    """40 of 50 columns: found at the thresholds 0.5 to 0.8, which is 7 of 10."""
    numbers = numbers_of([(1, *MEDIUM)], [[50, 50, 89, 99, 0.5]])
    assert numbers["AP"] == pytest.approx(0.7) and numbers["AR_100"] == pytest.approx(0.7)
    assert numbers["AP50"] == numbers["AP75"] == pytest.approx(1)
    assert numbers["AP_small"] == numbers["AP_large"] == -1


def test_wrong_detections_lower_precision():
    numbers = numbers_of([(1, *MEDIUM)], [[*LARGE, 0.9], [*MEDIUM, 0.5]])
    assert numbers["AP"] == pytest.approx(0.5) and numbers["AR_100"] == pytest.approx(1)
    assert numbers["AR_1"] == 0


@pytest.mark.parametrize("kind", ["crowd", "difficult"])
def test_ignored_objects(kind):
    """They need not be found, and may be found twice."""
    numbers = numbers_of([(1, *LARGE, kind), (1, *MEDIUM)], [[*MEDIUM, 0.5]])
    assert numbers["AP"] == pytest.approx(1) and numbers["AR_100"] == pytest.approx(1)
    twice = [[*LARGE, 0.9], [*LARGE, 0.8], [*MEDIUM, 0.5]]
    numbers = numbers_of([(1, *LARGE, kind), (1, *MEDIUM)], twice)
    assert numbers["AP"] == pytest.approx(1) and numbers["AR_100"] == pytest.approx(1)


def test_the_numbers_are_pycocotools_own(monkeypatch):
    rng = np.random.default_rng(0)
    objects = {}
    for name in "abcdefgh":
        corners = rng.integers(0, 200, (rng.integers(0, 6), 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 150, corners.shape)], axis=1)
        flags = rng.choice(["", "crowd", "difficult"], len(boxes), p=[0.7, 0.15, 0.15])
        objects[name] = [
            (rng.integers(1, 3), *box, *([flag] if flag else []))
            for box, flag in zip(boxes.tolist(), flags)
        ]
    dataset = make_dataset(objects)
    all_boxes = [[[] for _ in dataset.records] for _ in dataset.classes]
    for i, record in enumerate(dataset.records):
        for label in (1, 2):
            near = record.boxes[record.labels == label].repeat(2, axis=0)
            far = rng.uniform(0, 100, (rng.integers(0, 3), 4)) + (0, 0, 100, 100)
            boxes = np.concatenate([near + rng.normal(0, 6, near.shape), far])
            all_boxes[label][i] = np.column_stack([boxes, rng.uniform(0, 1, len(boxes))])
    found = coco_eval(dataset, all_boxes)
    monkeypatch.setattr(evaluate_coco, "evaluate", lambda evaluation: evaluation.evaluate())
    assert found == coco_eval(dataset, all_boxes)
    assert 0 < found["AP"] < 1 and 0 < found["AR_small"] < 1


def test_areas_of_the_records_count():
    dataset = make_dataset({"a": [(1, *LARGE)]})
    object.__setattr__(dataset.records[0], "areas", np.array([100.0]))  # of a segmentation
    numbers = coco_eval(dataset, [[[]], [np.array([[*LARGE, 0.5]])], [[]]])
    assert numbers["AP_small"] == pytest.approx(1) and numbers["AP_large"] == -1


def test_no_detections_and_several_classes():
    assert numbers_of([(1, *MEDIUM)], [])["AP"] == 0
    dataset = make_dataset({"a": [(1, *MEDIUM)], "b": [(2, *MEDIUM)]})
    box = np.array([[*MEDIUM, 0.5]])
    assert coco_eval(dataset, [[[], []], [box, []], [[], []]])["AP"] == pytest.approx(0.5)
    assert coco_eval(dataset, [[[], []], [[], box], [box, []]])["AP"] == 0


def test_table():
    lines = coco_table(numbers_of([(1, *MEDIUM)], [[*MEDIUM, 0.5]])).splitlines()
    assert len(lines) == 12 and lines[0] == "AP         1.0000" and lines[3].split()[1] == "-1.0000"


def test_pycocotools_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(DataError, match=r"pycocotools.*pip install '\.\[detection\]'"):
        numbers_of([(1, *MEDIUM)], [])
