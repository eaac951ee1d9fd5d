"""WindowData: windows of images, warped to one size, foreground and background in proportion."""

import functools
import logging

import numpy as np

from ..engine.blob import check_shape
from ..engine.errors import DataError
from ..engine.kernels.geometry import round_half_away
from ..engine.layer import register
from .data_transform import (
    check_mean_values,
    decode_image,
    load_mean,
    read_bytes,
    transform,
    warn_ignored,
)
from .prefetch import PrefetchingLayer, decoding_threads
from .window_file import read_window_file

log = logging.getLogger("demitasse.data")


@register("WindowData")
class WindowData(PrefetchingLayer):
    """Random windows of a window file, for R-CNN's training (Caffe: WindowDataLayer).

    Tops: data (N, 3, crop_size, crop_size) and label (N,); first the background windows
    (label 0), then round-down(N * fg_fraction) foreground ones. `crop_size`, `mirror` and the mean
    are read from transform_param, `scale` from window_data_param, as in Caffe.
    """

    num_top = 2

    def setup(self, bottom, top):
        p, t = self.param.window_data_param, self.param.transform_param
        warn_ignored(p, ("mean_file", "crop_size", "mirror"), self._where())
        if t.HasField("scale"):
            log.warning(
                "%s: scale has no effect in transform_param (nor has it in Caffe); "
                "write it in window_data_param", self._where(),
            )  # fmt: skip
        if p.batch_size <= 0 or t.crop_size <= 0:
            raise self.error(
                "positive batch_size in window_data_param and crop_size in transform_param",
                f"{p.batch_size} and {t.crop_size}",
            )
        if p.crop_mode not in ("warp", "square"):
            raise self.error("crop_mode warp or square", repr(p.crop_mode))
        if 2 * p.context_pad >= t.crop_size:
            raise self.error(f"context_pad below half of crop_size {t.crop_size}", p.context_pad)
        shape = check_shape((p.batch_size, 3, t.crop_size, t.crop_size), self._where())
        top[0].reshape(*shape)
        top[1].reshape(p.batch_size)
        source = _Source(p, t, self.context, self.name, self._where())
        self.prefetch(lambda: source.load, decoding_threads())


def split_windows(windows, fg_threshold, bg_threshold, path):
    """The foreground windows, and the background ones. Windows between are left out."""
    foreground = [w for w in windows if w.overlap >= fg_threshold]
    background = [w for w in windows if w.overlap < bg_threshold and w.overlap < fg_threshold]
    for w in foreground:
        if w.label <= 0:
            raise DataError(f"{path}:{w.line}", "a class index > 0 (foreground)", w.label)
    return foreground, background


def expand_box(box, crop_size, context_pad, square):
    """Enlarge (x1, y1, x2, y2) so that, warped to crop_size, it has context_pad on each side."""
    x1, y1, x2, y2 = box
    # In float32 step by step, as Caffe has it: other roundings would move edges by a pixel.
    f = np.float32
    scale = f(crop_size) / f(crop_size - 2 * context_pad)
    half_h, half_w = f((y2 - y1 + 1) / 2), f((x2 - x1 + 1) / 2)
    centre_x, centre_y = f(x1) + half_w, f(y1) + half_h
    if square:
        half_h = half_w = max(half_h, half_w)
    return (
        _rounded(centre_x - half_w * scale), _rounded(centre_y - half_h * scale),
        _rounded(centre_x + half_w * scale), _rounded(centre_y + half_h * scale),
    )  # fmt: skip


def _rounded(x):
    return int(round_half_away(np, x))


def place_window(box, image_size, crop_size, context_pad, square, mirror):
    """Where a window is cut from and goes to.

    Args: box (x1, y1, x2, y2), inclusive; image_size (height, width).
    Returns: the part of the (enlarged) box that is inside the image; the (width, height) that it
        is warped to; and the (top, left) where it goes in the crop_size x crop_size output.
    """
    if not context_pad and not square:
        return box, (crop_size, crop_size), (0, 0)
    x1, y1, x2, y2 = expand_box(box, crop_size, context_pad, square)
    height, width = image_size
    scale_x = np.float32(crop_size) / np.float32(x2 - x1 + 1)
    scale_y = np.float32(crop_size) / np.float32(y2 - y1 + 1)
    # How far the enlarged box sticks out of the image on each side, in image pixels.
    out_left, out_right = max(0, -x1), max(0, x2 - width + 1)
    out_top, out_bottom = max(0, -y1), max(0, y2 - height + 1)
    inside = (x1 + out_left, y1 + out_top, x2 - out_right, y2 - out_bottom)
    # The same in output pixels; a mirrored window has its margins mirrored, too.
    top = _rounded(np.float32(out_top) * scale_y)
    left = _rounded(np.float32(out_right if mirror else out_left) * scale_x)
    warped_w = _rounded(np.float32(inside[2] - inside[0] + 1) * scale_x)
    warped_h = _rounded(np.float32(inside[3] - inside[1] + 1) * scale_y)
    # By rounding the parts may add up to a pixel too much.
    return inside, (min(warped_w, crop_size - left), min(warped_h, crop_size - top)), (top, left)


