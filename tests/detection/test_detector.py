"""`Detector`, and opening nets: trained detectors' files, other files, names, stages, limits."""

import dataclasses
import logging

import cv2
import numpy as np
import pytest
import tiny_net
import yaml
from known_nets import CFG, CLASSES, FIND_COLOURS, coloured_image, open_text

import caffe
from caffe.proto import caffe_pb2
from demitasse.detection import Detection, Detector, bundle
from demitasse.detection import test as testing
from demitasse.detection.adapt import adapt_net
from demitasse.detection.config import merge, to_dict
from demitasse.detection.cutting import net_in_use
from demitasse.detection.detector import list_detections
from demitasse.detection.opening import find_model, open_for_dataset, open_net
from demitasse.engine import weights as weight_files
from demitasse.engine.context import Context
from demitasse.engine.errors import DataError, ModelFileError, NetError
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.prototxt import format_text, parse_text


@pytest.fixture
def finder(tmp_path):
    """The three files of a detector of green and red boxes; returns the prototxt's path."""
    stem = tmp_path / "colours_final"
    stem.with_suffix(".prototxt").write_text(FIND_COLOURS)
    weight_files.save(open_text(FIND_COLOURS), str(stem.with_suffix(".caffemodel")))
    content = {"classes": list(CLASSES), "config": to_dict(CFG)}
    stem.with_suffix(".yml").write_text(yaml.safe_dump(content))
    return stem.with_suffix(".prototxt")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny Faster R-CNN with random weights as a trained detector's files."""
    folder = tmp_path_factory.mktemp("tiny")
    cfg = tiny_net.CFG
    param, _ = adapt_net(tiny_net.net_param(), 3, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS)
    net = Net(param, Phase.TEST, stages=("rpn", "fast_rcnn"), context=Context(1))
    return bundle.save(str(folder / "tiny_final"), net, param, tiny_net.CLASSES, cfg)


def test_a_trained_detector_is_opened_by_its_prototxt_alone(finder, tmp_path):
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), coloured_image((10, 5, 39, 24), (50, 30, 79, 54)))
    detector = Detector(finder)
    found = detector.detect(photo)
    assert detector.classes == CLASSES and detector.cfg == CFG
    assert [d.label for d in found] == ["green", "red"]
    assert isinstance(found[0], Detection) and isinstance(found[0].box, tuple)
    label, score, box = found[0]
    assert label == "green" and score == pytest.approx(0.9)
    assert box == pytest.approx((10, 5, 40, 25), abs=0.01)  # zero deltas enlarge by a pixel
    for path in (finder.with_suffix(".caffemodel"), finder.with_suffix("")):
        assert Detector(path).detect(photo) == found
    assert detector.detect(cv2.imread(str(photo))) == found
    assert detector.detect(str(photo), threshold=0.95) == []
    assert len(detector.detect(photo, max_per_image=0)) == 2


def test_several_images_in_order_and_a_bad_one_named(finder, tmp_path):
    green, red = coloured_image((10, 5, 39, 24)), coloured_image(None, (20, 10, 59, 39))
    detector = Detector(finder)
    results = detector.detect([green, red, green])
    assert [[d.label for d in found] for found in results] == [["green"], ["red"], ["green"]]
    assert detector.detect([]) == []
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        detector.detect([green, bad])
    each = list(detector.detect_each([green, bad, red]))
    assert [type(found) for found in each] == [list, DataError, list]


def test_detections_of_all_classes_best_first():
    found = [
        np.zeros((0, 5)),
        [[0, 1, 2, 3, 0.5], [4, 5, 6, 7, 0.1]],
        np.array([[0, 0, 9, 9, 0.7]]),
    ]
    rows = list_detections(found, CLASSES, threshold=0.1)
    assert rows == [("red", 0.7, (0, 0, 9, 9)), ("green", 0.5, (0, 1, 2, 3))]
    assert len(list_detections(found, CLASSES)) == 3


# ---- without a yml


def test_a_definition_with_weights_and_class_names(tmp_path):
    """py-faster-rcnn's way: the definition says 21 classes, and VOC's are meant."""
    path, weights = tmp_path / "net.prototxt", str(tmp_path / "net.caffemodel")
    path.write_text(tiny_net.NET)
    stages = ("rpn", "fast_rcnn")
    net = Net(tiny_net.net_param(), Phase.TEST, stages=stages, context=Context(1))
    weight_files.save(net, weights)
    detector = Detector(path, weights)
    assert detector.classes[1] == "aeroplane" and len(detector.classes) == 21
    image = tiny_net.make_record(0).read()
    found = detector.detect(image, threshold=0.01)
    assert found and all(0 <= d.box[0] <= d.box[2] <= 63 for d in found)
    net = caffe.Net(str(path), weights, caffe.TEST, stages=list(stages))
    scores, boxes = testing.im_detect(net, image, detector.cfg)
    expected = testing.class_detections(scores, boxes, detector.cfg, 0.01)
    assert found == list_detections(expected, detector.classes)
    with pytest.raises(NetError, match="cls_score"):
        Detector(path, weights, classes=tiny_net.CLASSES)


