"""The end of a training run: the trained detector is tested, and what was found is written down."""

import os
from pathlib import Path

import numpy as np

from ..engine.errors import DataError
from . import visualize
from .detections import DETECTIONS_FILE
from .detector import Detection, list_detections
from .evaluate import (
    AREAS,
    evaluate_detections,
    proposal_recall,
    recall_table,
    save_detections,
)
from .loss_log import FILE as LOSSES
from .plots import loss_curve
from .test import generate_proposals, test_net

TABLE, RECALL = "average_precision.txt", "recall.txt"
SHEET, CURVE = "sheet.png", "loss.png"
_SHEET_IMAGES = 12
_SHOWN_SCORE = 0.5  # of detections on the sheet


def test_and_report(net, dataset, cfg, folder, proposals=None):
    """Test a detector on a data set; the results go to the folder of the run.

    Writes detections.json, average_precision.txt, sheet.png (images with their objects and with
    what was detected) and, if there is a log of losses, loss.png.

    Args: proposals: {record name: (R, 5)}, for a net with the input `rois`.
    Returns: the numbers and the text of `evaluate_detections`.
    """
    all_boxes = test_net(net, dataset, cfg, proposals=proposals)
    save_detections(os.path.join(folder, DETECTIONS_FILE), dataset, all_boxes)
    numbers, text = evaluate_detections(dataset, all_boxes)
    Path(folder, TABLE).write_text(f"{text}\n", encoding="utf-8")
    visualize.save_image(os.path.join(folder, SHEET), sheet(dataset, all_boxes))
    draw_curve(folder)
    return numbers, text


def recall_and_report(net, dataset, cfg, folder):
    """Measure how many objects of a data set the proposals of an RPN find.

    There are as many proposals as a detector would get. Writes recall.txt and, if there is a log of
    losses, loss.png to the folder of the run.

    Args: net: of open_net, with the outputs `rois` and `scores`.
    Returns: {area: the mean recall}, and a text to print.
    """
    t = cfg.TEST
    found = generate_proposals(
        net, dataset, cfg, pre_nms=t.RPN_PRE_NMS_TOP_N, post_nms=t.RPN_POST_NMS_TOP_N
    )
    results = {area: proposal_recall(dataset, found, area=area) for area in AREAS}
    count = t.RPN_POST_NMS_TOP_N if t.RPN_POST_NMS_TOP_N > 0 else "all"
    head = f"Recall of {count} proposals an image, by IoU, on {dataset.name}:"
    text = f"{head}\n{recall_table(results)}"
    Path(folder, RECALL).write_text(f"{text}\n", encoding="utf-8")
    draw_curve(folder)
    return {area: result.ar for area, result in results.items()}, text


def draw_curve(folder):
    """Draw loss.png from a run's losses.jsonl, if it has anything to draw."""
    path = os.path.join(folder, LOSSES)
    if not os.path.exists(path) or not os.path.getsize(path):
        return
    loss_curve(path, os.path.join(folder, CURVE))


def sheet(dataset, all_boxes):
    """Some images of a data set, evenly spread, beside what was detected in them.

    Args: all_boxes: of `test_net`.
    """
    images, found, truths, titles = [], [], [], []
    count = min(_SHEET_IMAGES, len(dataset))
    for i in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        record = dataset.records[i]
        try:
            images.append(record.read())
        except DataError:
            continue  # test_net has named it
        per_class = [boxes[i] for boxes in all_boxes]
        found.append(list_detections(per_class, dataset.classes, _SHOWN_SCORE))
        objects = zip(record.labels, record.boxes.tolist())
        truths.append([Detection(dataset.classes[c], None, tuple(box)) for c, box in objects])
        titles.append(record.name)
    return visualize.detection_sheet(images, found, truths, titles, dataset.classes)


def print_files(detector, folder):
    """The last lines of a training program: where the detector is, and all files of the run."""
    print(f"The trained detector: {detector}")
    print("Written:")
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        print(f"  {path} ({_size(path.stat().st_size)})")


def _size(count):
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            break
        count, unit = count / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB"}[unit]
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
