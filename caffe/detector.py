"""Detection by classifying windows of images, as R-CNN does (pycaffe: Detector).

Girshick et al., "Rich feature hierarchies for accurate object detection and semantic
segmentation", CVPR 2014. Windows are (ymin, xmin, ymax, xmax); the last two are exclusive.
"""

import numpy as np

from demitasse.engine.errors import DataError
from demitasse.layers.data_transform import read_image

from .classifier import image_transformer
from .io import load_image, resize_image
from .proto import caffe_pb2
from .pycaffe import Net

_SEARCH_WIDTH = 500  # of the image in which R-CNN looks for regions
_SEARCH_MIN_SIDE = 20  # of a region there


class Detector(Net):
    """A net that scores windows of images.

    Args: `model_file`, `pretrained_file`, the net and its weights; `mean`, `input_scale`,
    `raw_scale`, `channel_swap`, as in `Transformer`; `context_pad`, how many pixels of the net's
    input show what surrounds the window, on each side (R-CNN: 16).
    """

    def __init__(self, model_file, pretrained_file, mean=None, input_scale=None, raw_scale=None,
                 channel_swap=None, context_pad=None):  # fmt: skip
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows):
        """Score windows.

        Args: `images_windows`, an iterable of (image file, its windows).
        Returns: a list of {"window", "prediction", "filename"}, one for each window in order;
        a prediction is one row of the net's first output.
        """
        images_windows = [(name, list(windows)) for name, windows in images_windows]
        in_ = self.inputs[0]
        crops = []
        for name, windows in images_windows:
            image = load_image(name)
            for window in windows:
                crop = self._checked_crop(image, window, name)
                crops.append(self.transformer.preprocess(in_, crop))
        if not crops:
            return []
        predictions = iter(self.forward_all(**{in_: np.stack(crops)})[self.outputs[0]])
        return [
            {"window": window, "prediction": next(predictions), "filename": name}
            for name, windows in images_windows
            for window in windows
        ]

    def detect_selective_search(self, image_fnames):
        """Score the windows that selective search proposes; see `selective_search`.

        Args: `image_fnames`, image files. Returns: as `detect_windows`.
        """
        return self.detect_windows([(name, selective_search(name)) for name in image_fnames])

    def crop(self, im, window):
        """Cut a window out of an image, with the context that `configure_crop` asked for.

        Returns: (h, w, K); with context it has the size of the net's input, the window scaled
        into its middle, and the mean wherever the context lies outside of the image.
        """
        if not self.context_pad:
            ymin, xmin, ymax, xmax = (int(side) for side in window)
            return im[ymin:ymax, xmin:xmax]
        box, (pad_y, pad_x), (height, width) = context_crop(
            window, self.context_pad, self.crop_dims[0], im.shape[:2]
        )
        crop = np.empty(self.crop_dims, np.float32)
        crop[...] = self.crop_mean
        context = resize_image(im[box[0] : box[2], box[1] : box[3]], (height, width))
        crop[pad_y : pad_y + height, pad_x : pad_x + width] = context
        return crop

    def _checked_crop(self, image, window, name):
        ymin, xmin, ymax, xmax = window
        height, width = image.shape[:2]
        if not (0 <= ymin < ymax <= height and 0 <= xmin < xmax <= width):
            expected = f"a window (ymin, xmin, ymax, xmax) inside {height} x {width} pixels"
            raise DataError(f"image {str(name)!r}", expected, tuple(window))
        return self.crop(image, window)

    def configure_crop(self, context_pad):
        """Set the amount of context (None or 0: none), and the mean that pads it, which is the
        transformer's, taken back to the space of images."""
        in_ = self.inputs[0]
        channels, height, width = self.blobs[in_].data.shape[1:]
        self.crop_dims = np.array((height, width, channels))
        self.context_pad = context_pad
        if not context_pad:
            return
        if height != width or not 0 < 2 * context_pad < height:
            raise DataError(
                f"context_pad {context_pad}", "a square input more than twice as large",
                f"{height} x {width}",
            )  # fmt: skip
        mean = self.transformer.mean.get(in_)
        self.crop_mean = np.zeros((), np.float32)
        if mean is not None:
            # A channel swap and a raw scale come before the mean; the resizing does not matter.
            swap = self.transformer.channel_swap.get(in_, range(channels))
            scale = self.transformer.raw_scale.get(in_)
            # (K, h, w) -> (h, w, K)
            self.crop_mean = mean[np.argsort(swap)].transpose(1, 2, 0) / (scale or 1)


def context_crop(window, context_pad, crop_size, image_dims):
    """Where the crop of a window with context comes from and where it goes.

    Args: `crop_size`, the side of the square crop, of which `context_pad` pixels on each side
    are context; `image_dims`, (height, width).
    Returns: the box to cut out (like a window, within the image), the (y, x) in the crop at
    which it begins, and the (height, width) to which to scale it.
    """
    ymin, xmin, ymax, xmax = (float(side) for side in window)
    # 1. Enlarge the window around its centre.
    scale = crop_size / (crop_size - 2 * context_pad)
    half = np.array((ymax - ymin + 1, xmax - xmin + 1)) / 2
    centre = np.array((ymin, xmin)) + half
    first, last = np.round(centre - scale * half), np.round(centre + scale * half)
    # 2. Find what its part inside the image becomes in the crop.
    zoom = crop_size / (last - first + 1)
    offset = np.round(np.maximum(0, -first) * zoom).astype(int)
    inside_first = np.clip(first, 0, image_dims).astype(int)
    inside_last = np.clip(last, 0, image_dims).astype(int)
    size = np.round((inside_last - inside_first + 1) * zoom).astype(int)
    # 3. Rounding may have made it too large, and never leaves it empty.
    size = np.maximum(1, np.minimum(size, crop_size - offset))
    return (*inside_first, *inside_last), offset, size


def selective_search(filename):
    """The windows that selective search finds in an image file, an int array (n, 4), sorted.

    Uijlings et al., "Selective search for object recognition", IJCV 2013, in the fast mode of
    R-CNN: the image is scaled to a width of 500, and regions less than 20 pixels wide or high
    there are left out.
    NOTE: pycaffe calls the authors' program in MATLAB; here it is OpenCV's implementation,
    whose regions are similar, not the same.
    """
    from demitasse.engine.opencv import cv2

    image = read_image(filename, True, "selective_search")
    scale = image.shape[1] / _SEARCH_WIDTH
    height = max(1, round(image.shape[0] / scale))
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.resize(image, (_SEARCH_WIDTH, height)))
    search.switchToSelectiveSearchFast()
    x, y, w, h = np.reshape(search.process(), (-1, 4)).T
    windows = np.stack([y, x, y + h, x + w], axis=1)[
        (w >= _SEARCH_MIN_SIDE) & (h >= _SEARCH_MIN_SIDE)
    ]
    windows = np.round(windows * scale).astype(int)
    windows[:, 2:] = np.minimum(windows[:, 2:], image.shape[:2])
    return np.unique(windows, axis=0)
