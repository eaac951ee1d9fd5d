"""Pictures of detections: boxes drawn into an image, and many images on one sheet."""

import colorsys
import os
import zlib

import numpy as np

from ..engine.errors import DataError
from ..engine.files import atomic_write

_GOLDEN_ANGLE = 0.381966  # of a turn: successive hues are far apart, however many there are
_CAPTION = 26  # pixels of the bar above each picture of a sheet
_GAP = 6  # pixels between the pictures of a sheet
_PAPER = 245  # grey


def colour_of(label, classes=()):
    """The colour (blue, green, red) of a class: by its place in `classes`, else by its name."""
    if label in classes:
        hue = list(classes).index(label) * _GOLDEN_ANGLE
    else:
        hue = zlib.crc32(label.encode()) / 2**32
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, 0.85, 0.95)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_detections(image, detections, classes=()):
    """A copy of an image with boxes and labels drawn into it.

    Lines and letters grow with the image. The best detections are drawn last, on top.

    Args:
        image: BGR (H, W, 3) uint8.
        detections: with `label`, `score` (None for ground truth) and `box` (x1, y1, x2, y2).
        classes: class names; colours follow their order.
    """
    from ..engine.opencv import cv2

    picture = np.ascontiguousarray(image).copy()
    size = min(picture.shape[:2])
    line = max(1, round(size / 250))
    ordered = sorted(detections, key=lambda d: -1 if d.score is None else d.score)
    for d in ordered:
        x1, y1, x2, y2 = (round(float(v)) for v in d.box)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour_of(d.label, classes), line)
    for d in ordered:  # after all boxes, so that no line crosses a label
        text = d.label if d.score is None else f"{d.label} {d.score:.2f}"
        _draw_label(picture, text, d.box, colour_of(d.label, classes), size)
    return picture


def _draw_label(picture, text, box, colour, size):
    """Write `text` on a ground of `colour` above the box, or inside of it where there is no room;
    always within the picture."""
    from ..engine.opencv import cv2

    scale = min(1.2, max(0.4, size / 900))
    thickness = max(1, round(2 * scale - 0.3))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    full = height + below + 2
    left = int(np.clip(round(float(box[0])), 0, max(0, picture.shape[1] - width - 2)))
    top = round(float(box[1])) - full
    if top < 0:
        top = round(float(box[1]))
    top = int(np.clip(top, 0, max(0, picture.shape[0] - full)))
    cv2.rectangle(picture, (left, top), (left + width + 2, top + full), colour, cv2.FILLED)
    blue, green, red = colour
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)
    cv2.putText(
        picture, text, (left + 1, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, ink,
        thickness, cv2.LINE_AA,
    )  # fmt: skip


def detection_sheet(
    images, detections, truths=None, titles=None, classes=(), columns=None, cell=(420, 320)
):
    """Many images with their detections on one sheet.

    Args:
        images: BGR images of any sizes; detections: a list for each, as of `draw_detections`.
        truths: for each image a list of its objects (score None); each image is then shown
            twice, on the left with these, on the right with what was detected.
        titles: a caption for each image.
        columns: images in a row; by default what makes the sheet about square.
        cell: (width, height) in pixels that an image is fitted into.
    Returns: the sheet, BGR uint8.
    Raises: DataError for no images, or lists of other lengths.
    """
    for name, given in (("detections", detections), ("truths", truths), ("titles", titles)):
        if given is not None and len(given) != len(images):
            raise DataError(f"sheet, {name}", f"{len(images)} items", f"{len(given)}")
    if not len(images):
        raise DataError("sheet", "images", "none")
    cells = []
    for i, image in enumerate(images):
        title = f"{titles[i]}: " if titles else ""
        found = draw_detections(image, detections[i], classes)
        shown = [_framed(found, cell, f"{title}{len(detections[i])} detected")]
        if truths is not None:
            true = draw_detections(image, truths[i], classes)
            shown.insert(0, _framed(true, cell, f"{title}{len(truths[i])} true"))
        cells.append(np.concatenate(shown, axis=1))
    if columns is None:
        shape = cells[0].shape
        columns = max(1, round((len(cells) * shape[0] / shape[1]) ** 0.5))
    cells += [np.full_like(cells[0], _PAPER)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[k : k + columns], 1) for k in range(0, len(cells), columns)]
    return np.concatenate(rows)


def _framed(picture, cell, caption):
    """The picture, shrunk or enlarged to fit, in the middle of a cell below its caption."""
    from ..engine.opencv import cv2

    width, height = cell
    factor = min(width / picture.shape[1], height / picture.shape[0])
    size = [max(1, round(factor * n)) for n in picture.shape[1::-1]]
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(picture, size, interpolation=method)
    framed = np.full((height + _CAPTION + _GAP, width + _GAP, 3), _PAPER, np.uint8)
    left, top = (width - size[0]) // 2, _CAPTION + (height - size[1]) // 2
    framed[top : top + size[1], left : left + size[0]] = picture
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(framed, caption, (4, _CAPTION - 9), font, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return framed


def save_image(path, image):
    """Write a BGR image in the format that the path's ending names; all of it or nothing.

    Raises: DataError for an ending that OpenCV does not write.
    """
    from ..engine.opencv import cv2

    ending = os.path.splitext(os.fspath(path))[1]
    try:
        _, data = cv2.imencode(ending, image)
    except cv2.error:
        raise DataError(path, "the ending of an image file, as .png or .jpg", ending) from None
    with atomic_write(path) as file:
        file.write(data.tobytes())
