"""Batches of images with what is to be learnt from them."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_records import make_cfg, make_dataset, make_record, pixels, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.boxes.transform import class_specific
from demitasse.detection.images import prepare_image
from demitasse.detection.minibatch import RoiBatches, group_by_aspect
from demitasse.detection.roidb import add_bbox_regression_targets, filter_roidb, make_roidb
from demitasse.engine.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "frcnn"
WIDE, TALL = (30, 40), (40, 30)


def rpn_batches(records, seed=1, flipped=False, **train):
    cfg = make_cfg(HAS_RPN=True, **train)
    return RoiBatches(make_roidb(make_dataset(*records), flipped), cfg, 4, seed)


def proposals_near(rng, record, count):
    """Proposals, some of which overlap the objects well."""
    anywhere = random_boxes(rng, count, record.width, record.height)
    near = record.boxes[rng.integers(0, len(record.boxes), count)] + rng.integers(-3, 4, (count, 4))
    near = np.clip(near, 0, (record.width - 1, record.height - 1) * 2)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
    return np.concatenate([anywhere, near])


def fast_rcnn_batches(records, seed=1, count=20, flipped=True, **train):
    rng = np.random.default_rng(0)
    cfg = make_cfg(**{"BG_THRESH_LO": 0.0, "BATCH_SIZE": 16, **train})
    proposals = {r.name: proposals_near(rng, r, count) for r in records}
    roidb = filter_roidb(make_roidb(make_dataset(*records), flipped, proposals), cfg)
    add_bbox_regression_targets(roidb, cfg, 4)
    return RoiBatches(roidb, cfg, 4, seed)


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def five_records():
    sizes = [WIDE, TALL, WIDE, TALL, WIDE]
    boxes = [[2, 3, 20, 25], [8, 1, 29, 19]]
    return [make_record(k, size, boxes, [1, 2 + k % 2]) for k, size in enumerate(sizes)]


# ---- a function of the number and the seed


@pytest.mark.parametrize("make", [rpn_batches, fast_rcnn_batches])
@pytest.mark.parametrize("images", [1, 2])
def test_a_batch_depends_on_its_number_and_the_seed_alone(make, images):
    train = {"SCALES": (30, 45), "IMS_PER_BATCH": images}
    batches = make(five_records(), **train)
    first = {k: batches.load(k) for k in range(8)}
    other = make(five_records(), **train)
    for k in (5, 0, 7, 5, 2):
        assert_equal(other.load(k), first[k])
        assert all(a.dtype == np.float32 for a in first[k].values())
        assert list(first[k]) == list(batches.blob_names)
    reseeded = make(five_records(), seed=2, **train)
    data = [[b.load(k)["data"] for k in range(8)] for b in (batches, reseeded)]
    assert not all(map(np.array_equal, *data))


def test_every_epoch_shows_every_image_once_in_another_order():
    records = [make_record(k, boxes=[[k, 0, 20 + k, 20]]) for k in range(5)]
    batches = rpn_batches(records)
    orders = [
        [int(batches.load(k)["gt_boxes"][0, 0]) for k in range(5 * epoch, 5 * epoch + 5)]
        for epoch in range(4)
    ]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(map(tuple, orders))) > 1


@given(
    wide=st.lists(st.booleans(), max_size=15), size=st.integers(1, 4), seed=st.integers(0, 99)
)  # fmt: skip
@settings(deadline=None)
def test_groups_are_of_one_kind_as_far_as_possible(wide, size, seed):
    wide = np.array(wide, bool)
    rng = np.random.default_rng(seed)
    order = group_by_aspect(rng.permutation(len(wide)), wide, size, rng)
    assert sorted(order) == list(range(len(wide)))
    groups = wide[order[: len(order) // size * size]].reshape(-1, size)
    mixed = sum(0 < group.sum() < size for group in groups)
    alike = wide.sum() // size + (~wide).sum() // size
    assert len(groups) - mixed == alike and mixed <= 1


def test_pairs_have_one_aspect_only_if_asked_for():
    def shapes(grouping):
        batches = rpn_batches(five_records()[:4], IMS_PER_BATCH=2, ASPECT_GROUPING=grouping)
        return {batches.load(k)["data"].shape[2:] for k in range(30)}

    assert shapes(True) == {WIDE, TALL}
    assert shapes(False) == {WIDE, TALL, (40, 40)}


# ---- with an RPN


@pytest.mark.parametrize("factor", [1, 2])
def test_one_image_scaled(factor):
    record = make_record(0, boxes=[[2, 3, 20, 25], [0, 0, 39, 29]], labels=[3, 1])
    blobs = rpn_batches([record], SCALES=(30 * factor,)).load(0)
    expected, _ = prepare_image(pixels(*WIDE, 0), make_cfg(), 30 * factor, 1000)
    np.testing.assert_array_equal(blobs["data"], expected[np.newaxis])
    assert blobs["im_info"].tolist() == [[30 * factor, 40 * factor, factor]]
    np.testing.assert_array_equal(
        blobs["gt_boxes"],
        [[2 * factor, 3 * factor, 20 * factor, 25 * factor, 3],
         [0, 0, 39 * factor, 29 * factor, 1]],
    )  # fmt: skip


def test_a_mirrored_image_has_mirrored_boxes():
    batches = rpn_batches([make_record(0)], flipped=True)
    (straight, mirrored) = sorted(
        (batches.load(k) for k in range(2)), key=lambda b: b["gt_boxes"][0, 0]
    )
    np.testing.assert_array_equal(mirrored["data"], straight["data"][..., ::-1])
    assert straight["gt_boxes"].tolist() == [[2, 3, 20, 25, 1]]
    assert mirrored["gt_boxes"].tolist() == [[19, 3, 37, 25, 1]]


def test_two_images_of_different_size():
    records = [make_record(0, WIDE), make_record(1, TALL, [[1, 2, 3, 4], [5, 6, 7, 8]], [2, 3])]
    blobs = rpn_batches(records, IMS_PER_BATCH=2).load(0)
    assert blobs["data"].shape == (2, 3, 40, 40) and blobs["gt_boxes"].shape == (2, 2, 5)
    for data, im_info, gt_boxes in zip(*(blobs[n] for n in ("data", "im_info", "gt_boxes"))):
        k = 0 if im_info.tolist() == [30, 40, 1] else 1
        size = (WIDE, TALL)[k]
        assert im_info.tolist() == [*size, 1]
        expected, _ = prepare_image(pixels(*size, k), make_cfg(), 30, 1000)
        np.testing.assert_array_equal(data[:, : size[0], : size[1]], expected)
        assert not data[:, size[0] :].any() and not data[:, :, size[1] :].any()
        found = gt_boxes[: len(records[k].boxes)]
        np.testing.assert_array_equal(found[:, :4], records[k].boxes)
        np.testing.assert_array_equal(found[:, 4], records[k].labels)
        assert not gt_boxes[len(found) :].any()


def test_images_without_objects():
    empty = [make_record(k, boxes=[], labels=[]) for k in range(2)]
    assert rpn_batches(empty).load(0)["gt_boxes"].tolist() == [[0] * 5]
    assert rpn_batches(empty, IMS_PER_BATCH=2).load(0)["gt_boxes"].tolist() == [[[0] * 5]] * 2


def test_scales_are_drawn_for_each_image_and_the_longer_side_is_limited():
    batches = rpn_batches([make_record(0)], SCALES=(15, 30, 90), MAX_SIZE=60)
    seen = {batches.load(k)["data"].shape[2:] for k in range(30)}
    assert seen == {(15, 20), (30, 40), (45, 60)}


# ---- without


def test_reference_numbers_of_targets_by_class():
    golden = np.load(GOLDEN / "bbox_regression_labels.npz")
    data = golden["in/bbox_target_data"]
    targets, weights = class_specific(data[:, 1:], data[:, 0], int(golden["num_classes"]), 1)
    np.testing.assert_array_equal(targets, golden["out/bbox_targets"])
    np.testing.assert_array_equal(weights, golden["out/bbox_inside_weights"])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6), images=st.integers(1, 2), batch=st.sampled_from([2, 8, 64]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]), low=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_counts_and_kinds_of_rois(seed, images, batch, fraction, low):
    train = {
        "IMS_PER_BATCH": images, "BATCH_SIZE": batch, "FG_FRACTION": fraction, "BG_THRESH_LO": low,
        "FG_THRESH": 0.6,
    }  # fmt: skip
    batches = fast_rcnn_batches(five_records(), seed, **train)
    blobs = batches.load(seed % 7)
    per_image = batch // images
    most = int(np.round(fraction * per_image))
    for i in range(images):
        of_image = blobs["rois"][:, 0] == i
        rois, labels = blobs["rois"][of_image, 1:], blobs["labels"][of_image]
        entry = next(
            e for e in batches.roidb
            if np.array_equal(prepare_image(e.read(), make_cfg(), 30, 1000)[0],
                              blobs["data"][i][:, : e.record.height, : e.record.width])
        )  # fmt: skip
        overlaps = entry.rois.overlaps
        fg = {tuple(b) for b in entry.roi_boxes()[overlaps >= 0.6]}
        bg = {tuple(b) for b in entry.roi_boxes()[(overlaps < 0.5) & (overlaps >= low)]}
        num_fg = min(most, (overlaps >= 0.6).sum())
        num_bg = min(per_image - num_fg, ((overlaps < 0.5) & (overlaps >= low)).sum())
        assert len(labels) == num_fg + num_bg
        assert (labels[:num_fg] > 0).all() and not labels[num_fg:].any()
        assert {tuple(b) for b in rois[:num_fg]} <= fg
        assert {tuple(b) for b in rois[num_fg:]} <= bg


def test_an_image_without_objects_shows_its_proposals_as_background():
    records = [make_record(0, boxes=[], labels=[]), *five_records()[1:]]
    proposals = {r.name: random_boxes(np.random.default_rng(2), 30, 20, 20) for r in records}
    cfg = make_cfg(BG_THRESH_LO=0.1, BATCH_SIZE=16)
    roidb = filter_roidb(make_roidb(make_dataset(*records), False, proposals), cfg)
    add_bbox_regression_targets(roidb, cfg, 4)
    batches = [RoiBatches(roidb, cfg, 4, 1).load(k) for k in range(5)]
    (negatives,) = [blobs for blobs in batches if not blobs["labels"].any()]
    assert len(negatives["rois"]) == 16 and not negatives["bbox_inside_weights"].any()
    shown = {tuple(box) for box in negatives["rois"][:, 1:]}
    assert shown <= {tuple(box) for box in proposals["image0"]}


def test_targets_are_normalized_and_lie_at_their_class():
    batches = fast_rcnn_batches(
        five_records(), FG_FRACTION=0.5, SCALES=(60,), BBOX_INSIDE_WEIGHTS=(1.0, 2.0, 3.0, 0.0)
    )
    statistics = batches.roidb[0].statistics
    seen = 0
    for k in range(10):
        blobs = batches.load(k)
        boxes, labels = blobs["rois"][:, 1:] / 2, blobs["labels"].astype(int)
        inside, outside = blobs["bbox_inside_weights"], blobs["bbox_outside_weights"]
        assert (blobs["rois"][:, 0] == 0).all()
        assert blobs["bbox_targets"].shape == inside.shape == outside.shape == (len(labels), 16)
        np.testing.assert_array_equal(outside, inside > 0)
        for row, c in enumerate(labels):
            expected = np.zeros(16)
            expected[4 * c : 4 * c + 4] = (1, 2, 3, 0) if c else 0
            np.testing.assert_array_equal(inside[row], expected)
            if not c:
                assert not blobs["bbox_targets"][row].any()
                continue
            assert not np.delete(blobs["bbox_targets"][row], np.s_[4 * c : 4 * c + 4]).any()
            found = blobs["bbox_targets"][row, 4 * c : 4 * c + 4]
            found = found * statistics.stds[c] + statistics.means[c]
            size = boxes[row, 2:] - boxes[row, :2] + 1
            centre = boxes[row, :2] + size / 2 + found[:2] * size
            new_size = size * np.exp(found[2:])
            box = np.concatenate([centre - new_size / 2, centre + new_size / 2 - 1])
            gt_boxes = [b for e in batches.roidb for b in e.boxes]
            assert min(np.abs(box - b).max() for b in gt_boxes) < 1e-3
            seen += 1
    assert seen > 30


def test_without_regression_there_are_no_targets():
    batches = fast_rcnn_batches(five_records(), BBOX_REG=False)
    assert list(batches.load(0)) == ["data", "rois", "labels"] == list(batches.blob_names)


# ---- what does not work


@pytest.fixture
def files(tmp_path):
    """Records of five image files, of which numbers 1 and 3 are broken and missing."""
    records = []
    for k in range(5):
        path = tmp_path / f"{k}.png"
        if k != 3:
            cv2.imwrite(str(path), pixels(*WIDE, k))
        records.append(make_record(k, boxes=[[k, 0, 20 + k, 20]], path=str(path)))
    (tmp_path / "1.png").write_bytes(b"no image")
    return records


def test_unreadable_images_are_named_once_and_replaced(files, caplog):
    batches = rpn_batches(files)
    with caplog.at_level(logging.WARNING, logger="demitasse.detection"):
        found = [batches.load(k) for k in range(15)]
    shown = [int(b["gt_boxes"][0, 0]) for b in found]
    assert set(shown) == {0, 2, 4}
    assert sum("'image1' is left out" in r.message for r in caplog.records) == 1
    assert sum("'image3' is left out" in r.message for r in caplog.records) == 1
    again = rpn_batches(files)
    for k in (14, 3, 0, 8):
        assert_equal(again.load(k), found[k])
    # The next in the order takes the place of one that is left out.
    sound = rpn_batches([make_record(k, boxes=[[k, 0, 20 + k, 20]]) for k in range(5)])
    order = [int(sound.load(k)["gt_boxes"][0, 0]) for k in range(5)]
    for k, name in enumerate(order):
        following = (order[k:] + order[:k]) if name in (1, 3) else [name]
        assert shown[k] == next(n for n in following if n in (0, 2, 4))


def test_no_readable_image_is_an_error(files):
    with pytest.raises(DataError, match="at least one that can be read, found none of 2"):
        rpn_batches([files[1], files[3]]).load(0)


@pytest.mark.parametrize(
    "train, message",
    [
        ({"IMS_PER_BATCH": 3, "BATCH_SIZE": 16}, r"multiple of IMS_PER_BATCH \(3\)"),
        ({"BATCH_SIZE": 0}, "multiple of IMS_PER_BATCH"),
        ({"SCALES": ()}, "one or more TRAIN.SCALES"),
        ({"IMS_PER_BATCH": 0}, "IMS_PER_BATCH of at least 1"),
    ],
)
def test_settings_that_do_not_fit(train, message):
    with pytest.raises(DataError, match=message):
        fast_rcnn_batches(five_records(), **train)


def test_entries_that_do_not_fit():
    roidb = make_roidb(make_dataset(make_record(0, labels=[3])))
    with pytest.raises(DataError, match="Call add_bbox_regression_targets"):
        RoiBatches(roidb, make_cfg(), 4, 1)
    with pytest.raises(DataError, match="labels below 3"):
        RoiBatches(roidb, make_cfg(), 3, 1)
    with pytest.raises(DataError, match="at least one, found none"):
        RoiBatches([], make_cfg(), 4, 1)
    empty = make_roidb(make_dataset(make_record(0, boxes=[], labels=[])))
    add_bbox_regression_targets(empty, make_cfg(), 4)
    with pytest.raises(DataError, match="Call filter_roidb"):
        RoiBatches(empty, make_cfg(), 4, 1).load(0)
