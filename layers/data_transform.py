"""From records and images to what a net is fed: crop, mirror, mean, scale (DataTransformer)."""

import logging
import os

import numpy as np
from google.protobuf.message import DecodeError

from ..engine.blobproto import read_blob
from ..engine.errors import DataError
from ..engine.proto import caffe_pb2

log = logging.getLogger("demitasse.data")


# ------------------------------------------------------------------- pixels: (C, H, W) arrays


def image_pixels(image, where):
    """The (C, H, W) view of an image as OpenCV has it, (H, W) or (H, W, C), uint8 or float32."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype not in (np.uint8, np.float32) or not image.size:
        raise DataError(
            where, "an image of 8 bits (or float32) a channel",
            f"shape {image.shape} of {image.dtype}",
        )  # fmt: skip
    # (H, W) -> (1, H, W); (H, W, C) -> (C, H, W)
    return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)


def decode_image(data, color, where):
    """Decode a JPEG, PNG, ... from bytes into an (H, W, 3) BGR or (H, W) grey image.

    `color` is True, False, or None for the channels that the file has.
    """
    from ..engine.opencv import cv2

    flag = {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE, None: cv2.IMREAD_UNCHANGED}[color]
    image = None
    if len(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error as e:
            raise DataError(where, "an image", str(e).strip()) from None
    if image is None:
        raise DataError(
            where, "a complete image in a format that OpenCV knows",
            f"{len(data)} bytes that it cannot decode",
        )  # fmt: skip
    return image


def read_image(path, color, where):
    """Read an image file; see `decode_image`."""
    return decode_image(read_bytes(path, where), color, f"{where}: {path}")


def read_bytes(path, where):
    """The contents of a file, or a DataError that says which file cannot be read and why."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise DataError(f"{where}: {path}", "an image file", e.strerror or str(e)) from None


def parse_datum(value, where):
    """A Datum from its serialized form."""
    datum = caffe_pb2.Datum()
    try:
        datum.ParseFromString(value)
    except DecodeError as e:
        raise DataError(where, "a serialized Datum", str(e)) from None
    return datum


def datum_pixels(datum, where):
    """The (C, H, W) pixels of a Datum that is not encoded: uint8, or float32 from float_data."""
    shape = (datum.channels, datum.height, datum.width)
    if min(shape) <= 0:
        raise DataError(where, "a Datum with positive channels, height, width", f"{shape}")
    data = datum.data
    values = data or datum.float_data
    count = shape[0] * shape[1] * shape[2]
    if len(values) != count:
        kind = "bytes of data" if data else "values of float_data"
        raise DataError(where, f"a Datum of shape {shape} with {count} {kind}", len(values))
    if data:
        return np.frombuffer(data, np.uint8).reshape(shape)
    return np.array(values, np.float32).reshape(shape)


# ------------------------------------------------------------------------- transform_param


