"""The command lines around a trained detector: test_net, demo, rpn_generate, compress_net."""

import json
import logging
import os
import sys
import threading

import cv2
import data_on_disk
import numpy as np
import pytest
import tiny_net
import yaml
from known_nets import CFG, CLASSES, FIND_COLOURS, coloured_image, open_text

from demitasse.detection import Detector, bundle, commandline
from demitasse.detection.adapt import adapt_net
from demitasse.detection.config import Config, to_dict
from demitasse.detection.datasets import get_imdb
from demitasse.detection.evaluate import load_detections
from demitasse.detection.opening import open_net
from demitasse.detection.proposals import load_proposals, save_proposals
from demitasse.detection.test import generate_proposals
from demitasse.engine import device as devices
from demitasse.engine import weights as weight_files
from demitasse.engine.context import Context
from demitasse.engine.errors import DeviceError, ModelFileError
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.prototxt import read_net
from demitasse.tools import compress_net, demo, rpn_generate, test_net

BOXES = {  # image name -> objects as annotated, 1-based
    "a": [("green", (11, 6, 40, 25)), ("red", (51, 31, 80, 55))],
    "b": [("red", (21, 11, 60, 40))],
    "c": [("green", (31, 6, 70, 55))],
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """The tools write to output/ and set up the log of their process."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("demitasse")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture
def colours(tmp_path):
    """A data set of coloured boxes in VOC's layout; returns its name."""
    for name, objects in BOXES.items():
        boxes = {label: [v - 1 for v in box] for label, box in objects}
        path = tmp_path / "colours" / "JPEGImages" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), coloured_image(boxes.get("green"), boxes.get("red")))
        xml = tmp_path / "colours" / "Annotations" / f"{name}.xml"
        data_on_disk.annotation(xml, objects, (90, 60), f"{name}.png")
    split = tmp_path / "colours" / "ImageSets" / "Main" / "test.txt"
    split.parent.mkdir(parents=True)
    split.write_text("a\nb\nc\n")
    return f"voc:{tmp_path / 'colours'}:test"


@pytest.fixture
def finder(tmp_path):
    """A detector of green and red boxes as a trained detector's files."""
    stem = tmp_path / "net" / "colours_final"
    stem.parent.mkdir()
    stem.with_suffix(".prototxt").write_text(FIND_COLOURS)
    weight_files.save(open_text(FIND_COLOURS), str(stem.with_suffix(".caffemodel")))
    content = {"classes": list(CLASSES), "config": to_dict(CFG)}
    stem.with_suffix(".yml").write_text(yaml.safe_dump(content))
    return str(stem.with_suffix(".prototxt"))


@pytest.fixture
def tiny(tmp_path):
    """A tiny Faster R-CNN with random weights as a trained detector's files."""
    cfg = tiny_net.CFG
    param, _ = adapt_net(tiny_net.net_param(), 3, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS)
    net = Net(param, Phase.TEST, stages=("rpn", "fast_rcnn"), context=Context(1))
    return bundle.save(str(tmp_path / "net" / "tiny_final"), net, param, tiny_net.CLASSES, cfg)


# ---- test_net


def test_a_detector_is_tested_evaluated_and_its_detections_are_saved(finder, colours, capsys):
    words = ["--cpu", "--net", finder, "--imdb", colours, "--vis", "--comp", "--out", "results"]
    assert test_net.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("mean AP  1.0000") == 2  # by both metrics
    all_boxes = load_detections("results/detections.json", get_imdb(colours))
    assert [[len(boxes) for boxes in images] for images in all_boxes[1:]] == [[1, 0, 1], [1, 1, 0]]
    with open("results/comp4_det_test_red.txt") as file:
        lines = file.read().splitlines()
    assert lines == ["a 0.900 51.0 31.0 81.0 56.0", "b 0.900 21.0 11.0 61.0 41.0"]
    assert sorted(os.listdir("results/pictures")) == ["a.jpg", "b.jpg", "c.jpg"]


def test_settings_and_limits_of_a_command_line(finder, colours, capsys):
    words = ["--cpu", "--net", finder, "--imdb", colours, "--num_dets", "1", "--max-images", "2"]
    assert test_net.main([*words, "--set", "EXP_DIR", "mine", "TEST.NMS", "0.2"]) == 0
    (folder,) = os.listdir("output/mine")
    path = os.path.join("output/mine", folder, "colours_final", "detections.json")
    with open(path) as file:
        content = json.load(file)
    assert content["images"] == ["a", "b"]
    assert len(content["detections"]) == 3  # two with the same score, in a, stay together
    assert test_net.main([*words, "--set", "TEST.NSM", "0.2"]) == 1
    assert "'NMS'" in capsys.readouterr().err


