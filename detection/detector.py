"""A trained detector in two lines: `Detector("...final.prototxt").detect("photo.jpg")`."""

import os
from typing import NamedTuple

import numpy as np

from ..engine.errors import DataError
from .config import Config
from .datasets import voc
from .datasets.image_files import read_image
from .opening import find_model, open_net
from .reading import read_ahead
from .test import class_detections, im_detect, prepare


class Detection(NamedTuple):
    """One object: the name of its class, the score, from 0 to 1, and the box x1, y1, x2, y2 in
    pixels of the image, 0-based, both corners included."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """A net with its weights, class names and settings.

    Attributes:
        net: the engine's Net, opened by `opening.open_net`.
        classes: class names; classes[0] is the background.
        cfg: the Config; TEST.NMS, for example, is read at each detection.
    """

    def __init__(self, definition, weights=None, classes=None, cfg=None, device=None):
        """Open a detector.

        Args:
            definition: the prototxt of a trained detector, beside which its .caffemodel and .yml
                lie; or, with `weights`, any prototxt with the inputs data and im_info in phase
                TEST, or the name of a network in prototxt/.
            weights: a weights file other than the one beside the prototxt.
            classes: class names with the background as the first. By default those in the .yml; a
                net of 21 classes without a .yml has PASCAL VOC's.
            cfg: a Config in place of the one in the .yml (the default one where there is none).
            device: where to compute; the default device if None.
        Raises: ModelFileError, NetError; DataError if the class names are unknown or do not fit.
        """
        model = find_model(definition, weights, (cfg or Config()).DATA_DIR)
        classes = classes or model.classes
        self.cfg = cfg or model.cfg or Config()
        count = len(classes) if classes else None
        self.net = open_net(model.definition, model.weights, self.cfg, count, device=device)
        self.classes = class_names(self.net, classes, model.definition)

    def detect(self, images, threshold=0.5, max_per_image=100):
        """The objects in an image, best first, or in several.

        Args:
            images: the path of an image, or its pixels, BGR (H, W, 3) uint8; or a list of such,
                which are read ahead while the net computes.
            threshold: the score that a detection must exceed.
            max_per_image: at most so many of an image.
        Returns: a list of `Detection`s, for several images a list of such lists.
        Raises: DataError, which names the file, for an image that cannot be read.
        """
        if isinstance(images, (str, os.PathLike, np.ndarray)):
            return self.detect([images], threshold, max_per_image)[0]
        results = []
        for found in self.detect_each(list(images), threshold, max_per_image):
            if isinstance(found, DataError):
                raise found
            results.append(found)
        return results

    def detect_each(self, images, threshold=0.5, max_per_image=100):
        """Yield what `detect` gives for each of a list of images, one after the other; for one
        that cannot be read, the DataError."""
        for prepared in read_ahead(len(images), lambda k: prepare(pixels(images[k]), self.cfg)):
            if isinstance(prepared, DataError):
                yield prepared
                continue
            scores, boxes = im_detect(self.net, prepared, self.cfg)
            found = class_detections(scores, boxes, self.cfg, threshold, max_per_image)
            yield list_detections(found, self.classes)


def pixels(image):
    """The pixels of an image, BGR, given as such or as a path."""
    return image if isinstance(image, np.ndarray) else read_image(os.fspath(image))


def list_detections(found, classes, threshold=None):
    """`Detection`s, best first, from arrays (D, 5) for each class.

    Args: threshold: the score that they must exceed, if any.
    """
    rows = [
        Detection(classes[c], score, tuple(box))
        for c, dets in enumerate(found)
        for *box, score in np.asarray(dets).tolist()
        if threshold is None or score > threshold
    ]
    return sorted(rows, key=lambda d: -d.score)


def class_names(net, classes, where):
    """Class names for the scores of a net, checked; None for those of VOC, if there are 21."""
    count = net.blobs["cls_prob"].shape[1]
    if classes is None and count == len(voc.CLASSES):
        classes = voc.CLASSES
    if classes is None or len(classes) != count:
        raise DataError(
            where, f"names of {count} classes, the background's first",
            "none" if classes is None else f"{len(classes)}: {', '.join(classes)}",
            "Give them as `classes`, or keep the .yml file that training wrote beside the net.",
        )  # fmt: skip
    return tuple(classes)
