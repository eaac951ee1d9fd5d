"""How many objects a set of region proposals finds (py-faster-rcnn: imdb.evaluate_recall)."""

from dataclasses import dataclass

import numpy as np

from ..boxes.overlaps import bbox_overlaps
from ..engine.errors import DataError, closest

AREAS = {
    "all": (0.0, np.inf),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, np.inf),
}
"""Ranges of an object's area in square pixels, both ends included."""


@dataclass(frozen=True)
class RecallResult:
    """`recalls` (T,) at IoU `thresholds` (T,), their mean `ar`, the number of `objects`, and for
    each of them, in ascending order, the IoU of the proposal it was given, `overlaps`."""

    recalls: np.ndarray
    ar: float
    thresholds: np.ndarray
    objects: int
    overlaps: np.ndarray


def proposal_recall(dataset, proposals, thresholds=None, limit=None, area="all"):
    """The recall of region proposals.

    In each image the object and the proposal that overlap most are paired and set aside until
    either is used up; an object is found at a threshold if its pair's IoU reaches it. Difficult
    objects and crowds do not count.

    Args: `proposals`, {record name: (R, 4 or 5)}, best first, of which `limit` an image are used;
    `thresholds`, 0.5, 0.55 ... 0.95 if None; `area`, a name of `AREAS`.
    Returns: a RecallResult, NaN if there are no objects.
    Raises: DataError if an image has no entry in `proposals`, `area` is unknown, or
    `limit` is below 1.
    """
    if area not in AREAS:
        expected = f"an area of {', '.join(AREAS)}"
        raise DataError("proposal_recall", expected, repr(area), closest(area, AREAS))
    if limit is not None and limit < 1:
        raise DataError("proposal_recall", "a limit of at least 1 proposal", limit)
    default = np.linspace(0.5, 0.95, 10)
    thresholds = default if thresholds is None else np.asarray(thresholds, np.float64)
    overlaps = [np.zeros(0)]
    for record in dataset.records:
        if record.name not in proposals:
            hint = "An image without any may have an empty array."
            raise DataError("proposals", f"some for image {record.name!r}", "none", hint)
        boxes = np.asarray(proposals[record.name], np.float64)
        boxes = boxes[:limit, :4] if len(boxes) else np.zeros((0, 4))
        overlaps.append(_match(bbox_overlaps(_objects(record, AREAS[area]), boxes)))
    overlaps = np.sort(np.concatenate(overlaps))
    recalls = recall_at(overlaps, thresholds)
    return RecallResult(recalls, float(recalls.mean()), thresholds, len(overlaps), overlaps)


def recall_at(overlaps, thresholds):
    """The part of `overlaps` (N,), ascending, that reaches each threshold (T,); NaN if N is 0."""
    count = len(overlaps)
    if not count:
        return np.full(len(thresholds), np.nan)
    return (count - np.searchsorted(overlaps, thresholds)) / count


def recall_table(results):
    """A text of {area: RecallResult}: the number of objects, the mean, the recall by IoU."""
    thresholds = next(iter(results.values())).thresholds
    lines = [" ".join(["area   objects  average", *(f"{t:>5.2f}" for t in thresholds)])]
    for area, result in results.items():
        numbers = " ".join(f"{recall:5.3f}" for recall in result.recalls)
        lines.append(f"{area:<6} {result.objects:>7}  {result.ar:>7.3f} {numbers}")
    return "\n".join(lines)


def _objects(record, limits):
    """The boxes (G, 4) of a record that count and are of that area."""
    boxes = record.boxes
    areas = record.areas
    if areas is None:
        areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    counted = ~(record.difficult | record.crowd) & (areas >= limits[0]) & (areas <= limits[1])
    return boxes[counted]


def _match(overlaps):
    """For each row of `overlaps` (G, R) the value of the column it is paired with, 0 if none."""
    matched = np.zeros(len(overlaps))
    for _ in range(min(overlaps.shape)):
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        if overlaps[row, column] <= 0:
            break
        matched[row] = overlaps[row, column]
        overlaps[row] = overlaps[:, column] = -1
    return matched
