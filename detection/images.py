"""From an image to a network's input: scaled, float32, means subtracted, channels first."""

import numpy as np

from ..engine.errors import DataError


def scale_factor(size, scale, max_size):
    """What an image is multiplied by: its shorter side becomes `scale` pixels.

    If the longer side would then exceed `max_size`, that becomes `max_size` instead.

    Args: size: (height, width, ...) in pixels.
    """
    shorter, longer = min(size[:2]), max(size[:2])
    factor = float(scale) / shorter
    return float(max_size) / longer if np.round(factor * longer) > max_size else factor


def prepare_image(image, cfg, scale, max_size):
    """A network's input from an image; training and testing alike come here.

    Args:
        image: (H, W, 3) BGR, uint8 as read, or float32.
        cfg: its PIXEL_MEANS are subtracted.
        scale, max_size: see `scale_factor`.

    Returns: the input (3, h, w) float32, and the factor, h / H up to rounding.

    Raises: DataError for what is no such image, or too narrow to be scaled.
    """
    from ..engine.opencv import cv2

    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError("image", "shape (height, width, 3)", f"{image.shape}")
    means = tuple(float(m) for m in np.ravel(cfg.PIXEL_MEANS))
    factor = scale_factor(image.shape, scale, max_size)
    if min(image.shape[:2]) * factor <= 0.5:  # cv2 rounds it to no pixel at all
        raise DataError(
            "image", f"a pixel or more of its shorter side when scaled by {factor:.3g}",
            f"{image.shape[0]} x {image.shape[1]} pixels",
        )  # fmt: skip
    # As in Fast R-CNN, the image is resized as float32, which keeps what uint8 would round, and by
    # the factor itself: from the rounded size cv2 would work out another one, and shift pixels.
    image = cv2.subtract(np.ascontiguousarray(image), (*means, 0), dtype=cv2.CV_32F)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    blob = np.empty((3, *image.shape[:2]), np.float32)
    cv2.split(image, list(blob))  # (h, w, 3) -> (3, h, w)
    return blob, factor


def stack_images(blobs):
    """(N, 3, h, w): images (3, h_i, w_i) side by side, with zeros right of and below smaller ones.

    A zero is the mean colour.
    """
    if len(blobs) == 1:
        return blobs[0][np.newaxis]
    height, width = np.max([blob.shape[1:] for blob in blobs], axis=0)
    stacked = np.zeros((len(blobs), 3, height, width), np.float32)
    for target, blob in zip(stacked, blobs):
        target[:, : blob.shape[1], : blob.shape[2]] = blob
    return stacked