def test_class_names_must_be_known_and_fit(finder):
    weights = finder.with_suffix(".caffemodel")
    finder.with_suffix(".yml").unlink()
    with pytest.raises(DataError, match=r"names of 3 classes.*found none"):
        Detector(finder, weights)
    with pytest.raises(DataError, match=r"names of 3 classes.*found 2: a, b"):
        Detector(finder, weights, classes=("a", "b"))
    with pytest.raises(ModelFileError, match=r"no .*\.yml"):
        Detector(finder)
    assert Detector(finder, weights, ("bg", "g", "r"), CFG).classes == ("bg", "g", "r")


def test_networks_by_name(tmp_path):
    with pytest.raises(ModelFileError, match=r"VGG16_faster_rcnn_final\.caffemodel, found no such"):
        find_model("VGG16", data_dir=tmp_path)
    place = tmp_path / "faster_rcnn_models" / "ZF_faster_rcnn_final.caffemodel"
    place.parent.mkdir()
    place.write_bytes(b"")
    model = find_model("zf", data_dir=tmp_path)
    assert model.weights == str(place) and model.name == "ZF_faster_rcnn_final"
    assert model.definition.endswith("zf/faster_rcnn.prototxt") and model.classes is None
    with pytest.raises(ModelFileError, match="Published ones"):
        find_model("caffenet", data_dir=tmp_path)
    assert find_model("caffenet", "my.caffemodel").weights == "my.caffemodel"
    with pytest.raises(ModelFileError, match="vgg17"):
        find_model("vgg17")


def test_weights_that_lack_layers_are_refused(tiny, tmp_path):
    model = find_model(tiny)
    part = str(tmp_path / "rpn.caffemodel")
    weight_files.save(open_net(model.definition, model.weights, model.cfg, stages=("rpn",)), part)
    with pytest.raises(NetError, match="none of fc6, cls_score, bbox_pred"):
        open_net(model.definition, part, model.cfg)


# ---- stages, limits, classes


def test_the_rpn_alone_of_a_whole_detector(tiny):
    """A detector's file has no scores of proposals; opened for proposals, it has them."""
    model = find_model(tiny)
    image = tiny_net.make_record(0).read()
    whole = open_net(model.definition, model.weights, model.cfg)
    testing.im_detect(whole, image, model.cfg)
    rpn = open_net(model.definition, model.weights, model.cfg, stages=("rpn",))
    assert "fc6" not in rpn.params and "fc6" in whole.params
    boxes, scores = testing.im_proposals(rpn, image, model.cfg)
    rois = whole.blobs["rois"].data[:, 1:]
    np.testing.assert_allclose(boxes * (whole.blobs["im_info"].data[0, 2]), rois, atol=1e-3)
    assert (np.diff(scores) <= 0).all() and scores.min() > 0
    with pytest.raises(NetError, match="Proposal"):
        open_net(*write_fast_rcnn(tiny), model.cfg, stages=("rpn",))