def test_the_region_head_alone_is_tested_on_given_proposals(tiny, tmp_path, capsys):
    definition = tmp_path / "staged.prototxt"
    definition.write_text(tiny_net.NET)
    data = data_on_disk.voc(
        tmp_path / "data", {"x": [("light", (5, 5, 30, 30))], "y": [("dark", (5, 5, 30, 30))]},
        {"test": ["x", "y"]},
    )  # fmt: skip
    model = bundle.load(tiny)
    shared = ["--cpu", "--imdb", f"voc:{data}:test", "--cfg", "cfg.yml"]
    with open("cfg.yml", "w") as file:
        yaml.safe_dump(to_dict(model.cfg), file)
    net = ["--def", str(definition), "--net", model.weights]
    assert rpn_generate.main([*shared, *net, "--out", "proposals.npz"]) == 0
    proposals = load_proposals("proposals.npz")
    assert set(proposals) == {"x", "y"} and all(len(p) > 10 for p in proposals.values())
    assert test_net.main([*shared, *net, "--rpn-file", "proposals.npz", "--out", "head"]) == 0
    assert "mean AP" in capsys.readouterr().out
    assert os.path.exists("head/detections.json")


def test_given_proposals_are_looked_at_by_the_head_of_a_whole_detector(tiny, tmp_path):
    """Its definition knows no stages: the region proposal network is cut off."""
    yml = tmp_path / "net" / "tiny_final.yml"
    content = yaml.safe_load(yml.read_text())
    content["classes"] = ["__background__", "dark", "light"]  # as VOC's layout sorts them
    yml.write_text(yaml.safe_dump(content))
    objects = [("light", (5, 5, 30, 30)), ("dark", (40, 10, 50, 30))]
    data = data_on_disk.voc(tmp_path / "data", {"x": objects}, {"test": ["x"]})
    words = ["--cpu", "--net", tiny, "--imdb", f"voc:{data}:test"]
    given = np.array([[4, 4, 29, 29], [32, 2, 50, 38]], np.float32)
    save_proposals("two.npz", {"x": given})
    assert test_net.main([*words, "--rpn-file", "two.npz", "--out", "given"]) == 0
    found = load_detections("given/detections.json", get_imdb(f"voc:{data}:test"))
    for images in found[1:]:
        assert len(images[0]) == 2
        distances = np.abs(images[0][:, None, :4] - given).max(axis=2)
        assert (distances.min(axis=1) < 2).all()  # deltas of random weights are small


def test_a_missing_file_of_proposals_is_an_error_before_anything(capsys):
    assert test_net.main(["--cpu", "--net", "no.prototxt", "--rpn-file", "no.npz"]) == 1
    assert "no.npz" in capsys.readouterr().err


