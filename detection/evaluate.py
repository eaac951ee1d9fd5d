"""How good detections and proposals are: one place to import from, and the report of a test.

The measures have a file each: evaluate_voc, evaluate_coco and evaluate_recall; the files of
detections are in detections.
"""

import re

from .detections import load_detections, save_detections, write_voc_results
from .evaluate_coco import coco_eval, coco_report, coco_table
from .evaluate_recall import AREAS, proposal_recall, recall_at, recall_table
from .evaluate_voc import ap_table, mean_ap, voc_ap, voc_eval

__all__ = [
    "AREAS", "ap_table", "coco_eval", "coco_report", "coco_table", "evaluate_detections",
    "load_detections", "mean_ap", "proposal_recall", "recall_at", "recall_table",
    "save_detections", "voc_ap", "voc_eval", "write_voc_results",
]  # fmt: skip


def evaluate_detections(dataset, all_boxes):
    """Evaluate detections as is usual for the data set, by its name.

    COCO: the twelve numbers, if pycocotools is installed, and the AP at IoU 0.5 of each class.
    Others: the latter only; data sets of VOC before 2010 by the metric of 2007.

    Returns: {"mAP": value, class name: AP, ..., and COCO's numbers}, and a text to print.
    Raises: DataError.
    """
    use_07 = uses_07_metric(dataset.name)
    results = voc_eval(dataset, all_boxes, use_07_metric=use_07)
    numbers = {"mAP": mean_ap(results), **{name: r.ap for name, r in results.items()}}
    metric = "11 points" if use_07 else "area under the curve"
    text = f"Average precision at IoU 0.5 ({metric}) on {dataset.name}:\n{ap_table(results)}"
    if dataset.name.startswith("coco"):
        coco, report = coco_report(dataset, all_boxes)
        numbers |= coco
        text += f"\n{report}"
    return numbers, text


def uses_07_metric(name):
    """Whether average precision on a data set of that name is measured at 11 recalls."""
    return all(re.match(r"voc_200[0-9]_", part) for part in name.split("+"))
