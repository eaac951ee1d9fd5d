"""From images to input blobs and back (pycaffe: io.Transformer)."""

import numpy as np

from demitasse.engine.errors import DataError, closest


class Transformer:
    """What is done to an image before a net sees it; `preprocess` lists the steps.

    Args: `inputs`, a dict: name of an input blob -> its shape (N, K, H, W).
    Every step but the resizing happens only once it is set, for each input on its own.
    """

    def __init__(self, inputs):
        self.inputs = inputs
        self.transpose = {}
        self.channel_swap = {}
        self.raw_scale = {}
        self.mean = {}
        self.input_scale = {}

    def set_transpose(self, in_, order):
        """Set the order of the axes: (2, 0, 1) for an image (H, W, K) to become (K, H, W)."""
        self._check_input(in_)
        axes = len(self.inputs[in_]) - 1
        if sorted(order) != list(range(axes)):
            raise DataError(
                f"set_transpose({in_!r})", f"an order of the axes 0 to {axes - 1}", tuple(order),
                "The transpose order needs the input's number of dimensions, less the batch.",
            )  # fmt: skip
        self.transpose[in_] = order

    def set_channel_swap(self, in_, order):
        """Set the order of the channels, which are the first axis after the transpose:
        (2, 1, 0) for RGB to become BGR."""
        self._check_input(in_)
        channels = self.inputs[in_][1]
        if sorted(order) != list(range(channels)):
            expected = f"an order of the channels 0 to {channels - 1}"
            raise DataError(f"set_channel_swap({in_!r})", expected, tuple(order))
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_, scale):
        """Set the factor before the mean is subtracted: 255 for models, such as CaffeNet, that
        take pixels in [0, 255]."""
        self._check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_, mean):
        """Set the mean to subtract: one value a channel, (K,), or an image, (K, H, W), of the
        input's own shape, in the order of channels and on the scale that the net takes."""
        self._check_input(in_)
        shape = tuple(self.inputs[in_][1:])
        where = f"set_mean({in_!r})"
        if mean.ndim == 1:
            if mean.shape[0] != shape[0]:
                raise DataError(where, f"{shape[0]} channel means", mean.shape[0])
            mean = mean[:, np.newaxis, np.newaxis]
        elif (1,) * (3 - mean.ndim) + mean.shape != shape:
            raise DataError(
                where, f"a mean of shape {shape} or ({shape[0]},)", mean.shape,
                "For one value a channel, average it: mean.mean(axis=(1, 2)).",
            )  # fmt: skip
        else:
            mean = mean.reshape(shape)
        self.mean[in_] = mean

    def set_input_scale(self, in_, scale):
        """Set the factor of the result, after the mean is subtracted."""
        self._check_input(in_)
        self.input_scale[in_] = scale

    def preprocess(self, in_, data):
        """Make an image ready for input `in_`.

        The steps: float32; resize to the input's size; transpose; swap channels; raw scale;
        subtract the mean; input scale.
        Args: `data`, (H', W', K). Returns: float32 of the input's shape, less the batch.
        """
        from .io import resize_image

        self._check_input(in_)
        # NOTE: pycaffe may scale the caller's own array; here it is a copy.
        caffe_in = np.array(data, np.float32)
        size = tuple(self.inputs[in_][2:])
        if size and caffe_in.shape[:2] != size:
            caffe_in = resize_image(caffe_in, size)
        if in_ in self.transpose:
            self._check_axes(in_, caffe_in)
            caffe_in = caffe_in.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            self._check_channels(in_, caffe_in)
            caffe_in = caffe_in[list(self.channel_swap[in_])]
        if self.raw_scale.get(in_) is not None:
            caffe_in *= self.raw_scale[in_]
        if in_ in self.mean:
            self._check_channels(in_, caffe_in)
            caffe_in -= self.mean[in_]
        if self.input_scale.get(in_) is not None:
            caffe_in *= self.input_scale[in_]
        return caffe_in

    def deprocess(self, in_, data):
        """Undo `preprocess`, the resizing aside.

        Args: `data`, (K, H, W), a batch of one allowed. Returns: the image, (H, W, K).
        NOTE: pycaffe applies the channel order a second time instead of undoing it, and fails
        for one channel with a transpose; here both are inverted.
        """
        self._check_input(in_)
        image = np.array(data, np.float32)
        if image.ndim == len(self.inputs[in_]) and image.shape[0] == 1:
            image = image[0]  # (1, K, H, W) -> (K, H, W)
        if self.input_scale.get(in_) is not None:
            image /= self.input_scale[in_]
        if in_ in self.mean:
            self._check_channels(in_, image)
            image += self.mean[in_]
        if self.raw_scale.get(in_) is not None:
            image /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            self._check_channels(in_, image)
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ not in self.transpose:
            return image.squeeze()
        self._check_axes(in_, image)
        return image.transpose(np.argsort(self.transpose[in_]))  # (K, H, W) -> (H, W, K)

    def _check_input(self, in_):
        if in_ not in self.inputs:
            hint = closest(str(in_), self.inputs)
            raise DataError("Transformer", f"an input of the net {list(self.inputs)}", in_, hint)

    def _check_axes(self, in_, image):
        if image.ndim != len(self.transpose[in_]):
            expected = f"an array of {len(self.transpose[in_])} axes"
            raise DataError(f"Transformer input {in_!r}", expected, f"shape {image.shape}")

    def _check_channels(self, in_, image):
        channels = self.inputs[in_][1]
        if image.ndim < 3 or image.shape[0] != channels:
            raise DataError(
                f"Transformer input {in_!r}", f"{channels} channels in the first axis",
                f"shape {image.shape}", "Is the transpose, (2, 0, 1) for images, set?",
            )  # fmt: skip
