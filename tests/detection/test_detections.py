"""Files of detections: our own and PASCAL VOC's."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import make_dataset, random_boxes

from demitasse.detection.detections import apply_nms
from demitasse.detection.evaluate import load_detections, save_detections, write_voc_results
from demitasse.engine.errors import DataError, ModelFileError

DATASET = make_dataset({"a/1": [], "b 2": [], "c": []})


def random_detections(seed, dataset=DATASET):
    rng = np.random.default_rng(seed)
    all_boxes = [[[] for _ in dataset.records]]
    for _ in dataset.classes[1:]:
        counts = rng.integers(0, 4, len(dataset))
        boxes = [random_boxes(rng, n) + rng.random((n, 4), np.float32) for n in counts]
        scores = [rng.random((n, 1), np.float32) for n in counts]
        all_boxes.append([np.concatenate(pair, axis=1) for pair in zip(boxes, scores)])
    return all_boxes


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a_images, b_images in zip(found, expected):
        assert len(a_images) == len(b_images)
        for a, b in zip(a_images, b_images):
            np.testing.assert_array_equal(a, np.asarray(b, np.float32).reshape(-1, 5))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_detections_come_back(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("detections") / "detections.json"
    all_boxes = random_detections(seed)
    save_detections(path, DATASET, all_boxes)
    assert_same(load_detections(path, DATASET), all_boxes)
    assert [p.name for p in path.parent.iterdir()] == ["detections.json"]


def test_images_and_classes_are_matched_by_name(tmp_path):
    all_boxes = random_detections(1)
    save_detections(tmp_path / "d", DATASET, all_boxes)
    other = make_dataset({"c": [], "a/1": []}, ("__background__", "dog"))
    expected = [[[], []], [all_boxes[2][2], all_boxes[2][0]]]
    assert_same(load_detections(tmp_path / "d", other), expected)


@pytest.mark.parametrize(
    "dataset, match",
    [
        (make_dataset({"a/1": [], "d": [], "e": []}), "3 images .* found not 'd' and 1 more"),
        (make_dataset({"a/1": []}, ("__background__", "cats")), "'cats'.*Did you mean 'cat'"),
    ],
)
def test_a_file_of_another_data_set(tmp_path, dataset, match):
    save_detections(tmp_path / "d", DATASET, random_detections(0))
    with pytest.raises(DataError, match=match):
        load_detections(tmp_path / "d", dataset)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(tmp_path, bad):
    all_boxes = random_detections(0)
    all_boxes[2][1] = np.array([[0, 0, 1, 1, bad]])
    with pytest.raises(DataError, match="class dog, image b 2: expected finite"):
        save_detections(tmp_path / "d", DATASET, all_boxes)
    assert list(tmp_path.iterdir()) == []


def good_content(tmp_path):
    save_detections(tmp_path / "good", DATASET, random_detections(3))
    return json.loads((tmp_path / "good").read_text())


ROW = [1, 0, 1.0, 2.0, 3.0, 4.0, 0.5]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"format": "another"}, "demitasse detections 1"),
        ({"classes": "cat"}, "'classes': a list of names"),
        ({"classes": ["__background__", "cat", "dog", "dog"]}, "each name once"),
        ({"images": [1, 2, 3]}, "'images': a list of names"),
        ({"detections": {}}, "list of rows of 7 numbers"),
        ({"detections": [[1, 2]]}, r"7 numbers, found shape \(1, 2\)"),
        ({"detections": [ROW, [1]]}, "7 numbers"),
        ({"detections": [[*ROW[:6], "x"]]}, "7 numbers"),
        ({"detections": [[*ROW[:6], {}]]}, "7 numbers"),
        ({"detections": [[*ROW[:6], None]]}, "not finite"),
        ({"detections": [[*ROW[:6], float("nan")]]}, "not finite"),
        ({"detections": [[*ROW[:6], 10**400]]}, "7 numbers"),
        ({"detections": [[*ROW[:6], 1e300]]}, "not finite"),
        ({"detections": [[3, *ROW[1:]]]}, "numbers of classes from 0 to 2, found 3 to 3"),
        ({"detections": [[-1, *ROW[1:]]]}, "numbers of classes from 0 to 2"),
        ({"detections": [[1, 7, *ROW[2:]]]}, "numbers of images from 0 to 2, found 7 to 7"),
        ({"detections": [[1.5, *ROW[1:]]]}, "whole numbers"),
    ],
)
def test_bad_files(tmp_path, change, match):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**good_content(tmp_path), **change}))
    with pytest.raises(DataError, match=match) as error:
        load_detections(path, DATASET)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100000])
def test_files_that_are_something_else(tmp_path, text):
    (tmp_path / "d").write_bytes(text)
    with pytest.raises(DataError, match="a JSON"):
        load_detections(tmp_path / "d", DATASET)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        load_detections(tmp_path / "none", DATASET)


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, 10**6), value=st.integers(32, 126), cut=st.booleans())
def test_damaged_files_give_our_error_or_load(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("damage") / "d"
    save_detections(path, DATASET, random_detections(5))
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] = value
    path.write_bytes(data[:place] if cut else data)
    try:
        found = load_detections(path, DATASET)
        assert [len(images) for images in found] == [3, 3, 3]
    except DataError as error:
        assert str(path) in str(error)


# ---- suppression, VOC's files


def test_nms_in_each_image_and_class():
    near = [[0, 0, 9, 9, 0.5], [0, 0, 9, 8, 0.9], [5, 5, 5, 9, 1.0]]
    found = apply_nms([[[], []], [np.array(near), np.array(near[:1])], [[], []]], 0.3)
    np.testing.assert_array_equal(found[1][0], np.float32([near[1]]))  # the thin one is gone
    np.testing.assert_array_equal(found[1][1], np.float32([near[0]]))
    assert len(found[2][0]) == 0


def test_voc_files(tmp_path):
    all_boxes = [[[], [], []], [[], np.array([[0, 1, 10.26, 11, 0.12345]]), []], [[], [], []]]
    all_boxes[2][2] = np.array([[1, 2, 3, 4, 1.0], [5, 6, 7, 8, 0.5]])
    paths = write_voc_results(DATASET, all_boxes, tmp_path)
    assert paths == [str(tmp_path / f"comp4_det_test_{name}.txt") for name in ("cat", "dog")]
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "b 2 0.123 1.0 2.0 11.3 12.0\n"
    dog = "c 1.000 2.0 3.0 4.0 5.0\nc 0.500 6.0 7.0 8.0 9.0\n"
    assert (tmp_path / "comp4_det_test_dog.txt").read_text() == dog


def test_a_class_that_no_file_can_be_named_after(tmp_path):
    dataset = make_dataset({}, ("__background__", "../x"))
    with pytest.raises(DataError, match="slash"):
        write_voc_results(dataset, [[], []], tmp_path)
