"""Average precision: reference numbers, rules by example, and a brute force."""

import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import iou, make_dataset, random_boxes

from demitasse.detection import evaluate
from demitasse.detection.evaluate import mean_ap, voc_ap, voc_eval
from demitasse.detection.evaluate_voc import best_objects
from demitasse.engine.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "frcnn" / "voc_eval.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def golden_dataset(golden):
    classes = ["__background__", *golden["classes"].tolist()]
    images = {}
    for name in golden["imageset"].tolist():
        objects = []
        for node in ET.fromstring(str(golden[f"xml/{name}"])).iter("object"):
            box = [int(node.findtext(f"bndbox/{k}")) - 1 for k in ("xmin", "ymin", "xmax", "ymax")]
            kind = "difficult" if node.findtext("difficult") == "1" else ""
            objects.append((classes.index(node.findtext("name")), *box, kind))
        images[name] = objects
    return make_dataset(images, classes)


def golden_detections(golden, dataset):
    names = [record.name for record in dataset.records]
    all_boxes = [[[] for _ in names] for _ in dataset.classes]
    for label, name in list(enumerate(dataset.classes))[1:]:
        for line in str(golden[f"det/{name}"]).splitlines():
            image, score, *box = line.split()
            row = [*(float(v) - 1 for v in box), float(score)]
            all_boxes[label][names.index(image)].append(row)
    return [[np.array(rows).reshape(-1, 5) for rows in images] for images in all_boxes]


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_curves_are_py_faster_rcnns(golden, threshold):
    dataset = golden_dataset(golden)
    all_boxes = golden_detections(golden, dataset)
    for use_07, key in ((False, "ap_area"), (True, "ap07")):
        results = voc_eval(dataset, all_boxes, threshold, use_07)
        assert list(results) == golden["classes"].tolist()
        for name, result in results.items():
            expected = f"out/{name}/iou{threshold}"
            np.testing.assert_allclose(result.rec, golden[f"{expected}/rec"], atol=1e-12)
            np.testing.assert_allclose(result.prec, golden[f"{expected}/prec"], atol=1e-12)
            assert result.ap == pytest.approx(float(golden[f"{expected}/{key}"]), abs=1e-12)


def test_area_and_eleven_points_are_py_faster_rcnns(golden):
    curve = golden["voc_ap/rec"], golden["voc_ap/prec"]
    assert voc_ap(*curve) == pytest.approx(float(golden["voc_ap/ap_area"]), abs=1e-12)
    assert voc_ap(*curve, True) == pytest.approx(float(golden["voc_ap/ap07"]), abs=1e-12)


@pytest.mark.parametrize("use_07", [False, True])
def test_ap_of_simple_curves(use_07):
    assert voc_ap([], [], use_07) == 0
    assert voc_ap([0.5, 1.0], [1.0, 1.0], use_07) == pytest.approx(1)
    # Half of the recall at precision 1: 6 of the points 0, 0.1 ... 1.
    assert voc_ap([0.5], [1.0], use_07) == pytest.approx(6 / 11 if use_07 else 0.5)


def result_of(objects, detections, **options):
    """The result for class 1 of one image."""
    dataset = make_dataset({"a": objects})
    return voc_eval(dataset, [[[]], [np.array(detections, float)], [[]]], **options)["cat"]


BOX = (10, 10, 29, 29)


def test_an_object_is_found_once():
    result = result_of([(1, *BOX)], [[*BOX, 0.5], [*BOX, 0.9], [*BOX, 0.7]])
    assert result.rec.tolist() == [1, 1, 1]
    assert result.prec.tolist() == [1, 1 / 2, 1 / 3]


def test_difficult_objects_and_crowds_do_not_count():
    for kind in ("difficult", "crowd"):
        objects = [(1, *BOX, kind), (1, 100, 100, 150, 150)]
        result = result_of(objects, [[*BOX, 0.9], [*BOX, 0.8], [100, 100, 150, 150, 0.1]])
        assert result.objects == 1 and result.ap == 1
        assert result.prec.tolist() == [0, 0, 1]  # the first two are neither right nor wrong


def test_iou_must_be_above_the_threshold_with_inclusive_corners():
    half = (10, 10, 29, 19)  # 20 x 10 of 20 x 20 pixels
    assert result_of([(1, *BOX)], [[*half, 0.9]]).ap == 0
    assert result_of([(1, *BOX)], [[*half, 0.9]], iou=0.4999).ap == 1


def test_a_detection_whose_object_is_taken_does_not_get_the_second_best():
    objects = [(1, 10, 10, 29, 29), (1, 12, 10, 31, 29)]
    result = result_of(objects, [[*BOX, 0.9], [10, 10, 29, 29, 0.8]])
    assert result.rec.tolist() == [0.5, 0.5] and result.prec.tolist() == [1, 0.5]


def test_other_images_and_classes_do_not_count():
    dataset = make_dataset({"a": [(1, *BOX)], "b": [(2, *BOX)]})
    box = np.array([[*BOX, 0.5]])
    results = voc_eval(dataset, [[[], []], [[], box], [box, []]])
    assert [r.ap for r in results.values()] == [0, 0]
    results = voc_eval(dataset, [[[], []], [box, []], [[], box]])
    assert [r.ap for r in results.values()] == [1, 1] and mean_ap(results) == 1


def test_classes_without_objects_are_left_out_of_the_mean():
    dataset = make_dataset({"a": [(1, *BOX), (2, *BOX, "difficult")]})
    results = voc_eval(dataset, [[[]], [[[*BOX, 0.5]]], [[[*BOX, 0.5]]]])
    assert np.isnan(results["dog"].ap) and mean_ap(results) == 1
    assert evaluate.ap_table(results).splitlines() == [
        "cat      1.0000", "dog      no objects", "mean AP  1.0000",
    ]  # fmt: skip


