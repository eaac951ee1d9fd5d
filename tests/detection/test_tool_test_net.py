"""The command lines that test a trained detector and that write its proposals."""

import json
import os
import sys

import data_on_disk
import numpy as np
import pytest
import tiny_net
import yaml

from demitasse.detection import bundle
from demitasse.detection.config import to_dict
from demitasse.detection.datasets import get_imdb
from demitasse.detection.evaluate import load_detections
from demitasse.detection.opening import open_net
from demitasse.detection.proposals import load_proposals, save_proposals
from demitasse.detection.test import generate_proposals
from demitasse.tools import rpn_generate, test_net

pytestmark = pytest.mark.usefixtures("tool_folder")


# ---- test_net


def test_a_detector_is_tested_evaluated_and_its_detections_are_saved(finder_path, colours, capsys):
    words = ["--cpu", "--net", finder_path, "--imdb", colours]
    words += ["--vis", "--comp", "--out", "results"]
    assert test_net.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("mean AP  1.0000") == 2  # by both metrics
    all_boxes = load_detections("results/detections.json", get_imdb(colours))
    assert [[len(boxes) for boxes in images] for images in all_boxes[1:]] == [[1, 0, 1], [1, 1, 0]]
    with open("results/comp4_det_test_red.txt") as file:
        lines = file.read().splitlines()
    assert lines == ["a 0.900 51.0 31.0 81.0 56.0", "b 0.900 21.0 11.0 61.0 41.0"]
    assert sorted(os.listdir("results/pictures")) == ["a.jpg", "b.jpg", "c.jpg"]


def test_settings_and_limits_of_a_command_line(finder_path, colours, capsys):
    words = ["--cpu", "--net", finder_path, "--imdb", colours]
    words += ["--num_dets", "1", "--max-images", "2"]
    assert test_net.main([*words, "--set", "EXP_DIR", "mine", "TEST.NMS", "0.2"]) == 0
    (folder,) = os.listdir("output/mine")
    path = os.path.join("output/mine", folder, "colours_final", "detections.json")
    with open(path) as file:
        content = json.load(file)
    assert content["images"] == ["a", "b"]
    assert len(content["detections"]) == 3  # two with the same score, in a, stay together
    assert test_net.main([*words, "--set", "TEST.NSM", "0.2"]) == 1
    assert "'NMS'" in capsys.readouterr().err


def test_without_pycocotools_data_of_cocos_have_the_other_tables(
    tiny_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    categories = [{"id": 1, "name": "light"}, {"id": 2, "name": "dark"}]
    objects = [
        {"id": k, "image_id": 1, "category_id": k, "bbox": [5, 5, 30, 25], "iscrowd": 0, "area": 9}
        for k in (1, 2)
    ]
    name = data_on_disk.coco(tmp_path / "data", [1], objects, categories)
    words = ["--cpu", "--net", tiny_path, "--imdb", f"{name}:all", "--out", "results"]
    assert test_net.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("mean AP") == 2 and "pip install" in printed
    assert os.path.exists("results/detections.json")


def test_the_region_head_alone_is_tested_on_given_proposals(tiny_path, tmp_path, capsys):
    definition = tmp_path / "staged.prototxt"
    definition.write_text(tiny_net.NET)
    data = data_on_disk.voc(
        tmp_path / "data", {"x": [("light", (5, 5, 30, 30))], "y": [("dark", (5, 5, 30, 30))]},
        {"test": ["x", "y"]},
    )  # fmt: skip
    model = bundle.load(tiny_path)
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


def test_given_proposals_are_looked_at_by_the_head_of_a_whole_detector(tiny_path, tmp_path):
    """Its definition knows no stages: the region proposal network is cut off."""
    yml = tmp_path / "net" / "tiny_final.yml"
    content = yaml.safe_load(yml.read_text())
    content["classes"] = ["__background__", "dark", "light"]  # as VOC's layout sorts them
    yml.write_text(yaml.safe_dump(content))
    objects = [("light", (5, 5, 30, 30)), ("dark", (40, 10, 50, 30))]
    data = data_on_disk.voc(tmp_path / "data", {"x": objects}, {"test": ["x"]})
    words = ["--cpu", "--net", tiny_path, "--imdb", f"voc:{data}:test"]
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


def test_missing_files_are_named(finder_path, colours, capsys):
    assert test_net.main(["--cpu", "--net", "none.prototxt", "--imdb", colours]) == 1
    assert "none.caffemodel" in capsys.readouterr().err
    assert test_net.main(["--cpu", "--net", finder_path, "--imdb", "voc:nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


# ---- rpn_generate


def test_proposals_of_a_trained_detector(tiny_path, capsys):
    words = ["--cpu", "--net", tiny_path, "--imdb", "shapes_test:2", "--post_nms", "7"]
    assert rpn_generate.main(words) == 0
    path = "output/default/shapes_test_2/tiny_final_rpn_proposals.npz"
    assert path in capsys.readouterr().out
    proposals = load_proposals(path)
    model = bundle.load(tiny_path)
    net = open_net(model.prototxt, model.weights, model.cfg, stages=("rpn",))
    dataset = get_imdb("shapes_test:2")
    expected = generate_proposals(net, dataset, model.cfg, progress=False, post_nms=7)
    for record in dataset.records:
        assert 0 < len(proposals[record.name]) <= 7
        np.testing.assert_array_equal(proposals[record.name], expected[record.name])