class DataTransformer:
    """Applies a TransformationParameter to one image at a time.

    Args:
        param: the TransformationParameter.
        train: whether crops are taken at random, as Caffe does in TRAIN, or from the centre.
        where: who transforms, for errors.
        find: gives the path of a file that `param` names (`Context.find`).

    All arrays are (C, H, W); random decisions come from the generator given with each image.
    """

    def __init__(self, param, train, where, find=os.fspath):
        self.param = param
        self.where = where
        self.crop = param.crop_size
        self.random_crop = train and self.crop > 0
        self.is_random = param.mirror or self.random_crop
        self.mean_image, self.mean_values = load_mean(param, where, find)
        self._told_unforced = False

    def datum(self, datum, where):
        """The pixels of a Datum, decoded if it is encoded."""
        forced = self.param.force_color or self.param.force_gray
        if not datum.encoded:
            if forced and not self._told_unforced:
                log.warning("%s: force_color and force_gray only act on encoded data", self.where)
                self._told_unforced = True
            return datum_pixels(datum, where)
        if self.param.force_color and self.param.force_gray:
            raise DataError(self.where, "force_color or force_gray", "both", "Remove one of them.")
        color = bool(self.param.force_color) if forced else None
        return image_pixels(decode_image(datum.data, color, where), where)

    def output_shape(self, pixels, where):
        """The shape that pixels will have after the transformation."""
        channels, height, width = pixels.shape
        if self.crop > min(height, width):
            raise DataError(
                where, f"an image of at least crop_size {self.crop}",
                f"{height} x {width} (height x width)",
            )  # fmt: skip
        return (channels, self.crop or height, self.crop or width)

    def __call__(self, pixels, out, rng, where):
        """Write the transformed `pixels` into `out`, an array of `output_shape`.

        `rng` is a `numpy.random.Generator`, or None if `is_random` is false.
        """
        shape = self.output_shape(pixels, where)
        if out.shape != shape:
            raise DataError(
                where, f"an image that becomes {out.shape} (channels, height, width)", f"{shape}",
                "All images of a batch must have one size: resize them, or use batch_size 1.",
            )  # fmt: skip
        mirror = bool(self.param.mirror and rng.integers(2))
        top, left = self._corner(pixels.shape, rng)
        # (C, H, W) -> (C, crop, crop)
        window = np.s_[:, top : top + shape[1], left : left + shape[2]]
        mean = self._mean(pixels.shape, window, where)
        transform(pixels[window], mean, self.param.scale, out[:, :, ::-1] if mirror else out)

    def _corner(self, shape, rng):
        room = (shape[1] - self.crop, shape[2] - self.crop) if self.crop else (0, 0)
        if self.random_crop:
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        return room[0] // 2, room[1] // 2

    def _mean(self, shape, window, where):
        if self.mean_image is not None:
            if self.mean_image.shape != shape:
                raise DataError(
                    where, f"an image of the mean file's shape {self.mean_image.shape}",
                    f"{shape} (channels, height, width)",
                )  # fmt: skip
            return self.mean_image[window]
        if self.mean_values is not None:
            check_mean_values(self.mean_values, shape[0], where)
            return self.mean_values.reshape(-1, 1, 1)  # (1 or C,) -> (1 or C, 1, 1)
        return None


def transform(pixels, mean, scale, out):
    """out = (pixels - mean) * scale, in `out`'s dtype; a `mean` of None is none."""
    if mean is None:
        out[...] = pixels
    else:
        np.subtract(pixels, mean, out=out, dtype=out.dtype)
    if scale != 1:
        out *= out.dtype.type(scale)


def load_mean(param, where, find):
    """The mean image (C, H, W) and the mean values (n,) of a TransformationParameter, or None.

    Args: find: gives the path of the file that it names (`Context.find`).
    """
    if param.HasField("mean_file") and param.mean_value:
        raise DataError(where, "mean_file or mean_value", "both", "Remove one of them.")
    if param.HasField("mean_file"):
        return read_mean(find(param.mean_file)), None
    return None, np.array(param.mean_value, np.float32) if param.mean_value else None


def read_mean(path):
    """The mean image of a .binaryproto file, (C, H, W) float32."""
    mean = np.asarray(read_blob(path), np.float32)
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]  # (1, C, H, W) -> (C, H, W)
    if mean.ndim != 3:
        raise DataError(path, "a mean image of shape (1, C, H, W)", f"shape {mean.shape}")
    return mean


def check_mean_values(values, channels, where):
    """Raise DataError unless there is one mean value, or one for each channel."""
    if len(values) not in (1, channels):
        raise DataError(
            where, f"one mean_value, or one for each of {channels} channels", len(values)
        )


def warn_ignored(message, fields, where):
    """Tell of legacy fields that have had no effect since they moved to transform_param."""
    given = [name for name in fields if message.HasField(name)]
    if given:
        log.warning(
            "%s: %s in %s has no effect (nor has it in Caffe); write it in transform_param",
            where, ", ".join(given), message.DESCRIPTOR.name,
        )  # fmt: skip