def cut_window(image, inside, size):
    """The inclusive box `inside` of an (H, W, 3) image, resized to `size` (width, height)."""
    from ..engine.opencv import cv2

    x1, y1, x2, y2 = inside
    return cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], size, interpolation=cv2.INTER_LINEAR)


class _Source:
    """What batch number k holds: a pure function of the files, the seed, the name and k."""

    def __init__(self, param, transform_param, context, name, where):
        self.param = param
        self.crop, self.mirror = transform_param.crop_size, transform_param.mirror
        self.random, self.find, self.name, self.where = context.random, context.find, name, where
        self.images, windows = read_window_file(self.find(param.source))
        self.foreground, self.background = split_windows(
            windows, param.fg_threshold, param.bg_threshold, param.source
        )
        # NOTE: as in Caffe, the product is rounded down in single precision.
        self.num_fg = int(np.float32(param.batch_size) * np.float32(param.fg_fraction))
        self._check_windows()
        self.mean_image, self.mean_values = load_mean(transform_param, where, self.find)
        self._check_mean()
        # NOTE: Caffe reads all files at the start; here each is read once, when it is first used.
        self.bytes = functools.cache(self._bytes) if param.cache_images else self._bytes

    def _check_windows(self):
        if not 0 <= self.num_fg <= self.param.batch_size:
            raise DataError(self.where, "fg_fraction between 0 and 1", self.param.fg_fraction)
        for kind, windows, needed in (
            ("foreground", self.foreground, self.num_fg),
            ("background", self.background, self.param.batch_size - self.num_fg),
        ):
            if needed and not windows:
                raise DataError(
                    f"{self.where}: {self.param.source}", f"at least one {kind} window", "none",
                    "Change fg_threshold, bg_threshold or fg_fraction.",
                )  # fmt: skip

    def _check_mean(self):
        if self.mean_values is not None:
            check_mean_values(self.mean_values, 3, self.where)
        if self.mean_image is not None:
            channels, height, width = self.mean_image.shape
            # The width alone says where the middle is, as in Caffe.
            first = (width - self.crop) // 2
            if channels != 3 or first < 0 or first + self.crop > height:
                raise DataError(
                    self.where, f"a mean image of (3, n, n) with n >= crop_size {self.crop}",
                    f"shape {self.mean_image.shape}",
                )  # fmt: skip
            self.mean_image = self.mean_image[:, first:, first:]

    def load(self, k):
        """Batch number k: data and labels."""
        batch_size = self.param.batch_size
        data = np.zeros((batch_size, 3, self.crop, self.crop), np.float32)
        labels = np.zeros(batch_size, np.float32)
        for i in range(batch_size):
            is_fg = i >= batch_size - self.num_fg
            windows = self.foreground if is_fg else self.background
            rng = self.random.generator("data", self.name, k, i)
            window = windows[rng.integers(len(windows))]
            labels[i] = window.label if is_fg else 0
            self._fill(data[i], window, bool(self.mirror and rng.integers(2)))
        return [data, labels]

    def _fill(self, out, window, mirror):
        path = self._path(window)
        image = decode_image(self.bytes(path), True, f"{self.where}: {path}")
        p, size = self.param, image.shape[:2]
        box = (window.x1, window.y1, window.x2, window.y2)
        square = p.crop_mode == "square"
        inside, warped, (top, left) = place_window(
            box, size, self.crop, p.context_pad, square, mirror
        )
        self._check_inside(window, box, inside, warped, size)
        pixels = cut_window(image, inside, warped)
        if mirror:
            pixels = pixels[:, ::-1]
        region = np.s_[:, top : top + warped[1], left : left + warped[0]]
        mean = self.mean_image[region] if self.mean_image is not None else self.mean_values
        if self.mean_values is not None:
            mean = mean.reshape(-1, 1, 1)
        transform(pixels.transpose(2, 0, 1), mean, p.scale, out[region])  # (h, w, 3) -> (3, h, w)

    def _check_inside(self, window, box, inside, warped, size):
        x1, y1, x2, y2 = inside
        if x1 < 0 or y1 < 0 or x2 >= size[1] or y2 >= size[0] or x1 > x2 or y1 > y2:
            raise DataError(
                f"{self.param.source}:{window.line}",
                f"a window within {self._path(window)} of {size[1]} x {size[0]} pixels", f"{box}",
            )  # fmt: skip
        if min(warped) <= 0:
            raise DataError(
                f"{self.param.source}:{window.line}",
                "a window of which at least a pixel remains after warping", f"{box}",
            )  # fmt: skip

    def _path(self, window):
        return self.find(self.param.root_folder + self.images[window.image].path)

    def _bytes(self, path):
        return read_bytes(path, self.where)
