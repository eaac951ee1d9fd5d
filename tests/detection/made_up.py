"""Data sets and detections made up for tests of evaluation."""

import numpy as np

from demitasse.detection.datasets.record import Dataset, Record


def make_dataset(images, classes=("__background__", "cat", "dog"), name="made_up"):
    """A Dataset of {name: [(label, x1, y1, x2, y2) or (..., "difficult" | "crowd")]}."""
    records = []
    for image, objects in images.items():
        kinds = [o[5] if len(o) > 5 else "" for o in objects]
        records.append(
            Record(
                name=image, width=300, height=200, path=f"{image}.png",
                boxes=np.array([o[1:5] for o in objects], np.float32).reshape(-1, 4),
                labels=[o[0] for o in objects],
                difficult=[k == "difficult" for k in kinds], crowd=[k == "crowd" for k in kinds],
            )
        )  # fmt: skip
    return Dataset(name, classes, records)


def random_boxes(rng, count, size=40):
    """(count, 4) boxes with whole corners, close enough to each other to overlap."""
    corners = rng.integers(0, size, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def iou(a, b):
    """Of two inclusive boxes, in plain arithmetic."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return common / (sum(areas) - common)
