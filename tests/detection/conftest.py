"""What the tools' tests start from: a folder, a data set, and trained detectors' files."""

import cv2
import data_on_disk
import pytest
import tiny_net
import yaml
from known_nets import CFG, CLASSES, FIND_COLOURS, coloured_image, open_text

from demitasse.detection import bundle
from demitasse.detection.adapt import adapt_net
from demitasse.detection.config import to_dict
from demitasse.engine import weights as weight_files
from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase

BOXES = {  # image name -> objects as annotated, 1-based
    "a": [("green", (11, 6, 40, 25)), ("red", (51, 31, 80, 55))],
    "b": [("red", (21, 11, 60, 40))],
    "c": [("green", (31, 6, 70, 55))],
}


@pytest.fixture
def tool_folder(tmp_path, monkeypatch, log_as_it_was):
    """The tools write to output/ and set up the log of their process."""
    monkeypatch.chdir(tmp_path)


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
def finder_path(tmp_path):
    """A detector of green and red boxes as a trained detector's files."""
    stem = tmp_path / "net" / "colours_final"
    stem.parent.mkdir()
    stem.with_suffix(".prototxt").write_text(FIND_COLOURS)
    weight_files.save(open_text(FIND_COLOURS), str(stem.with_suffix(".caffemodel")))
    content = {"classes": list(CLASSES), "config": to_dict(CFG)}
    stem.with_suffix(".yml").write_text(yaml.safe_dump(content))
    return str(stem.with_suffix(".prototxt"))


@pytest.fixture
def tiny_path(tmp_path):
    """A tiny Faster R-CNN with random weights as a trained detector's files."""
    cfg = tiny_net.CFG
    param, _ = adapt_net(tiny_net.net_param(), 3, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS)
    net = Net(param, Phase.TEST, stages=("rpn", "fast_rcnn"), context=Context(1))
    return bundle.save(str(tmp_path / "net" / "tiny_final"), net, param, tiny_net.CLASSES, cfg)
