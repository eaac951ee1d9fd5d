"""Image classification with a net (pycaffe: Classifier)."""

import numpy as np

from demitasse.engine.errors import DataError

from .io import Transformer, oversample, resize_image
from .proto import caffe_pb2
from .pycaffe import Net


class Classifier(Net):
    """A net that takes images, (H, W, K), and gives class probabilities.

    Args: `model_file`, `pretrained_file`, the net and its weights; `image_dims`, the (height,
    width) to which images are scaled before they are cropped to the net's input (default: the
    input's own size); `mean`, `input_scale`, `raw_scale`, `channel_swap`, as in `Transformer`.
    """

    def __init__(self, model_file, pretrained_file, image_dims=None, mean=None, input_scale=None,
                 raw_scale=None, channel_swap=None):  # fmt: skip
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else tuple(image_dims)
        if np.any(np.array(self.image_dims) < self.crop_dims):
            expected = f"at least the net's input size, {tuple(self.crop_dims.tolist())}"
            raise DataError("Classifier image_dims", expected, self.image_dims)

    def predict(self, inputs, oversample=True):
        """Classify images.

        Args: `inputs`, a sequence of N images, (H, W, K), of any size; `oversample`, whether to
        average over the crops of `io.oversample` instead of taking the centre alone.
        Returns: the net's first output, float32 (N, C).
        """
        if not len(inputs):
            raise DataError("Classifier.predict", "at least one image", "none")
        images = [resize_image(image, self.image_dims) for image in inputs]
        crops = _ten_crops(images, self.crop_dims) if oversample else self._centres(images)
        in_ = self.inputs[0]
        caffe_in = np.stack([self.transformer.preprocess(in_, crop) for crop in crops])
        predictions = self.forward_all(**{in_: caffe_in})[self.outputs[0]]
        if oversample:
            # (10 * N, C) -> (N, 10, C) -> (N, C)
            predictions = predictions.reshape(len(images), 10, -1).mean(axis=1)
        return predictions

    def _centres(self, images):
        height, width = self.crop_dims
        top, left = (np.array(self.image_dims) - self.crop_dims) // 2
        return [image[top : top + height, left : left + width] for image in images]


_ten_crops = oversample  # the method's argument of that name hides it


def image_transformer(net, mean, input_scale, raw_scale, channel_swap):
    """The Transformer of images (H, W, K) for a net's first input; None leaves a step out."""
    if not net.inputs:
        raise DataError(
            f"net {net.name!r}", "an input blob for images", "none",
            "Take the deploy prototxt, which has an Input layer in place of the data layers.",
        )  # fmt: skip
    in_ = net.inputs[0]
    shape = net.blobs[in_].data.shape
    if len(shape) != 4:
        raise DataError(f"input {in_!r}", "a shape (N, channels, height, width)", shape)
    transformer = Transformer({in_: shape})
    transformer.set_transpose(in_, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(in_, mean)
    if input_scale is not None:
        transformer.set_input_scale(in_, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(in_, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(in_, channel_swap)
    return transformer
