"""Testing: images and nets to detections, one image and whole data sets."""

import gc
import logging
import math
import threading

import cv2
import numpy as np
import pytest
from known_nets import (
    CFG,
    CLASSES,
    FAST_RCNN,
    FIND_COLOURS,
    coloured_dataset,
    coloured_image,
    open_text,
)

import caffe
from demitasse.boxes.nms import nms
from demitasse.detection import test as testing
from demitasse.detection.config import merge
from demitasse.detection.datasets.record import Dataset, Record
from demitasse.detection.images import prepare_image
from demitasse.detection.pyramid import distinct_rois, project_rois
from demitasse.detection.reading import read_ahead
from demitasse.engine.errors import DataError, NetError


@pytest.fixture(scope="module")
def fast():
    return open_text(FAST_RCNN)


@pytest.fixture(scope="module")
def finder():
    return open_text(FIND_COLOURS)


def photo(seed=0, size=(75, 110)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def random_boxes(count, size=(75, 110), seed=1):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, size[1] - 1, (2, count)), rng.uniform(0, size[0] - 1, (2, count))
    return np.stack([x.min(0), y.min(0), x.max(0), y.max(0)], 1).astype(np.float32)


def one_by_one(net, blob, factor, boxes, shape):
    """Scores and boxes of a Fast R-CNN, a RoI at a time, decoded by the formulas of the paper."""
    scores, decoded = [], []
    for box in boxes:
        net.blobs["data"].reshape(*blob[None].shape)
        net.blobs["data"].data[...] = blob[None]
        net.blobs["rois"].reshape(1, 5)
        net.blobs["rois"].data[...] = [[0, *(box * factor)]]
        net.forward()
        scores.append(net.blobs["cls_prob"].data[0].copy())
        width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
        row = []
        for dx, dy, dw, dh in net.blobs["bbox_pred"].data[0].reshape(-1, 4).tolist():
            x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
            w, h = width * math.exp(dw), height * math.exp(dh)
            xs = [min(max(v, 0), shape[1] - 1) for v in (x - w / 2, x + w / 2)]
            ys = [min(max(v, 0), shape[0] - 1) for v in (y - h / 2, y + h / 2)]
            row += [xs[0], ys[0], xs[1], ys[1]]
        decoded.append(row)
    return np.array(scores), np.array(decoded)


# ---- given boxes


def test_given_boxes_are_scored_as_each_alone_would_be(fast):
    image, boxes = photo(), random_boxes(20)
    scores, found = testing.im_detect(fast, image, CFG, boxes)
    blob, factor = prepare_image(image, CFG, 60, 100)
    expected = one_by_one(fast, blob, factor, boxes, image.shape)
    assert scores.shape == (20, 3) and found.shape == (20, 12)
    assert np.ptp(scores) > 0.05  # the net says something
    np.testing.assert_allclose(scores, expected[0], atol=1e-5)
    np.testing.assert_allclose(found, expected[1], atol=1e-2)


def test_boxes_that_coincide_are_computed_once(fast):
    boxes = random_boxes(6)
    twice = np.concatenate([boxes, boxes[::-1], boxes + 0.01])
    scores, found = testing.im_detect(fast, photo(), CFG, twice)
    assert fast.blobs["rois"].shape == (6, 5)
    np.testing.assert_array_equal(scores[:6], scores[11:5:-1])
    np.testing.assert_array_equal(found[:6], found[12:])
    never = merge(CFG, {"DEDUP_BOXES": 0})
    apart = testing.im_detect(fast, photo(), never, twice)
    assert fast.blobs["rois"].shape == (18, 5)
    np.testing.assert_allclose(apart[0][:12], scores[:12], atol=1e-5)
    np.testing.assert_allclose(apart[1][:12], found[:12], atol=1e-2)


def test_in_a_pyramid_each_box_has_the_scale_that_makes_it_most_like_224(fast):
    cfg = merge(CFG, {"TEST": {"SCALES": [60, 300], "MAX_SIZE": 500}})
    image = photo()
    boxes = np.array([[5, 5, 45, 50], [0, 0, 109, 74], [20, 20, 90, 70]], np.float32)
    scores, _ = testing.im_detect(fast, image, cfg, boxes)
    levels = fast.blobs["rois"].data[:, 0]
    assert sorted(levels) == [0, 1, 1] or sorted(levels) == [1, 1, 1]
    for level, scale in enumerate((60, 300)):
        blob, factor = prepare_image(image, cfg, scale, 500)
        rows = [
            r for r, (x1, y1, x2, y2) in enumerate(boxes)
            if nearest_level((x2 - x1 + 1) * (y2 - y1 + 1), (60 / 75, 300 / 75)) == level
        ]  # fmt: skip
        expected, _ = one_by_one(fast, blob, factor, boxes[rows], image.shape)
        np.testing.assert_allclose(scores[rows], expected.reshape(-1, 3), atol=1e-5)


