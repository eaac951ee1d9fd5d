"""A detector that knows colours and outlines but has learnt nothing.

Pixels far from the image's most frequent colour are foreground; each connected piece is an object,
of the class whose ideal outline is nearest by three numbers that neither turning nor scaling
changes.
"""

import functools

import cv2
import numpy as np

from demitasse.detection.datasets.shapes import CLASSES, MIN_SIDE, make_mask
from demitasse.detection.evaluate import mean_ap, voc_eval

THRESHOLDS = (15, 25, 40, 55, 70, 90, 110, 140, 170)


def best_score(dataset, images):
    """mAP at IoU 0.5 with the best of the thresholds."""
    distances = [distance_from_background(image) for image in images]
    return max(score(dataset, distances, threshold) for threshold in THRESHOLDS)


def score(dataset, distances, threshold):
    all_boxes = [[[] for _ in distances] for _ in CLASSES]
    for i, distance in enumerate(distances):
        for label, row in detect(distance, threshold):
            all_boxes[label][i].append(row)
    all_boxes = [[np.array(rows) for rows in of_class] for of_class in all_boxes]
    return mean_ap(voc_eval(dataset, all_boxes))


def distance_from_background(image):
    """(H, W): how far each pixel is from the most frequent colour."""
    image = cv2.medianBlur(image, 5)
    return np.linalg.norm(image.astype(np.float32) - dominant_colour(image), axis=2)


def detect(distance, threshold):
    """(class, [x1, y1, x2, y2, score]) of each piece of foreground."""
    foreground = (distance > threshold).astype(np.uint8)
    foreground = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(foreground)
    for number, (x, y, w, h, _) in list(enumerate(stats))[1:]:
        if max(w, h) >= MIN_SIDE - 2:
            piece = (pieces[y : y + h, x : x + w] == number).astype(np.uint8)
            misfits = np.linalg.norm(ideals() - outline_numbers(piece), axis=1)
            yield int(misfits.argmin()) + 1, [x, y, x + w - 1, y + h - 1, -misfits.min()]


def dominant_colour(image):
    """The mean of the pixels in the fullest cell of a grid of 16 x 16 x 16 colours."""
    cells = (image // 16).reshape(-1, 3) @ (1, 16, 256)
    return image.reshape(-1, 3)[cells == np.bincount(cells).argmax()].mean(axis=0)


def outline_numbers(mask):
    """Area by that of the convex hull, and of the smallest rectangle, and the part of holes."""
    contours, _ = cv2.findContours(np.pad(mask, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outer = max(contours, key=len)
    area, hull = cv2.contourArea(outer), cv2.contourArea(cv2.convexHull(outer))
    _, (width, height), _ = cv2.minAreaRect(outer)
    # Contours run through the centres of pixels: without the outermost half of each.
    inside = area + len(outer) / 2
    holes = 1 - mask.sum() / max(inside, 1)
    return np.array([area / max(hull, 1), area / max(width * height, 1), holes])


@functools.cache
def ideals():
    """The numbers of each class, averaged over angles and sizes."""
    cases = [(side, angle) for side in (40, 80, 140) for angle in np.linspace(0, 1.5, 7)]
    return np.array(
        [
            np.mean([outline_numbers(make_mask(label, *case, 0.85)) for case in cases], axis=0)
            for label in range(1, len(CLASSES))
        ]
    )
