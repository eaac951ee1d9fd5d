"""From a command line and files as a user has them to a tested detector."""

import json
import re
import shutil
import sys
from pathlib import Path

import data_on_disk
import py_faster_rcnn
import pytest
import tiny_net

from demitasse.detection.datasets import get_imdb
from demitasse.tools import train_faster_rcnn_alt_opt, train_net

pytestmark = pytest.mark.usefixtures("tool_folder")

WORDS = ["--cpu", "--net", "tiny", "--weights", "none", "--iters", "12", "--output", "run"]
SETTINGS = [
    "--set", "TRAIN.SCALES", "[48]", "TEST.SCALES", "[48]", "ANCHOR_SCALES", "[2,3]",
    "TRAIN.BATCH_SIZE", "16", "TRAIN.RPN_MIN_SIZE", "4", "TEST.RPN_MIN_SIZE", "4",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _network(tmp_path):
    tiny_net.write_network(tmp_path / "tiny")


def coco(folder, count=6):
    """A COCO file of `count` images with a cat each, and a dog in the first; returns its name."""
    boxes = [(i, 7, [5, 5, 30, 25]) for i in range(1, count + 1)] + [(1, 3, [30, 10, 20, 20])]
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": 0, "area": 600}
        for k, (i, c, box) in enumerate(boxes, 1)
    ]
    return data_on_disk.coco(folder, range(1, count + 1), annotations)


@pytest.mark.parametrize("is_installed", [True, False])
def test_coco_data_with_and_without_pycocotools(is_installed, tmp_path, monkeypatch, capsys):
    if is_installed:
        pytest.importorskip("pycocotools")
    else:
        monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    words = [*WORDS, "--imdb", coco(tmp_path / "data"), "--eval-interval", "8", *SETTINGS]
    assert train_net.main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^dog  .+\ncat  .+\nmean AP  .+$", printed, re.MULTILINE)
    assert ("\nAP_small " in printed) == is_installed
    assert ("pip install" in printed) != is_installed
    assert "The trained detector: run/tiny_faster_rcnn_final.prototxt" in printed
    for file in ("average_precision.txt", "detections.json", "sheet.png"):
        assert Path("run", file).stat().st_size > 0
    logged = [json.loads(line) for line in Path("run/losses.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in logged if "mAP" in entry] == [8, 12]


@pytest.mark.parametrize("tool, steps", [(train_net, 1), (train_faster_rcnn_alt_opt, 6)])
def test_a_folder_without_lists_of_images(tool, steps, tmp_path, capfd):
    """One image has no object, one is cut short: its header can be read, and each step that reads
    the training images (four stages and two RPNs' proposals) names it once."""
    objects = [("cat", (5, 5, 30, 30)), ("dog", (20, 8, 50, 36))]
    folder = data_on_disk.voc(tmp_path / "data", {f"{k}": objects for k in range(8)})
    empty, cut = [record.name for record in get_imdb(f"voc:{folder}").records[:2]]
    data_on_disk.annotation(folder / "Annotations" / f"{empty}.xml", [])
    path = folder / "JPEGImages" / f"{cut}.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert tool.main([*WORDS, "--imdb", f"voc:{folder}", *SETTINGS]) == 0
    printed, logged = capfd.readouterr()
    assert logged.count(f"{cut}.jpg: expected a complete image") == steps
    assert re.search(r"^cat  .+\ndog  .+\nmean AP  .+$", printed, re.MULTILINE)
    assert "The trained detector: run/tiny_faster_rcnn_final.prototxt" in printed
    assert Path("run/tiny_faster_rcnn_final.caffemodel").stat().st_size > 0


HEAD = [
    "cls_score: num_output 21 -> 3 (3 classes)", "bbox_pred: num_output 84 -> 12 (4 x 3 classes)",
]  # fmt: skip
RPN = [
    "rpn_cls_score: num_output 18 -> 12 (2 x 6 anchors)",
    "rpn_bbox_pred: num_output 36 -> 24 (4 x 6 anchors)",
]


@pytest.mark.parametrize(
    "tool, network, adapted",
    [
        (
            train_faster_rcnn_alt_opt, "ZF",
            {
                "stage1_rpn_train.pt": RPN, "stage1_fast_rcnn_train.pt": HEAD + RPN,
                "stage2_rpn_train.pt": RPN, "stage2_fast_rcnn_train.pt": HEAD + RPN,
                "faster_rcnn_test.pt": HEAD + RPN,
            },
        ),
        (train_net, "VGG16", {"train.prototxt": HEAD + RPN, "test.prototxt": HEAD + RPN}),
    ],
)  # fmt: skip
def test_py_faster_rcnns_files_train_whole_and_as_they_are(tool, network, adapted, tmp_path, capfd):
    models = py_faster_rcnn.write(tmp_path, network)
    before = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    objects = [("cat", (5, 5, 30, 30)), ("dog", (20, 8, 50, 36))]
    folder = data_on_disk.voc(tmp_path / "data", {f"{k}": objects for k in range(3)})
    words = ["--cpu", "--net", str(models), "--weights", "none", "--output", "run"]
    words += ["--imdb", f"voc:{folder}", "--iters", "1", "--set", "TRAIN.SCALES", "[64]"]
    words += ["TEST.SCALES", "[64]", "ANCHOR_SCALES", "[1,2]", "TRAIN.BATCH_SIZE", "4"]
    words += ["TRAIN.RPN_POST_NMS_TOP_N", "8", "TEST.RPN_POST_NMS_TOP_N", "4"]
    words += ["TRAIN.IMS_PER_BATCH", "1"]
    assert tool.main(words) == 0
    shutil.rmtree("run")  # hundreds of megabytes
    printed, logged = capfd.readouterr()
    assert re.search(r"^cat  .+\ndog  .+\nmean AP  .+$", printed, re.MULTILINE)
    for net, lines in adapted.items():
        said = re.findall(rf"Adapted {net}: (.*num_output.*)", logged)
        assert sorted(said) == sorted(lines)
    assert {path: path.read_bytes() for path in before} == before
