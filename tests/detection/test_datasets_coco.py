"""COCO's files: records, bad annotations, official folders."""

import json
from pathlib import Path

import data_on_disk as disk
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demitasse.detection.datasets import get_imdb
from demitasse.detection.datasets.coco_json import read_instances
from demitasse.engine.errors import DataError
from demitasse.tools.check_dataset import main


def box(image, xywh, category=7, number=1, **more):
    x, y, w, h = xywh
    return {"id": number, "image_id": image, "category_id": category, "bbox": [x, y, w, h], **more}


def load(tmp_path, annotations, images=(1,), which="all"):
    name = disk.coco(tmp_path, images, annotations)
    return get_imdb(f"{name}:{which}", report=False)


def found(dataset):
    return [(Path(p.file).name, p.box, p.reason) for p in dataset.problems]


def test_records(tmp_path):
    annotations = [
        box(5, (10, 4.5, 20, 30), number=101, area=333.5, segmentation=[[1, 2, 3, 4, 5, 6]]),
        box(5, (0, 0, 60, 40), 3, number=102, iscrowd=1, segmentation={"counts": [1], "size": [1]}),
        box(9, (1, 1, 0.5, 2), number=103),
    ]
    dataset = load(tmp_path, annotations, images=(5, 9, 2))
    assert dataset.classes == ("__background__", "dog", "cat")  # in the order of the ids
    assert dataset.category_ids == (None, 3, 7)
    records = {r.name: r for r in dataset.records}
    assert {n: r.image_id for n, r in records.items()} == {"2": 2, "5": 5, "9": 9}
    first = records["5"]
    np.testing.assert_array_equal(first.boxes, [[10, 4.5, 29, 33.5], [0, 0, 59, 39]])
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [2, 1] and first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [333.5, 2400] and not first.difficult.any()
    assert first.read().shape == (40, 60, 3)
    assert records["9"].boxes.tolist() == [[1, 1, 1, 2]]  # below a pixel: one pixel
    assert records["2"].boxes.shape == (0, 4) and dataset.problems == []


@pytest.mark.parametrize(
    ("entry", "boxes", "reason"),
    [
        (box(1, (5, 5, 0, 9)), [], "has no size"),
        (box(1, (5, 5, 9, -1)), [], "has no size"),
        (box(1, (5, 5, 9, 9), area=0), [], "has no size"),
        (box(1, (60, 5, 9, 9)), [], "outside of the image of 60 x 40"),
        (box(1, (-9, 5, 9, 9)), [], "outside of the image"),
        (box(1, (float("nan"), 5, 9, 9)), [], "not finite"),
        (box(1, (5, 5, float("inf"), 9)), [], "not finite"),
        (box(1, (50, 30, 30, 20)), [[50, 30, 59, 39]], "by 20; clipped"),
        (box(1, (50.5, 5, 10, 9)), [[50.5, 5, 59, 13]], None),
        (box(1, (5, 5, 9, 9), category=8), [], "unknown category 8"),
        (box(1, (5, 5, 9, 9), category="cat"), [], "category_id 'cat'"),
        ({"id": 1, "image_id": 1, "category_id": 7}, [], "bbox None is not four numbers"),
        (box(1, (5, "5", 9, 9)), [], "is not four numbers"),
        (box(1, (5, 10**400, 9, 9)), [], "is not four numbers"),
        (box(1, (5, True, 9, 9)), [], "is not four numbers"),
        (box(77, (5, 5, 9, 9)), [], "image_id 77 is that of no image"),
        (box([1], (5, 5, 9, 9)), [], "is that of no image"),
    ],
)
def test_bad_annotations(tmp_path, entry, boxes, reason):
    dataset = load(tmp_path, [box(1, (1, 1, 9, 9), number=50), {**entry, "id": 51}])
    np.testing.assert_allclose(dataset.records[0].boxes, [[1, 1, 9, 9], *boxes])
    if reason is None:
        assert dataset.problems == []
    else:
        ((file, number, text),) = found(dataset)
        assert (file, number) == ("instances.json", 51) and reason in text


sides = st.floats(-100, 200) | st.integers(-100, 200) | st.floats() | st.none()


@given(st.lists(st.tuples(sides, sides, sides, sides), max_size=5))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_all_boxes_are_sound_or_named(tmp_path, boxes):
    dataset = load(tmp_path, [box(1, b, number=i) for i, b in enumerate(boxes, 1)])
    (record,) = dataset.records
    x1, y1, x2, y2 = record.boxes.T
    assert (x1 >= 0).all() and (x1 <= x2).all() and (x2 <= 59).all()
    assert (y1 >= 0).all() and (y1 <= y2).all() and (y2 <= 39).all()
    left_out = [p for p in dataset.problems if "left out" in p.reason]
    assert len(record.boxes) + len(left_out) == len(boxes) == len(record.areas) + len(left_out)


def test_sizes_and_images(tmp_path):
    entries = [
        {"id": 1, "file_name": "sub/a.png"},
        {"id": 2, "file_name": "a.png", "width": 40, "height": 60},
        {"id": "three", "file_name": "sub/a.jpg", "width": 60, "height": 40},
        {"id": 4, "file_name": "gone.jpg", "width": 60, "height": 40},
        {"id": 2, "file_name": "again.jpg"},
        {"id": 6},
        {"file_name": "b.jpg"},
    ]
    name = disk.coco(tmp_path, entries, [box("three", (1, 1, 9, 9)), box(6, (1, 1, 9, 9))])
    (tmp_path / "images" / "gone.jpg").unlink()
    dataset = get_imdb(f"{name}:all", report=False)
    names = {r.image_id: r.name for r in dataset.records}
    assert names == {1: "sub/a", 2: "a", None: "sub/a:three"}  # each record has its own
    assert {(r.width, r.height) for r in dataset.records} == {(60, 40)}
    reasons = sorted(reason for _, _, reason in found(dataset))
    assert [r for r in reasons if "left out" not in r] == [
        "image id 2: size 40 x 60, but its image has 60 x 40; corrected"
    ]
    for text in ("image id 2 is there twice", "image id 6 has no file_name", "image number 7"):
        assert any(text in reason for reason in reasons)
    assert len(reasons) == 5 and str(tmp_path / "images/gone.jpg") in {
        p.file for p in dataset.problems
    }


