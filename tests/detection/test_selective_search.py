"""Selective search: proposals computed, kept, and read from py-faster-rcnn's files."""

import logging
import os

import cv2
import numpy as np
import pytest
import scipy.io
from drawn_records import make_cfg, make_dataset, make_record

from demitasse.detection import selective_search
from demitasse.detection.proposal_methods import proposals_for
from demitasse.detection.proposals import save_proposals
from demitasse.detection.roidb import make_roidb
from demitasse.detection.selective_search import (
    cache_path,
    read_mat_proposals,
    selective_search_proposals,
)
from demitasse.engine.cores import usable_cores
from demitasse.engine.errors import DataError


def scene(size=(60, 80), box=(20, 10, 49, 39)):
    """A grey image with one red rectangle."""
    image = np.full((*size, 3), 128, np.uint8)
    x1, y1, x2, y2 = box
    image[y1 : y2 + 1, x1 : x2 + 1] = (0, 0, 255)
    return image


def record(k=0, size=(60, 80), **more):
    return make_record(k, size, [[20, 10, 49, 39]], draw=lambda: scene(size), **more)


def best_overlap(boxes):
    dataset = make_dataset(record())
    return make_roidb(dataset, proposals={"image0": boxes})[0].rois.overlaps[1:].max()


def test_it_finds_a_rectangle():
    boxes = selective_search.selective_search(scene())
    assert boxes.dtype == np.float32
    assert best_overlap(boxes) > 0.9
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (79, 59)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 2).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    np.testing.assert_array_equal(boxes, selective_search.selective_search(scene()))


def test_large_images_are_searched_at_a_smaller_size():
    large = cv2.resize(scene(), None, fx=12, fy=12, interpolation=cv2.INTER_NEAREST)
    boxes = selective_search.selective_search(large)
    assert boxes[:, 2].max() == 959 and boxes[:, 3].max() == 719
    target = np.array([20, 10, 50, 40]) * 12 - (0, 0, 1, 1)
    assert np.abs(boxes - target).max(axis=1).min() <= 6


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (3, 3)])
def test_tiny_images(size):
    boxes = selective_search.selective_search(np.zeros((*size, 3), np.uint8))
    assert boxes.shape[1] == 4 and len(boxes) == (size == (3, 3))


def test_results_are_kept_for_the_very_images(tmp_path, monkeypatch):
    dataset = make_dataset(record(0), record(1))
    first = selective_search_proposals(dataset, tmp_path, threads=2)
    assert list(first) == ["image0", "image1"] and best_overlap(first["image1"]) > 0.9
    monkeypatch.setattr(selective_search, "selective_search", None)  # would fail if called
    again = selective_search_proposals(dataset, tmp_path)
    for name, boxes in first.items():
        np.testing.assert_array_equal(again[name], boxes)
    other = make_dataset(record(0), record(1, size=(61, 80)))
    assert cache_path(other, tmp_path) != cache_path(dataset, tmp_path)
    assert "/" not in os.path.basename(cache_path(make_dataset(name="voc:/a/b"), "x"))


