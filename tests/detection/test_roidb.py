"""What is trained on: entries, RoIs, regression targets and their statistics."""

import numpy as np
import pytest
from drawn_records import make_cfg, make_dataset, make_record, pixels, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.boxes.transform import bbox_transform_inv
from demitasse.detection.roidb import (
    add_bbox_regression_targets,
    filter_roidb,
    make_roidb,
    regression_targets,
)
from demitasse.engine.errors import DataError


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    inner = max(width, 0) * max(height, 0)
    area = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return inner / (sum(area) - inner)


def test_mirrored_entries_follow_and_agree_with_mirrored_pixels():
    marked = pixels(30, 40, 0)
    marked[5:11, 3:8] = 255  # what the box is around
    record = make_record(0, boxes=[[3, 5, 7, 10]], labels=[2], draw=lambda: marked)
    roidb = make_roidb(make_dataset(record, make_record(1)))
    assert [(e.record.name, e.flipped) for e in roidb] == [
        ("image0", False), ("image1", False), ("image0", True), ("image1", True),
    ]  # fmt: skip
    image, box = roidb[2].read(), roidb[2].boxes[0].astype(int)
    np.testing.assert_array_equal(image, marked[:, ::-1])
    assert box.tolist() == [32, 5, 36, 10]
    assert (image[box[1] : box[3] + 1, box[0] : box[2] + 1] == 255).all()
    np.testing.assert_array_equal(roidb[2].mirrored().boxes, roidb[0].boxes)
    assert len(make_roidb(make_dataset(record), flipped=False)) == 1


def test_entries_upside_down_agree_with_their_pixels():
    marked = pixels(30, 40, 0)
    marked[5:11, 3:8] = 255
    record = make_record(0, boxes=[[3, 5, 7, 10]], labels=[2], draw=lambda: marked)
    dataset = make_dataset(record)
    roidb = make_roidb(dataset, vflipped=True)
    assert [(e.flipped, e.turned_over) for e in roidb] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    for entry, shown in zip(roidb, (marked, marked[:, ::-1], marked[::-1], marked[::-1, ::-1])):
        np.testing.assert_array_equal(entry.read(), shown)
        x1, y1, x2, y2 = entry.boxes[0].astype(int)
        assert (shown[y1 : y2 + 1, x1 : x2 + 1] == 255).all() and (x2 - x1, y2 - y1) == (4, 5)
        np.testing.assert_array_equal(entry.roi_boxes(), entry.boxes)
    np.testing.assert_array_equal(roidb[3].upside_down().boxes, roidb[1].boxes)
    assert len(make_roidb(dataset, flipped=False, vflipped=True)) == 2


def test_difficult_objects_and_crowds_are_not_learnt():
    boxes = [[0, 0, 9, 9], [10, 0, 19, 9], [0, 10, 29, 29]]
    record = make_record(
        0, boxes=boxes, labels=[1, 2, 3], difficult=[False, True, False],
        crowd=[False, False, True],
    )  # fmt: skip
    dataset = make_dataset(record)
    assert make_roidb(dataset)[0].labels.tolist() == [1]
    assert make_roidb(dataset, use_difficult=True)[0].labels.tolist() == [1, 2]
    # Of a proposal, 0.7 may lie in a crowd: here 7 and 8 of 10 rows.
    proposals = {"image0": np.array([[0, 7, 9, 16], [0, 8, 9, 17]])}
    kept = make_roidb(dataset, proposals=proposals)[0].rois.boxes[1:]
    np.testing.assert_array_equal(kept, [[0, 7, 9, 16]])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), objects=st.integers(0, 4), count=st.integers(0, 8))
def test_every_roi_has_the_object_that_it_overlaps_most(seed, objects, count):
    rng = np.random.default_rng(seed)
    boxes, given_boxes = (random_boxes(rng, n, 40, 30) for n in (objects, count))
    labels = rng.integers(1, 4, objects)
    proposals = {"image0": np.column_stack([given_boxes, rng.random(count)])}
    dataset = make_dataset(make_record(0, boxes=boxes, labels=labels))
    for entry in make_roidb(dataset, proposals=proposals):
        np.testing.assert_array_equal(entry.roi_boxes()[:objects], entry.boxes)
        assert entry.roi_labels()[:objects].tolist() == labels.tolist()
        assert len(entry.rois.boxes) == objects + count
        for k, box in enumerate(entry.roi_boxes()[objects:], objects):
            overlaps = [overlap(box, b) for b in entry.boxes]
            best = max(overlaps, default=0)
            assert entry.rois.overlaps[k] == pytest.approx(best, abs=1e-6)
            best_labels = [label for label, o in zip(labels, overlaps) if o > best - 1e-6]
            assert entry.roi_labels()[k] in (best_labels if best > 0 else [0])


def test_proposals_must_be_there_and_sound():
    dataset = make_dataset(make_record(0))
    for bad, message in [
        ({}, "image 'image0': expected boxes, found none"),
        ({"image0": np.zeros((2, 3))}, r"shape \(2, 3\)"),
        ({"image0": np.array([[5, 0, 4, 9]])}, "x1 <= x2"),
        ({"image0": np.array([[0, 0, np.nan, 9]])}, "finite"),
    ]:
        with pytest.raises(DataError, match=message):
            make_roidb(dataset, proposals=bad)