def test_no_records_at_all():
    results = voc_eval(make_dataset({}), [[], [], []])
    assert np.isnan(mean_ap(results)) and results["cat"].objects == 0


@pytest.mark.parametrize(
    "all_boxes, match",
    [
        ([[[]], [[]]], "each of 3 classes"),
        ([[[]], [[]], []], "class dog: expected boxes for each of 1 images"),
        ([[[]], [[]], [np.zeros((2, 4))]], r"class dog, image a: .*\(D, 5\), found shape \(2, 4\)"),
    ],
)
def test_detections_that_do_not_fit(all_boxes, match):
    with pytest.raises(DataError, match=match):
        voc_eval(make_dataset({"a": [(1, *BOX)]}), all_boxes)


def brute_force(dataset, images, label, threshold):
    """(right, wrong) of each detection, best first, by the rules one at a time."""
    found = [(row[4], i, row[:4]) for i, rows in enumerate(images) for row in rows.tolist()]
    taken, marks = set(), []
    for _, i, box in sorted(found, key=lambda item: -item[0]):
        record = dataset.records[i]
        own = np.flatnonzero(record.labels == label)
        best = max(own, key=lambda g: iou(box, record.boxes[g].tolist()), default=None)
        if best is None or iou(box, record.boxes[best].tolist()) <= threshold:
            marks.append((0, 1))
        elif record.difficult[best]:
            marks.append((0, 0))
        else:
            marks.append((0, 1) if (i, best) in taken else (1, 0))
            taken.add((i, best))
    return np.array(marks).reshape(-1, 2)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.3, 0.5]))
def test_curves_by_brute_force(seed, threshold):
    rng = np.random.default_rng(seed)
    kinds = ["", "", "difficult"]
    dataset = make_dataset(
        {
            f"i{k}": [(rng.integers(1, 3), *box, rng.choice(kinds)) for box in random_boxes(rng, n)]
            for k, n in enumerate(rng.integers(0, 5, rng.integers(1, 5)))
        }
    )
    all_boxes = [[[] for _ in dataset.records]]
    for _ in (1, 2):
        boxes = [random_boxes(rng, n) for n in rng.integers(0, 8, len(dataset))]
        scores = [rng.integers(0, 5, (len(b), 1)) / 4 for b in boxes]  # with equal ones
        all_boxes.append([np.concatenate(pair, axis=1) for pair in zip(boxes, scores)])
    results = voc_eval(dataset, all_boxes, threshold)
    for label, result in zip((1, 2), results.values()):
        right, wrong = brute_force(dataset, all_boxes[label], label, threshold).cumsum(axis=0).T
        assert result.objects == sum(
            np.count_nonzero((r.labels == label) & ~r.difficult) for r in dataset.records
        )
        np.testing.assert_allclose(result.prec, right / np.maximum(right + wrong, 1e-12))
        if result.objects:
            np.testing.assert_allclose(result.rec, right / result.objects)


def test_best_objects_where_there_are_none():
    owner, overlap = best_objects(np.ones((2, 4)), np.array([0, 1]), np.zeros((0, 4)), np.zeros(0))
    assert owner.tolist() == [-1, -1] and overlap.tolist() == [0, 0]


def test_many_images_take_seconds():
    """2000 images with 100 detections each."""
    rng = np.random.default_rng(0)
    count = 2000
    objects = {f"{i}": [(1 + i % 2, *box) for box in random_boxes(rng, 3)] for i in range(count)}
    dataset = make_dataset(objects)
    boxes = random_boxes(rng, 50 * count)
    images = np.split(np.concatenate([boxes, rng.random((len(boxes), 1))], axis=1), count)
    begin = time.perf_counter()
    voc_eval(dataset, [[[]] * count, images, images])
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize(
    "name, used",
    [
        ("voc_2007_test", True), ("voc_2012_val", False), ("shapes_test", False),
        ("voc_2007_val+voc_2007_test", True), ("voc_2007_val+voc_2012_val", False),
    ],
)  # fmt: skip
def test_which_data_sets_have_eleven_points(name, used):
    assert evaluate.uses_07_metric(name) == used


def test_the_usual_evaluation():
    box = np.array([[*BOX, 0.5]])
    dataset = make_dataset({"a": [(1, *BOX), (1, 0, 0, 5, 5), (2, *BOX)]}, name="voc_2007_test")
    numbers, text = evaluate.evaluate_detections(dataset, [[[]], [box], [box]])
    assert numbers == {"mAP": pytest.approx((6 / 11 + 1) / 2), "cat": 6 / 11, "dog": 1.0}
    assert "11 points" in text and "mean AP  0.7727" in text
    dataset = make_dataset({"a": [(1, *BOX), (2, *BOX)]}, name="coco_2017_val")
    numbers, text = evaluate.evaluate_detections(dataset, [[[]], [box], [box]])
    assert numbers["mAP"] == 1 and numbers["AP50"] == pytest.approx(1) and "AP75" in text


def test_data_of_cocos_without_pycocotools_have_the_table_and_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    box = np.array([[*BOX, 0.5]])
    dataset = make_dataset({"a": [(1, *BOX), (2, *BOX)]}, name="coco_2017_val")
    numbers, text = evaluate.evaluate_detections(dataset, [[[]], [box], [box]])
    assert numbers == {"mAP": 1, "cat": 1, "dog": 1}
    *table, line = text.splitlines()
    assert table[-1] == "mean AP  1.0000" and "pip install" in line