def test_the_region_head_alone_of_a_whole_detector(tiny):
    """On the regions that its RPN proposes, it gives what the whole detector does."""
    model = find_model(tiny)
    image = tiny_net.make_record(0).read()
    whole = open_net(model.definition, model.weights, model.cfg)
    expected = testing.im_detect(whole, image, model.cfg)
    rois = whole.blobs["rois"].data[:, 1:] / whole.blobs["im_info"].data[0, 2]
    head = open_net(model.definition, model.weights, model.cfg, stages=("fast_rcnn",))
    assert set(head.inputs) == {"data", "rois"} and "rpn_conv/3x3" not in head.params
    cfg = dataclasses.replace(model.cfg, DEDUP_BOXES=0)
    for a, b in zip(testing.im_detect(head, image, cfg, rois), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_a_net_of_proposals_alone_has_no_region_head(tmp_path):
    path = tmp_path / "rpn.prototxt"
    rpn = net_in_use(tiny_net.net_param(), ("rpn",), "rpn")
    path.write_text(format_text(rpn))
    with pytest.raises(NetError, match="layers that look at regions"):
        open_net(path, None, tiny_net.CFG, stages=("fast_rcnn",))


INPUTS = """
layer { name: "in" type: "Input" top: "im_info" top: "data" top: "unused" input_param {
  shape { dim: 1 dim: 3 } shape { dim: 1 dim: 3 dim: 32 dim: 32 } shape { dim: 7 } } }
"""


def test_of_several_inputs_the_head_has_those_that_it_needs(tiny):
    joint = net_in_use(tiny_net.net_param(), ("rpn", "fast_rcnn"), "joint")
    layers = [layer for layer in joint.layer if layer.type != "Input"]
    del joint.layer[:]
    joint.layer.extend(parse_text(INPUTS, caffe_pb2.NetParameter).layer)
    joint.layer.extend(layers)
    net = Net(net_in_use(joint, ("fast_rcnn",), "head"), Phase.TEST)
    assert set(net.inputs) == {"rois", "data"} and net.blobs["data"].shape == (1, 3, 32, 32)


def test_what_testing_reads_is_kept_and_other_values_are_not(tiny):
    """Memory: features are given back as soon as the next layer has run."""
    model = find_model(tiny)
    image = tiny_net.make_record(0).read()
    net = open_net(model.definition, model.weights, model.cfg)
    full = caffe.Net(model.definition, model.weights, caffe.TEST)
    for a, b in zip(*(testing.im_detect(n, image, model.cfg) for n in (net, full))):
        np.testing.assert_array_equal(a, b)
    for name in ("data", "rois", "cls_score", "cls_prob", "bbox_pred"):
        np.testing.assert_array_equal(net.blobs[name].data, full.blobs[name].data)
    with pytest.raises(NetError, match="released"):
        _ = net.blobs["conv2"].data


def write_fast_rcnn(tiny):
    """A file with the region head only, beside a detector."""
    path = tiny.replace("tiny_final.prototxt", "head.prototxt")
    with open(path, "w") as file:
        file.write(tiny_net.NET.replace('type: "Proposal"', 'type: "Split"'))
    return path, None


def test_limits_of_proposals_are_the_configs(tiny):
    model = find_model(tiny)
    image = tiny_net.make_record(0).read()
    counts = []
    for most in (3, 10):  # the second one is in the file
        cfg = merge(model.cfg, {"TEST": {"RPN_POST_NMS_TOP_N": most}})
        net = open_net(model.definition, model.weights, cfg)
        counts.append(len(testing.im_detect(net, image, cfg)[0]))
    assert counts[0] == 3 < counts[1] <= 10


def test_proposals_to_train_with_are_more(tiny):
    model = find_model(tiny)
    dataset = tiny_net.make_dataset(count=2)
    net = open_net(model.definition, model.weights, model.cfg, stages=("rpn",))
    usual, _ = testing.im_proposals(net, dataset.records[0].read(), model.cfg)
    many = testing.generate_proposals(net, dataset, model.cfg)
    few = testing.generate_proposals(net, dataset, model.cfg, pre_nms=5, post_nms=2)
    again, _ = testing.im_proposals(net, dataset.records[0].read(), model.cfg)
    np.testing.assert_array_equal(usual, again)  # the limits are those of before
    for record in dataset.records:
        assert len(few[record.name]) <= 2
        assert many[record.name].shape[1] == 5
        np.testing.assert_array_equal(few[record.name], many[record.name][: len(few[record.name])])
    assert len(many["train_0"]) > len(usual)


def test_a_detector_and_a_data_set_of_other_classes(tiny):
    model = find_model(tiny)
    dataset = tiny_net.make_dataset(count=1)
    net = open_for_dataset(model, dataset, model.cfg)
    assert net.blobs["cls_prob"].shape[1] == 3
    other = model._replace(classes=("__background__", "dark", "light"))
    with pytest.raises(DataError, match="dark, light, found __background__, light, dark"):
        open_for_dataset(other, dataset, model.cfg)
    assert open_for_dataset(other, dataset, model.cfg, ("rpn",)).outputs == ["rois", "scores"]


def test_a_detector_tests_as_its_net_does(tiny, caplog):
    """`Detector` and `test_net` give the same detections."""
    detector = Detector(tiny)
    dataset = tiny_net.make_dataset(count=3)
    with caplog.at_level(logging.ERROR):
        all_boxes = testing.test_net(detector.net, dataset, detector.cfg, thresh=0.2)
    for i, record in enumerate(dataset.records):
        found = [boxes[i] for boxes in all_boxes]
        assert detector.detect(record.read(), 0.2) == list_detections(found, dataset.classes)
    assert any(len(boxes[0]) for boxes in all_boxes)