def test_entries_without_any_roi_are_for_an_rpn_only():
    empty = make_record(0, boxes=[], labels=[])
    nothing = {"image0": np.zeros((0, 4)), "image1": np.zeros((0, 4))}
    roidb = make_roidb(make_dataset(empty, make_record(1)), flipped=False, proposals=nothing)
    kept = filter_roidb(roidb, make_cfg())
    assert [e.record.name for e in kept] == ["image1"]
    assert len(filter_roidb(roidb, make_cfg(HAS_RPN=True))) == 2
    assert len(filter_roidb(roidb, make_cfg(), has_rpn=True)) == 2
    with pytest.raises(DataError, match="none of 1"):
        filter_roidb(roidb[:1], make_cfg())


def test_without_objects_all_proposals_are_background_whatever_the_lower_bound():
    empty = make_record(0, boxes=[], labels=[])
    crowd = make_record(1, boxes=[[0, 0, 9, 9]], labels=[1], crowd=[True])
    given = np.array([[0, 0, 5, 5], [25, 10, 35, 25]])
    proposals = {f"image{k}": given for k in range(3)}
    roidb = make_roidb(make_dataset(empty, crowd, make_record(2)), proposals=proposals)
    cfg = make_cfg(BG_THRESH_LO=0.1)
    kept = filter_roidb(roidb, cfg)
    assert len(kept) == 6
    splits = [[part.tolist() for part in entry.split(cfg)] for entry in kept[:2]]
    assert splits == [[[], [0, 1]], [[], [0]]]  # of two proposals one lies in the crowd
    assert not len(kept[2].split(cfg)[1])  # far from an object is no background


def jittered_roidb(seed=0, images=6):
    rng = np.random.default_rng(seed)
    records, proposals = [], {}
    for k in range(images):
        boxes = np.array([[5, 5, 30, 25], [12, 8, 39, 29]], np.float32)
        records.append(make_record(k, boxes=boxes, labels=rng.integers(1, 3, 2)))
        jitter = np.repeat(boxes, 10, axis=0) + rng.integers(-4, 5, (20, 4))
        proposals[f"image{k}"] = np.clip(jitter, 0, (39, 29, 39, 29))
    return make_roidb(make_dataset(*records), proposals=proposals)


def test_targets_lead_back_to_the_object():
    cfg = make_cfg(BBOX_THRESH=0.5)
    for entry in jittered_roidb():
        rows = np.arange(len(entry.rois.boxes))[::-1]
        classes, targets = regression_targets(entry, rows, cfg)
        learnt = classes > 0
        np.testing.assert_array_equal(learnt, entry.rois.overlaps[rows] >= 0.5)
        assert not targets[~learnt].any()
        back = bbox_transform_inv(entry.roi_boxes(rows)[learnt], targets[learnt])
        gt_boxes = entry.boxes[entry.rois.matches[rows][learnt]]
        # bbox_transform_inv is one pixel off at the right and below, as it is in the original.
        np.testing.assert_allclose(back, gt_boxes + (0, 0, 1, 1), atol=1e-3)
        np.testing.assert_array_equal(classes[learnt], entry.roi_labels(rows)[learnt])


def test_statistics_are_those_of_all_targets_of_a_class():
    roidb, cfg = jittered_roidb(), make_cfg()
    parts = [regression_targets(e, np.arange(len(e.rois.boxes)), cfg) for e in roidb]
    classes, targets = map(np.concatenate, zip(*parts))
    found = add_bbox_regression_targets(roidb, cfg, 4)
    for c in (1, 2):
        of_class = targets[classes == c].astype(np.float64)
        assert len(of_class) > 20
        np.testing.assert_allclose(found.means[c], of_class.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(found.stds[c], of_class.std(axis=0), rtol=1e-6)
    # Mirrored images make shifts to the left and to the right equally frequent.
    np.testing.assert_allclose(found.means[:, 0], 0, atol=1e-6)
    # The background and a class that does not occur are left as they are.
    for c in (0, 3):
        assert found.means[c].tolist() == [0] * 4 and found.stds[c].tolist() == [1] * 4
    assert all(entry.statistics is found for entry in roidb)


def test_equal_targets_have_no_std_of_zero():
    found = add_bbox_regression_targets(make_roidb(make_dataset(make_record(0))), make_cfg(), 4)
    assert not found.means.any() and (found.stds == 1).all()


def test_given_statistics_and_none():
    roidb = jittered_roidb(images=1)
    cfg = make_cfg(
        BBOX_NORMALIZE_TARGETS_PRECOMPUTED=True, BBOX_NORMALIZE_MEANS=(1.0, 2.0, 3.0, 4.0),
        BBOX_NORMALIZE_STDS=(0.1, 0.2, 0.3, 0.4),
    )  # fmt: skip
    found = add_bbox_regression_targets(roidb, cfg, 4)
    assert found.means.tolist() == [[1, 2, 3, 4]] * 4
    assert found.stds.tolist() == [[0.1, 0.2, 0.3, 0.4]] * 4
    found = add_bbox_regression_targets(roidb, make_cfg(BBOX_NORMALIZE_TARGETS=False), 4)
    assert not found.means.any() and (found.stds == 1).all()
