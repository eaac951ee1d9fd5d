"""The command line that draws what a trained detector finds in images."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from known_nets import coloured_image

from demitasse.tools import demo

pytestmark = pytest.mark.usefixtures("tool_folder")


def test_pictures_and_detections_of_files_and_folders(finder_path, tmp_path, capsys):
    green, both = coloured_image((10, 5, 39, 24)), coloured_image((10, 5, 39, 24), (50, 30, 79, 54))
    for path, image in (("one.png", green), ("more/one.png", both), ("more/in/two.png", green)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(path, image)
    (tmp_path / "more" / "bad.jpg").write_bytes(b"nothing")
    (tmp_path / "more" / "notes.txt").write_text("no image")
    assert demo.main(["one.png", "more", "--net", finder_path, "--cpu", "--out", "found"]) == 0
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
    words = ["one.png", "--net", finder_path, "--cpu", "--threshold", "0.95", "--out", "none"]
    assert demo.main(words) == 0
    assert "one.png: nothing" in capsys.readouterr().out
    assert demo.main(["more/bad.jpg", "--net", finder_path, "--cpu"]) == 1
    assert demo.main([str(tmp_path / "net"), "--net", finder_path, "--cpu"]) == 1


def test_the_definition_and_the_weights_of_a_detector(finder_path, tmp_path, capsys):
    """They may be given as to the other tools."""
    cv2.imwrite("one.png", coloured_image((10, 5, 39, 24)))
    weights = str(tmp_path / "weights.caffemodel")
    shutil.copy(finder_path.replace(".prototxt", ".caffemodel"), weights)
    words = ["one.png", "--cpu"]
    for flags in (["--net", finder_path, "--weights"], ["--def", finder_path, "--net"]):
        assert demo.main([*words, *flags, weights]) == 0
        assert "one.png: green" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        demo.main([*words, "--def", finder_path, "--weights", weights])


def test_without_images_the_demo_takes_those_there_are(finder_path, tmp_path):
    assert demo.main(["--net", finder_path, "--cpu"]) == 0
    with open("output/demo/detections.json") as file:
        assert len(json.load(file)) == 6  # drawn ones
    (tmp_path / "data" / "demo").mkdir(parents=True)
    cv2.imwrite("data/demo/mine.png", coloured_image((10, 5, 39, 24)))
    assert demo.main(["--net", finder_path, "--cpu"]) == 0
    with open("output/demo/detections.json") as file:
        assert [r["image"] for r in json.load(file)] == [os.path.join("data", "demo", "mine.png")]


def test_a_published_detector_that_is_not_there(capsys):
    assert demo.main(["--cpu"]) == 1
    assert "fetch_faster_rcnn_models" in capsys.readouterr().err