def nearest_level(area, factors):
    return min(range(2), key=lambda k: abs(area * factors[k] ** 2 - 224**2))


def test_boxes_of_two_levels_are_not_taken_for_one():
    """At factors 1 and 2 the RoI of one box may lie where another box's does, in another image."""
    boxes = np.array([[0, 0, 223, 223], [0, 0, 111, 111]], np.float32)
    rois = project_rois(boxes, [1.0, 2.0])
    np.testing.assert_array_equal(rois[:, 0], [0, 1])
    np.testing.assert_array_equal(rois[1, 1:], [0, 0, 222, 222])
    cells = distinct_rois(rois, 1 / 16)
    assert len(cells[0]) == 2 and cells[1].tolist() == [0, 1]


def test_without_boxes_there_are_no_detections(fast):
    scores, boxes = testing.im_detect(fast, photo(), CFG, np.zeros((0, 4)))
    assert scores.shape == (0, 3) and boxes.shape == (0, 12)


def test_scores_of_svms_and_boxes_without_regression(fast):
    cfg = merge(CFG, {"TEST": {"SVM": True, "BBOX_REG": False}})
    boxes = random_boxes(5)
    scores, found = testing.im_detect(fast, photo(), cfg, boxes)
    probabilities, _ = testing.im_detect(fast, photo(), CFG, boxes)
    exponents = np.exp(scores)
    np.testing.assert_allclose(exponents / exponents.sum(1, keepdims=True), probabilities, 1e-4)
    np.testing.assert_array_equal(found, np.tile(boxes, 3))


# ---- proposing nets


@pytest.mark.parametrize("scale", [40, 60, 80])
@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_come_back_in_the_images_own_pixels(finder, scale, flipped):
    image = coloured_image((10, 6, 37, 25), (50, 30, 79, 53))
    expected = np.array([[10, 6, 37, 25], [50, 30, 79, 53]], float)
    if flipped:
        image = image[:, ::-1]
        expected[:, [0, 2]] = 89 - expected[:, [2, 0]]
    cfg = merge(CFG, {"TEST": {"SCALES": [scale], "MAX_SIZE": 1000}})
    scores, boxes = testing.im_detect(finder, image, cfg)
    np.testing.assert_array_equal(scores.argmax(1), [1, 2])
    found = np.stack([boxes[0, 4:8], boxes[1, 8:12]])
    np.testing.assert_allclose(found, expected, atol=2.6)


def test_several_scales_give_the_detections_of_each(finder):
    image = coloured_image((10, 6, 37, 25), (50, 30, 79, 53))
    single = []
    for scale in (40, 80):
        cfg = merge(CFG, {"TEST": {"SCALES": [scale], "MAX_SIZE": 1000}})
        single.append(testing.im_detect(finder, image, cfg))
    cfg = merge(CFG, {"TEST": {"SCALES": [40, 80], "MAX_SIZE": 1000}})
    scores, boxes = testing.im_detect(finder, image, cfg)
    np.testing.assert_array_equal(scores, np.concatenate([s for s, _ in single]))
    np.testing.assert_array_equal(boxes, np.concatenate([b for _, b in single]))
    found = testing.class_detections(scores, boxes, cfg)
    assert [len(dets) for dets in found] == [0, 1, 1]  # suppression leaves one of each


def test_proposals_of_several_scales_compete(finder):
    image = coloured_image((10, 6, 37, 25), (50, 30, 79, 53))
    boxes, scores = testing.im_proposals(finder, image, CFG)
    assert boxes.shape == (2, 4) and scores.tolist() == pytest.approx([0.9, 0.9])
    cfg = merge(CFG, {"TEST": {"SCALES": [60, 80], "MAX_SIZE": 1000}})
    boxes, scores = testing.im_proposals(finder, image, cfg)
    assert boxes.shape == (2, 4)  # of four, two pairs of near equals
    cfg = merge(cfg, {"TEST": {"RPN_POST_NMS_TOP_N": 1}})
    assert len(testing.im_proposals(finder, image, cfg)[0]) == 1