def test_threads_follow_the_environment(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(selective_search, "_search_all", lambda *args: counts.append(args[-1]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    selective_search_proposals(make_dataset(record(0)), tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    selective_search_proposals(make_dataset(record(0)), tmp_path)
    assert counts == [usable_cores(), 1]


def counted_search(monkeypatch, limit):
    """Replace the search by one that is stopped after `limit` images; returns the list of calls."""
    calls = []

    def search(image):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(image)
        return np.array([[0, 0, 5, 5]], np.float32)

    monkeypatch.setattr(selective_search, "selective_search", search)
    return calls


def test_a_run_that_was_stopped_continues(tmp_path, monkeypatch):
    dataset = make_dataset(*(record(k) for k in range(4)))
    counted_search(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        selective_search_proposals(dataset, tmp_path, threads=1)
    calls = counted_search(monkeypatch, 9)
    assert len(selective_search_proposals(dataset, tmp_path, threads=1)) == 4
    assert len(calls) == 2


def test_results_are_saved_now_and_then(tmp_path, monkeypatch):
    counted_search(monkeypatch, 9)
    monkeypatch.setattr(selective_search, "_SAVE_SECONDS", -1.0)
    saved = []
    monkeypatch.setattr(selective_search, "save_proposals", lambda p, f: saved.append(len(f)))
    selective_search_proposals(make_dataset(*(record(k) for k in range(3))), tmp_path, threads=1)
    assert saved == [1, 2, 3, 3]


def test_an_image_that_cannot_be_read_has_none(tmp_path, caplog):
    missing = make_record(1, path=str(tmp_path / "no.jpg"))
    with caplog.at_level(logging.WARNING, logger="demitasse.detection"):
        found = selective_search_proposals(make_dataset(record(0), missing), tmp_path)
    assert len(found["image0"]) and found["image1"].shape == (0, 4)
    assert "image 'image1' has no proposals" in caplog.text


def write_mat(path, tables, **more):
    cells = np.empty((1, len(tables)), object)
    for k, table in enumerate(tables):
        cells[0, k] = np.array(table, np.float64)
    os.makedirs(path.parent, exist_ok=True)
    scipy.io.savemat(path, {"boxes": cells, **more})


def test_files_of_py_faster_rcnn(tmp_path):
    # y1, x1, y2, x2 from 1; each box counts once, thin ones do not count.
    tables = [[[3, 2, 10, 20], [1, 1, 9, 9], [3, 2, 10, 20], [1, 5, 2, 9]], [[2, 3, 4, 7]]]
    write_mat(tmp_path / "selective_search_data" / "drawn.mat", tables)
    dataset = make_dataset(record(0), record(1))
    found = selective_search_proposals(dataset, tmp_path)
    assert found["image0"].tolist() == [[1, 2, 19, 9], [0, 0, 8, 8]]
    assert found["image1"].tolist() == [[2, 1, 6, 3]]
    # Names, if there are any, say whose boxes they are.
    names = np.array([["image1"], ["image0"]], object)
    write_mat(tmp_path / "named.mat", tables, images=names)
    found = read_mat_proposals([str(tmp_path / "named.mat")], dataset)
    assert len(found["image0"]) == 1 and len(found["image1"]) == 2


def test_files_of_several_data_sets(tmp_path):
    for part, x in (("a", 1), ("b", 11)):
        write_mat(tmp_path / "selective_search_data" / f"{part}.mat", [[[1, x, 9, 20]]])
    dataset = make_dataset(record(0), record(1), name="a+b")
    found = selective_search_proposals(dataset, tmp_path)
    assert [boxes[0, 0] for boxes in found.values()] == [0, 10]


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "x.mat"
    write_mat(path, [[[1, 1, 9, 9]]])
    with pytest.raises(DataError, match=r"x.mat: expected boxes of 2 images.*found 1 without"):
        read_mat_proposals([str(path)], make_dataset(record(0), record(1)))
    write_mat(path, [[[1, 1, 9, 9]]], images=np.array([["else"]], object))
    with pytest.raises(DataError, match="none of 'image0'"):
        read_mat_proposals([str(path)], make_dataset(record(0)))
    for content in (b"", b"no matlab file", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x.mat: expected a MATLAB file"):
            read_mat_proposals([str(path)], make_dataset(record(0)))
    scipy.io.savemat(path, {"bboxes": 1})
    with pytest.raises(DataError, match=r"x.mat: expected a MATLAB file"):
        read_mat_proposals([str(path)], make_dataset(record(0)))


def test_methods(tmp_path):
    dataset, cfg = make_dataset(record()), make_cfg()
    assert proposals_for(dataset, "gt", cfg) is None
    boxes = np.array([[0, 0, 5, 5, 0.5]], np.float32)
    save_proposals(tmp_path / "p.npz", {"image0": boxes})
    found = proposals_for(dataset, "rpn", cfg, tmp_path / "p.npz")
    np.testing.assert_array_equal(found["image0"], boxes)
    with pytest.raises(DataError, match="a file of proposals"):
        proposals_for(dataset, "rpn", cfg)
    with pytest.raises(DataError, match="Did you mean 'selective_search'"):
        proposals_for(dataset, "selective_serch", cfg)
