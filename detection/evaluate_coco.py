"""COCO's evaluation, by pycocotools, of detections on any data set."""

import contextlib
import copy
import io

import numpy as np

from ..engine.errors import DataError
from .detections import check_detections, join_images

NUMBERS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""Names of COCO's twelve numbers, in its order."""


def coco_eval(dataset, all_boxes):
    """COCO's twelve numbers, {name: value}; a value is -1 where no object is of that size.

    NOTE: objects that VOC marks as difficult are treated as crowds.

    Raises: DataError if `all_boxes` does not fit the data set, or pycocotools is not installed.
    """
    check_detections(dataset, all_boxes)
    COCO, COCOeval = _pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        truth = _coco(COCO, dataset, _objects(dataset))
        found = _coco(COCO, dataset, _detections(all_boxes))
        evaluation = COCOeval(truth, found, "bbox")
        evaluate(evaluation)
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NUMBERS, evaluation.stats.tolist()))


def coco_report(dataset, all_boxes):
    """COCO's numbers as of `coco_eval`, and a text to print.

    Without pycocotools there are no numbers, {}, and the text is a line that says how to get it.

    Raises: DataError if `all_boxes` does not fit the data set.
    """
    check_detections(dataset, all_boxes)
    try:
        _pycocotools()
    except DataError as error:
        return {}, str(error)
    numbers = coco_eval(dataset, all_boxes)
    return numbers, f"COCO's evaluation:\n{coco_table(numbers)}"


def _pycocotools():
    """The classes COCO and COCOeval; raises DataError without the package."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        hint = "Install it: pip install '.[detection]'."
        raise DataError("COCO's evaluation", "the package pycocotools", str(error), hint) from None
    return COCO, COCOeval


def evaluate(evaluation):
    """What COCOeval.evaluate does, with the same results, without work that cannot change them.

    Most pairs of an image and a class have neither objects nor detections, and most of the others
    have detections alone: there is nothing to match.
    """
    p = evaluation.params
    evaluation._prepare()
    objects, detections = (
        {pair: rows for pair, rows in table.items() if rows}
        for table in (evaluation._gts, evaluation._dts)
    )
    most = p.maxDets[-1]
    results = {}  # (image, class) -> one for each range of areas
    for pair, rows in detections.items():
        if pair in objects:
            evaluation.ious[pair] = evaluation.computeIoU(*pair)
        else:
            results[pair] = _unmatched(rows, p.areaRng, most, len(p.iouThrs))
    for pair in objects:
        evaluation.ious.setdefault(pair, [])
        results[pair] = [evaluation.evaluateImg(*pair, area, most) for area in p.areaRng]
    nothing = [None] * len(p.areaRng)
    evaluation.evalImgs = [
        results.get((image, label), nothing)[k]
        for label in p.catIds
        for k in range(len(p.areaRng))
        for image in p.imgIds
    ]
    evaluation._paramsEval = copy.deepcopy(p)


def _unmatched(rows, areas, most, thresholds):
    """For each range of areas, what COCOeval.evaluateImg says of detections without objects."""
    order = np.argsort([-row["score"] for row in rows], kind="mergesort")[:most]
    rows = [rows[i] for i in order]
    sizes = np.array([row["area"] for row in rows])
    same = {
        "dtScores": [row["score"] for row in rows],
        "dtMatches": np.zeros((thresholds, len(rows))),
        "gtIgnore": np.zeros(0),
    }
    outside = [(sizes < low) | (sizes > high) for low, high in areas]
    return [{**same, "dtIgnore": np.tile(o, (thresholds, 1))} for o in outside]


def coco_table(numbers):
    """A text with a line for each number."""
    width = max(map(len, numbers))
    return "\n".join(f"{name:<{width}}  {value:.4f}" for name, value in numbers.items())


def _coco(kind, dataset, annotations):
    """A COCO object that was not read from a file. Images and categories are numbered from 1."""
    coco = kind()
    coco.dataset = {
        "images": [
            {"id": i, "width": record.width, "height": record.height}
            for i, record in enumerate(dataset.records, 1)
        ],
        "categories": [{"id": i, "name": n} for i, n in enumerate(dataset.classes[1:], 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _objects(dataset):
    annotations = []
    for image, record in enumerate(dataset.records, 1):
        corners = _corner_and_size(record.boxes)
        areas = corners[:, 2] * corners[:, 3] if record.areas is None else record.areas
        ignored = record.difficult | record.crowd
        rows = zip(corners.tolist(), record.labels.tolist(), ignored.tolist(), areas.tolist())
        for box, label, is_ignored, area in rows:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label,
                 "bbox": box, "area": area, "iscrowd": int(is_ignored)}
            )  # fmt: skip
    return annotations


def _detections(all_boxes):
    annotations = []
    for label, images in list(enumerate(all_boxes))[1:]:
        boxes, scores, image = join_images(images)
        boxes = _corner_and_size(boxes)
        for box, score, number in zip(boxes.tolist(), scores.tolist(), image.tolist()):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label,
                 "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": score}
            )  # fmt: skip
    return annotations


def _corner_and_size(boxes):
    """x1, y1, width, height (N, 4) float64 of inclusive boxes (N, 4)."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1], axis=1)