def test_a_caffe_net_answers_the_same(fast, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(FAST_RCNN)
    net = caffe.Net(str(path), caffe.TEST)
    for name, blobs in fast.params.items():
        for blob, source in zip(net.params[name], blobs):
            blob.data[...] = source.data
    expected = testing.im_detect(fast, photo(), CFG, random_boxes(5))
    for values, wanted in zip(testing.im_detect(net, photo(), CFG, random_boxes(5)), expected):
        np.testing.assert_array_equal(values, wanted)


def test_the_wrong_kind_of_net_is_refused(fast, finder):
    with pytest.raises(NetError, match="inputs data, im_info, found data, rois"):
        testing.im_detect(fast, photo(), CFG)
    with pytest.raises(NetError, match="inputs data, rois, found data, im_info"):
        testing.im_detect(finder, photo(), CFG, random_boxes(3))
    bad = FAST_RCNN.replace("num_output: 12", "num_output: 8")
    with pytest.raises(NetError, match="4 deltas a class"):
        testing.im_detect(open_text(bad), photo(), CFG, random_boxes(3))


# ---- detections of the classes


def test_class_detections_are_thresholded_suppressed_and_limited():
    rng = np.random.default_rng(3)
    scores = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    boxes = np.hstack([random_boxes(60, seed=s) for s in range(3)])
    found = testing.class_detections(scores, boxes, CFG, 0.3, 0)
    assert len(found[0]) == 0
    for c in (1, 2):
        chosen = [
            [*boxes[i, 4 * c : 4 * c + 4], scores[i, c]] for i in range(60) if scores[i, c] > 0.3
        ]
        dets = np.array(chosen, np.float32)
        np.testing.assert_array_equal(found[c], dets[nms(dets, CFG.TEST.NMS)])
        assert len(found[c]) < len(dets)
    together = np.sort(np.concatenate(found)[:, 4])[::-1]
    limited = testing.class_detections(scores, boxes, CFG, 0.3, 4)
    np.testing.assert_array_equal(np.sort(np.concatenate(limited)[:, 4])[::-1], together[:4])


def test_thresholds_that_hold_by_default():
    scores = np.array([[0.9, 0.04, 0.06]], np.float32)
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), 3)
    assert [len(d) for d in testing.class_detections(scores, boxes, CFG)] == [0, 0, 1]
    svm = merge(CFG, {"TEST": {"SVM": True}})
    assert [len(d) for d in testing.class_detections(-scores, boxes, svm)] == [0, 1, 1]


# ---- data sets


def test_a_data_set_is_detected_and_a_corrupt_image_named(finder, tmp_path, caplog):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image at all")
    image, empty = np.zeros((0, 4)), np.zeros(0)
    dataset = coloured_dataset(Record("bad", 90, 60, image, empty, path=str(bad)))
    with caplog.at_level(logging.INFO, "demitasse.detection"):
        all_boxes = testing.test_net(finder, dataset, CFG, thresh=0.5)
    assert [[len(dets) for dets in images] for images in all_boxes] == [
        [0, 0, 0], [1, 0, 0], [1, 1, 0],
    ]  # fmt: skip
    np.testing.assert_allclose(all_boxes[2][1][0], [20, 10, 60, 40, 0.9], atol=0.01)
    assert str(bad) in caplog.text
    assert "colours: 2 images, waiting" in caplog.text and "suppression" in caplog.text


def test_a_data_set_with_given_proposals(fast):
    dataset = coloured_dataset()
    proposals = {r.name: random_boxes(8, (60, 90), i) for i, r in enumerate(dataset.records)}
    all_boxes = testing.test_net(fast, dataset, CFG, 5, 0.0, proposals=proposals)
    for i, record in enumerate(dataset.records):
        result = testing.im_detect(fast, record.read(), CFG, proposals[record.name])
        expected = testing.class_detections(*result, CFG, 0.0, 5)
        for c in range(3):
            np.testing.assert_array_equal(all_boxes[c][i], expected[c])
    assert sum(len(images[0]) for images in all_boxes) == 5
    with pytest.raises(DataError, match="'one'"):
        testing.test_net(fast, dataset, CFG, proposals={"both": proposals["both"]})


def test_a_net_of_other_classes_is_refused(finder):
    dataset = Dataset("colours", [*CLASSES, "blue"], coloured_dataset().records)
    with pytest.raises(NetError, match=r"4 classes.*found 3"):
        testing.test_net(finder, dataset, CFG)


def test_proposals_of_a_data_set(finder):
    found = testing.generate_proposals(finder, coloured_dataset(), CFG)
    assert set(found) == {"both", "one"}
    np.testing.assert_allclose(
        found["both"], [[10, 5, 39, 24, 0.9], [50, 30, 79, 54, 0.9]], atol=1e-4
    )


def test_images_are_read_while_those_before_are_used():
    loaded = [threading.Event() for _ in range(4)]

    def load(k):
        loaded[k].set()
        if k == 2:
            raise DataError("image 2", "pixels", "none")
        return k

    items = read_ahead(4, load)
    assert next(items) == 0
    assert loaded[1].wait(20)  # although nobody has asked for it
    assert next(items) == 1
    assert isinstance(next(items), DataError)
    assert list(items) == [3]


def test_reading_ahead_ends_with_its_consumer():
    before = threading.active_count()
    for _ in read_ahead(5, lambda k: k):
        break
    gc.collect()
    assert threading.active_count() == before


def test_large_images_shrink_to_the_maximal_size(finder):
    image = cv2.resize(coloured_image((10, 5, 39, 24), (50, 30, 79, 54)), (360, 60))
    scores, boxes = testing.im_detect(finder, image, CFG)
    assert finder.blobs["data"].shape[3] == 100
    np.testing.assert_allclose(boxes[0, 4:8], [40, 5, 159, 24], atol=6)
    assert scores[0, 1] == pytest.approx(0.9)
