"""Average precision as PASCAL VOC measures it (its development kit's VOCevaldet)."""

from dataclasses import dataclass

import numpy as np

from .detections import check_detections, join_images


@dataclass(frozen=True)
class ClassResult:
    """The curve of one class: `rec` and `prec` (N,) after each detection, best first, the average
    precision `ap`, and the number of objects to be found. Without objects, `ap` is NaN."""

    ap: float
    rec: np.ndarray
    prec: np.ndarray
    objects: int


def voc_ap(rec, prec, use_07_metric=False):
    """Average precision of a curve: recalls (N,), ascending, and the precisions (N,) there.

    By VOC 2007's metric, the mean of the best precision at recall 0, 0.1 ... 1 or above; otherwise
    the area under the curve made monotonic from the right.
    """
    rec, prec = np.asarray(rec, np.float64), np.asarray(prec, np.float64)
    best = np.append(np.maximum.accumulate(prec[::-1])[::-1], 0.0)  # at this recall or above
    if use_07_metric:
        return float(best[np.searchsorted(rec, np.arange(0.0, 1.1, 0.1))].mean())
    return float((np.diff(rec, prepend=0.0) * best[:-1]).sum())


def voc_eval(dataset, all_boxes, iou=0.5, use_07_metric=False):
    """Evaluate detections class by class.

    A detection is right if, of the objects of its class and image, the one it overlaps most has an
    IoU above `iou` and no detection with a higher score took it. Those whose object is difficult
    count neither as right nor as wrong. Equal scores keep their order.
    NOTE: objects that COCO marks as crowds are treated as difficult ones.

    Args: `all_boxes[class][image]`, arrays (D, 5), as in detections.py.
    Returns: {class name: ClassResult}, without the background.
    Raises: DataError if `all_boxes` does not fit the data set.
    """
    check_detections(dataset, all_boxes)
    labels = np.concatenate([record.labels for record in dataset.records] or [np.zeros(0, int)])
    counts = [len(record.labels) for record in dataset.records]
    image = np.repeat(np.arange(len(counts)), counts)
    boxes = [record.boxes for record in dataset.records] or [np.zeros((0, 4))]
    boxes = np.concatenate(boxes).astype(np.float64)
    ignored = [record.difficult | record.crowd for record in dataset.records]
    ignored = np.concatenate(ignored or [np.zeros(0, bool)])
    results = {}
    for label, name in list(enumerate(dataset.classes))[1:]:
        own = labels == label
        objects = boxes[own], image[own], ignored[own]
        results[name] = _evaluate_class(objects, all_boxes[label], iou, use_07_metric)
    return results


def _evaluate_class(objects, images, iou, use_07_metric):
    boxes, scores, image = join_images(images)
    order = np.argsort(-scores, kind="stable")
    owner, overlap = best_objects(boxes[order], image[order], objects[0], objects[1])
    ignored = objects[2]
    hit = overlap > iou
    counted = np.ones(len(order), bool)
    counted[hit] = ~ignored[owner[hit]]
    hit = np.flatnonzero(hit & counted)
    right = np.zeros(len(order), bool)
    right[hit[np.unique(owner[hit], return_index=True)[1]]] = True  # the first of each object
    found, wrong = np.cumsum(right), np.cumsum(counted & ~right)
    total = int(np.count_nonzero(~ignored))
    precision = found / np.maximum(found + wrong, np.finfo(np.float64).eps)
    recall = found / total if total else np.full(len(found), np.nan)
    ap = voc_ap(recall, precision, use_07_metric) if total else float("nan")
    return ClassResult(ap, recall, precision, total)


def best_objects(boxes, image, object_boxes, object_image):
    """For each of N boxes the object in its image that it overlaps most, and how much.

    Args: boxes (N, 4) and the numbers of their images (N,); objects (G, 4) and theirs (G,),
    ascending.
    Returns: the number of the object (N,), the first of equal ones, or -1 where the image has
    none; the IoU (N,), 0 there.
    """
    start = np.searchsorted(object_image, image)
    count = np.searchsorted(object_image, image, side="right") - start
    owner, overlap = np.full(len(boxes), -1), np.zeros(len(boxes))
    some = np.flatnonzero(count)
    if not len(some):
        return owner, overlap
    # All pairs of a box and an object of its image, box by box.
    first = np.cumsum(count[some]) - count[some]
    a = np.repeat(some, count[some])
    b = np.arange(len(a)) - np.repeat(first, count[some]) + start[a]
    pairs = _pair_overlaps(boxes[a], object_boxes[b])
    best = np.maximum.reduceat(pairs, first)
    overlap[some] = best
    at_best = np.flatnonzero(pairs == np.repeat(best, count[some]))
    owner_of, where = np.unique(a[at_best], return_index=True)
    owner[owner_of] = b[at_best[where]]
    return owner, overlap


def _pair_overlaps(a, b):
    """IoU of boxes (N, 4) and (N, 4), row by row."""
    size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
    common = np.maximum(size, 0).prod(axis=1)
    areas = [(x[:, 2] - x[:, 0] + 1) * (x[:, 3] - x[:, 1] + 1) for x in (a, b)]
    return common / (areas[0] + areas[1] - common)


def mean_ap(results):
    """Mean average precision over the classes that have objects; NaN if none has."""
    values = [result.ap for result in results.values() if result.objects]
    return float(np.mean(values)) if values else float("nan")


def ap_table(results):
    """A text with a line for each class, and the mean."""
    width = max(map(len, [*results, "mean AP"]))
    lines = [
        f"{name:<{width}}  {result.ap:.4f}" if result.objects else f"{name:<{width}}  no objects"
        for name, result in results.items()
    ]
    return "\n".join([*lines, f"{'mean AP':<{width}}  {mean_ap(results):.4f}"])