@pytest.mark.parametrize("file_name", ["\0.jpg", "\ud800.jpg", "a" * 5000, "/", "..", "."])
def test_names_that_no_image_has(tmp_path, file_name, capsys):
    name = disk.coco(tmp_path, [1], [])
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": "\ud800", "file_name": file_name, "width": 60, "height": 40})
    path.write_text(json.dumps(content))
    dataset = get_imdb(f"{name}:all", report=False)
    assert len(dataset) == 1
    assert [reason for _, _, reason in found(dataset) if "expected an image file" in reason]
    assert main([f"{name}:all"]) == 1 and "1 problem." in capsys.readouterr().out


def test_paths_of_another_machine(tmp_path):
    name = disk.coco(tmp_path, [1], [])
    path = tmp_path / "instances.json"
    path.write_text(path.read_text().replace("1.jpg", "C:\\\\data\\\\1.jpg"))
    assert get_imdb(f"{name}:all").records[0].path == str(tmp_path / "images" / "1.jpg")


def test_seeded_splits(tmp_path):
    name = disk.coco(tmp_path, range(10), [])
    ids = {
        s: {r.image_id for r in get_imdb(f"{name}:{s}").records} for s in ("train", "val", "test")
    }
    assert [len(i) for i in ids.values()] == [6, 2, 2]
    assert set.union(*ids.values()) == set(range(10))
    assert {r.image_id for r in get_imdb(name).records} == ids["train"] | ids["val"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "a JSON file"),
        ('{"images": [', "a JSON file"),
        ("[" * 100000, "a JSON file"),
        ("\xff", "a JSON file"),
        ("[]", "a JSON object, found a list"),
        ("{}", r"a list 'images', found only \[\]"),
        ('{"images": [], "categories": []}', "a list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": "a"}]}', "number 1"),
        (
            '{"images": [], "annotations": [], "categories": '
            '[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            "category number 2: expected an id and a name that no other has",
        ),
        ('{"images": [], "annotations": [], "categories": []}', "at least one usable image"),
        ('{"images": [1], "annotations": [2], "categories": []}', "at least one usable image"),
    ],
)
def test_broken_files(tmp_path, text, match):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=match):
        get_imdb(f"coco:{tmp_path / 'a.json'}:{tmp_path / 'images'}:all", report=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "image_id", "category_id", "bbox", "file_name", "name"]), v
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.fixed_dictionaries({k: st.lists(values, max_size=4) for k in (
    "images", "annotations", "categories")}))  # fmt: skip
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_content_is_read_or_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    try:
        instances = read_instances(str(path))
    except DataError as error:
        assert "a.json" in str(error)
    else:
        assert set(instances.objects) <= set(instances.images)


def test_official_folders(tmp_path):
    root = tmp_path / "coco"
    for images in ("images/val2014", "val2017"):
        disk.image(root / images / "COCO_1.jpg")
    entry = {"id": 1, "file_name": "COCO_1.jpg", "width": 60, "height": 40}
    for file in ("instances_minival2014.json", "instances_val2017.json"):
        disk.coco(root, [entry], [box(1, (1, 1, 9, 9))], file=f"annotations/{file}")
    for name in ("coco_2014_minival", "coco_2017_val"):
        dataset = get_imdb(name, tmp_path)
        assert (dataset.name, len(dataset), len(dataset.records[0].labels)) == (name, 1, 1)
    joined = get_imdb("coco_2014_minival+coco_2017_val", tmp_path)
    assert [r.name for r in joined.records] == ["coco_2014_minival/COCO_1", "coco_2017_val/COCO_1"]
    assert joined.category_ids == (None, 3, 7)
    match = r"instances_train2014\.json and a folder .*coco/images/train2014 or .*coco/train2014, "
    with pytest.raises(DataError, match=match + r".*annotations_trainval2014\.zip"):
        get_imdb("coco_2014_train", tmp_path)


def test_test_sets_have_no_annotations(tmp_path):
    disk.image(tmp_path / "coco" / "images" / "test2017" / "1.jpg")
    file = tmp_path / "coco" / "annotations" / "image_info_test-dev2017.json"
    disk.coco(tmp_path / "coco", [1], None, file=f"annotations/{file.name}")
    content = json.loads(file.read_text())
    del content["annotations"]
    file.write_text(json.dumps(content))
    dataset = get_imdb("coco_2017_test-dev", tmp_path)
    assert len(dataset) == 1 and not len(dataset.records[0].boxes) and not dataset.problems


def test_problems_are_logged_shortly(tmp_path, caplog):
    annotations = [box(1, (1, 1, 0, 0), number=i) for i in range(30)]
    name = disk.coco(tmp_path, [1], annotations)
    with caplog.at_level("WARNING", "demitasse"):
        get_imdb(f"{name}:all")
    assert len(caplog.messages) == 11
    assert "instances.json, object 0: image id 1: box" in caplog.messages[0]
    assert "20 more problems" in caplog.messages[-1]
