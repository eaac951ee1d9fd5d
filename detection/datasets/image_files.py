"""Image files: the size in a header, and pixels as the annotations see them."""

import struct

import numpy as np

from ...engine.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")

_START = 64  # bytes that hold the size of a PNG or BMP
# Start-of-frame markers of a JPEG: 0xC0 .. 0xCF less DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(path):
    """(width, height) of an image file as stored, EXIF's orientation aside.

    JPEG, PNG and BMP tell it in a few bytes; other formats are decoded.
    Raises: DataError if the file is missing or no image.
    """
    try:
        with open(path, "rb") as file:
            size = _header_size(file)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if size is None or min(size) <= 0:
        height, width = _decode(_read_bytes(path), path).shape[:2]
        size = (width, height)
    return size


def _header_size(file):
    """(width, height) if the file's header tells it in a form known here, else None."""
    start = file.read(_START)
    if start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR" and len(start) >= 24:
        return struct.unpack(">II", start[16:24])
    if start[:2] == b"BM" and len(start) >= 26 and start[14:18] != b"\x0c\0\0\0":
        width, height = struct.unpack("<ii", start[18:26])
        return width, abs(height)  # a negative height: stored from the top down
    if start[:2] == b"\xff\xd8":
        file.seek(2)
        return _jpeg_size(file)
    return None


def _jpeg_size(file):
    """Walk the segments of a JPEG up to its frame header."""
    while True:
        marker = file.read(2)
        if len(marker) < 2 or marker[0] != 0xFF:
            return None
        if marker[1] == 0xFF:  # a fill byte
            file.seek(-1, 1)
            continue
        length = file.read(2)
        if len(length) < 2:
            return None
        if marker[1] in _FRAMES:
            frame = file.read(5)
            if len(frame) < 5:
                return None
            height, width = struct.unpack(">xHH", frame)
            return width, height
        file.seek(max(0, int.from_bytes(length, "big") - 2), 1)


def read_image(path, size=None):
    """The (H, W, 3) BGR uint8 image in a file.

    Pixels are taken as they are stored: boxes were drawn on those in VOC and COCO. Only if the
    expected `size` (width, height) is that of the image after EXIF's rotation, it is rotated.
    Raises: DataError if the file is missing, corrupt, or not of `size`.
    """
    data = _read_bytes(path)
    image = _decode(data, path)
    if size is None or (image.shape[1], image.shape[0]) == tuple(size):
        return image
    turned = _decode(data, path, turn=True)
    if (turned.shape[1], turned.shape[0]) == tuple(size):
        return turned
    height, width = image.shape[:2]
    raise DataError(
        path, f"an image of {size[0]} x {size[1]} pixels, as annotated", f"{width} x {height}",
        "Restore the image that the boxes were drawn on, or correct the annotation.",
    )  # fmt: skip


def _decode(data, path, turn=False):
    """Decode bytes; `turn` applies EXIF's orientation."""
    from ...engine.opencv import cv2

    flags = cv2.IMREAD_COLOR if turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image, found = None, f"{len(data)} bytes that it cannot decode"
    if _is_cut_short(data):
        found = f"a JPEG that is cut short, of {len(data)} bytes"
    elif data:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            found = f"{len(data)} bytes, of which it says: {error.err}"
    if image is None:
        expected = "a complete image in a format that OpenCV knows"
        raise DataError(path, expected, found, "Replace or remove the file.")
    return image


def _is_cut_short(data):
    """Whether a JPEG's bytes end before its end-of-image marker.

    Before version 5 OpenCV decodes such a file and fills the missing part with grey.
    """
    # Inside of compressed data 0xFF is followed by 0, so both are markers where they occur; the
    # last scan must be followed by an end (a thumbnail in the header has an end of its own).
    return data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _read_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path, error):
    # A ValueError: a path, from an annotation, that no file can have.
    found = getattr(error, "strerror", None) or str(error)
    return DataError(path, "an image file", found, "Check the path.")