def test_missing_files_are_named(finder, colours, capsys):
    assert test_net.main(["--cpu", "--net", "none.prototxt", "--imdb", colours]) == 1
    assert "none.caffemodel" in capsys.readouterr().err
    assert test_net.main(["--cpu", "--net", finder, "--imdb", "voc:nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


# ---- rpn_generate


def test_proposals_of_a_trained_detector(tiny, capsys):
    words = ["--cpu", "--net", tiny, "--imdb", "shapes_test:2", "--post_nms", "7"]
    assert rpn_generate.main(words) == 0
    path = "output/default/shapes_test_2/tiny_final_rpn_proposals.npz"
    assert path in capsys.readouterr().out
    proposals = load_proposals(path)
    model = bundle.load(tiny)
    net = open_net(model.prototxt, model.weights, model.cfg, stages=("rpn",))
    dataset = get_imdb("shapes_test:2")
    expected = generate_proposals(net, dataset, model.cfg, progress=False, post_nms=7)
    for record in dataset.records:
        assert 0 < len(proposals[record.name]) <= 7
        np.testing.assert_array_equal(proposals[record.name], expected[record.name])


# ---- demo


def test_pictures_and_detections_of_files_and_folders(finder, tmp_path, capsys):
    green, both = coloured_image((10, 5, 39, 24)), coloured_image((10, 5, 39, 24), (50, 30, 79, 54))
    for path, image in (("one.png", green), ("more/one.png", both), ("more/in/two.png", green)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(path, image)
    (tmp_path / "more" / "bad.jpg").write_bytes(b"nothing")
    (tmp_path / "more" / "notes.txt").write_text("no image")
    assert demo.main(["one.png", "more", "--net", finder, "--cpu", "--out", "found"]) == 0
    captured = capsys.readouterr()
    assert "Left out: more/bad.jpg" in captured.err
    with open("found/detections.json") as file:
        results = json.load(file)
    assert [r["image"] for r in results] == ["one.png", "more/in/two.png", "more/one.png"]
    assert [d["label"] for d in results[2]["detections"]] == ["green", "red"]
    assert results[0]["detections"][0]["box"] == [10, 5, 40, 25]
    pictures = [r["picture"] for r in results]
    assert len(set(pictures)) == 3
    for r in results:  # a frame around what was detected
        picture, image = cv2.imread(r["picture"]), cv2.imread(r["image"])
        assert picture.shape == image.shape and np.abs(picture.astype(int) - image).max() > 100
    words = ["one.png", "--net", finder, "--cpu", "--threshold", "0.95", "--out", "none"]
    assert demo.main(words) == 0
    assert "one.png: nothing" in capsys.readouterr().out
    assert demo.main(["more/bad.jpg", "--net", finder, "--cpu"]) == 1
    assert demo.main([str(tmp_path / "net"), "--net", finder, "--cpu"]) == 1


def test_without_images_the_demo_takes_those_there_are(finder, tmp_path):
    assert demo.main(["--net", finder, "--cpu"]) == 0
    with open("output/demo/detections.json") as file:
        assert len(json.load(file)) == 6  # drawn ones
    (tmp_path / "data" / "demo").mkdir(parents=True)
    cv2.imwrite("data/demo/mine.png", coloured_image((10, 5, 39, 24)))
    assert demo.main(["--net", finder, "--cpu"]) == 0
    with open("output/demo/detections.json") as file:
        assert [r["image"] for r in json.load(file)] == [os.path.join("data", "demo", "mine.png")]


def test_a_published_detector_that_is_not_there(capsys):
    assert demo.main(["--cpu"]) == 1
    assert "fetch_faster_rcnn_models" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tool, words",
    [
        (demo, ["--cpu", "--set", "DATA_DIR", "moved"]),
        (test_net, ["--cpu", "--net", "vgg16", "--set", "DATA_DIR", "moved"]),
        (rpn_generate, ["--cpu", "--net", "vgg16", "--set", "DATA_DIR", "moved"]),
        (compress_net, ["--net", "vgg16", "--data_dir", "moved"]),
    ],
)
def test_published_detectors_lie_in_data_dir(tool, words, capsys):
    assert tool.main(words) == 1
    assert "moved/faster_rcnn_models/VGG16" in capsys.readouterr().err


# ---- compress_net


def test_a_detector_is_compressed_and_opened_again(tiny, capsys):
    assert compress_net.main(["--net", tiny, "--rank", "fc6", "24", "--out", "small"]) == 0
    printed = capsys.readouterr().out
    assert "fc6: 24 x 144, rank 24: relative error 0.0000" in printed
    assert "Wrote small.prototxt, small.caffemodel, small.yml\n" in printed
    image = tiny_net.make_record(0).read()
    expected, found = (Detector(p).detect(image, 0.01) for p in (tiny, "small.prototxt"))
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        assert a.label == b.label and a.score == pytest.approx(b.score, abs=1e-4)
        assert a.box == pytest.approx(b.box, abs=0.01)
    assert compress_net.main(["--net", tiny, "--rank", "fc6", "5"]) == 0
    printed = capsys.readouterr().out
    assert "3,456 -> 840 weights" in printed and "2,616 weights saved (75.7%" in printed
    path = tiny.replace("final.prototxt", "final_svd_fc6_5.prototxt")
    assert {"fc6_L", "fc6_U"} < {layer.name for layer in read_net(path).layer}
    assert os.path.getsize(path.replace("prototxt", "caffemodel")) < os.path.getsize(
        tiny.replace("prototxt", "caffemodel")
    )
    assert Detector(path).detect(image, 0.01)


def test_weights_of_a_definition_of_ones_own(tiny, tmp_path, capsys):
    """Fast R-CNN's way: two definitions and a weights file."""
    model = bundle.load(tiny)
    assert compress_net.main(["--net", tiny, "--rank", "fc6", "6", "--out", "a"]) == 0
    plain = tmp_path / "plain.prototxt"
    with open(tiny) as file:
        plain.write_text(file.read())
    words = ["--def", str(plain), "--net", model.weights, "--def-svd", "a.prototxt", "--out", "b"]
    assert compress_net.main(words) == 0
    assert not os.path.exists("b.yml") and os.path.exists("b.prototxt")
    assert "Wrote b.prototxt, b.caffemodel\n" in capsys.readouterr().out
    a, b = (caffemodel_layer(f"{name}.caffemodel", "fc6_L") for name in "ab")
    np.testing.assert_array_equal(a, b)
    assert compress_net.main(["--net", tiny, "--rank", "fc6"]) == 1
    assert compress_net.main(["--net", tiny]) == 1  # there is no fc7
    assert "'fc7'" in capsys.readouterr().err


def caffemodel_layer(path, name):
    from demitasse.engine import caffemodel

    layers = {n: blobs for n, _, blobs in caffemodel.read_weights(path)}
    return np.array(layers[name][0].data)


# ---- what command lines have in common


def parse(*words):
    parser = commandline.make_parser("test")
    commandline.add_common_flags(parser)
    return parser.parse_args(words)


def test_the_config_of_a_command_line(tmp_path):
    (tmp_path / "cfg.yml").write_text("EXP_DIR: from_file\nTEST: {NMS: 0.5, MAX_SIZE: 800}\n")
    args = parse("--cfg", "cfg.yml", "--set", "TEST.NMS", "0.6", "--seed", "5", "--set",
                 "TRAIN.SCALES", "[480, 600]", "TEST.RPN_PRE_NMS_TOP_N", "-1")  # fmt: skip
    cfg = commandline.resolve_config(args)
    assert (cfg.EXP_DIR, cfg.TEST.NMS, cfg.TEST.MAX_SIZE) == ("from_file", 0.6, 800)
    assert cfg.TRAIN.SCALES == (480, 600) and cfg.TEST.RPN_PRE_NMS_TOP_N == -1
    assert cfg.RNG_SEED == 5
    base = commandline.resolve_config(parse("--set", "EXP_DIR", "base"))
    assert commandline.resolve_config(parse("--seed", "1"), base).EXP_DIR == "base"
    assert commandline.resolve_config(parse()) == Config()
    with pytest.raises(ModelFileError, match="pairs"):
        commandline.resolve_config(parse("--set", "TEST.NMS"))


def test_the_device_of_a_command_line(monkeypatch, capsys):
    assert commandline.resolve_device(parse("--cpu")) is devices.CPU
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert commandline.resolve_device(parse()) is devices.CPU
    assert capsys.readouterr().err == "Using the CPU (no GPU found).\n"
    with pytest.raises(SystemExit):
        parse("--cpu", "--gpu", "0")

    def gpu_device(index):
        if index == 1:
            raise DeviceError("GPU 1", "a GPU", "none")
        return f"gpu {index}"

    monkeypatch.setattr(devices, "gpu_device", gpu_device)
    with pytest.raises(DeviceError, match="GPU 1"):
        commandline.resolve_device(parse("--gpu", "1"))
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    assert commandline.resolve_device(parse()) == "gpu 0"
    assert commandline.resolve_device(parse("--gpu", "0")) == "gpu 0"


def test_waiting_for_weights(tiny, monkeypatch, capsys):
    monkeypatch.setattr(commandline, "_WAIT", 0.01)
    model = bundle.load(tiny)
    later = "later.caffemodel"
    threading.Timer(0.1, os.link, (model.weights, later)).start()
    parser = commandline.make_parser("test")
    commandline.add_model_flags(parser)
    args = parser.parse_args(["--def", tiny, "--net", later, "--wait"])
    found = commandline.model_of(args)
    assert found.weights == later and found.classes == model.classes
    assert "Waiting for later.caffemodel" in capsys.readouterr().err


@pytest.mark.parametrize("tool", [test_net, demo, rpn_generate, compress_net])
def test_tools_explain_themselves(tool, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [tool.__name__])
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "--net" in capsys.readouterr().out
