"""MemoryData: batches from arrays that the program hands over."""

import logging

import numpy as np

from ..engine.layer import Layer, register
from ..engine.phase import TRAIN
from .data_transform import DataTransformer, image_pixels

log = logging.getLogger("demitasse.data")


@register("MemoryData")
class MemoryData(Layer):
    """Rows of two arrays, batch after batch, round and round (Caffe: MemoryDataLayer).

    The program gives the arrays by `reset`, or images to be transformed by `add_datum_vector` and
    `add_mat_vector`. Tops: data (N, C, H, W) and label (N, 1, 1, 1).
    """

    num_bottom = 0
    writes_on_host = True
    num_top = 2

    def setup(self, bottom, top):
        p = self.param.memory_data_param
        self.batch_size = p.batch_size
        self.item_shape = (p.channels, p.height, p.width)
        if min(self.batch_size, *self.item_shape) <= 0:
            raise self.error(
                "positive batch_size, channels, height, width in memory_data_param",
                (self.batch_size, *self.item_shape),
            )
        train = self.phase == TRAIN
        self.transformer = DataTransformer(
            self.param.transform_param, train, self._where(), self.context.find
        )
        self.data = self.labels = None
        self.position = 0
        self.added = 0  # how many times images were added, to key their random decisions
        self.unconsumed = False  # whether added images are still to be fed
        top[0].reshape(self.batch_size, *self.item_shape)
        top[1].reshape(self.batch_size)

    def reset(self, data, labels, n=None):
        """Feed from now on the first `n` rows of `data` (n, C, H, W) and `labels` (n, ...).

        Float32 arrays in C order are used where they are and must not change; `n` (all rows by
        default) must be a multiple of the batch size. Nothing is transformed.
        """
        if self.param.HasField("transform_param"):
            log.warning("%s: arrays given by reset() are not transformed", self._where())
        self._set_arrays(data, labels, n)

    def _set_arrays(self, data, labels, n=None):
        data = np.ascontiguousarray(data, np.float32)
        labels = np.ascontiguousarray(labels, np.float32)
        n = len(data) if n is None else n
        if data.shape[1:] != self.item_shape:
            raise self.error(f"data of shape (n, {str(self.item_shape)[1:]}", data.shape)
        if n <= 0 or n % self.batch_size or n > len(data):
            raise self.error(
                f"a positive multiple of batch_size {self.batch_size} of rows, {len(data)} at most",
                n,
            )
        if labels.size != len(labels) or len(labels) < n:
            raise self.error(f"one label for each of {n} rows", f"labels of shape {labels.shape}")
        self.data, self.labels, self.rows = data, labels.reshape(-1), n
        self.position = 0

    def add_datum_vector(self, datums):
        """Feed Datum messages, transformed by transform_param, until all are consumed."""
        pixels = [
            self.transformer.datum(datum, f"{self._where()}: datum {i}")
            for i, datum in enumerate(datums)
        ]
        self._add(pixels, [datum.label for datum in datums])

    def add_mat_vector(self, images, labels):
        """Feed images as OpenCV has them, (H, W) or (H, W, C), likewise."""
        pixels = [image_pixels(m, f"{self._where()}: image {i}") for i, m in enumerate(images)]
        if len(labels) != len(pixels):
            raise self.error(f"one label for each of {len(pixels)} images", len(labels))
        self._add(pixels, labels)

    def _add(self, images, labels):
        if self.unconsumed:
            raise self.error(
                "all images added before to have been consumed", "some left",
                "Run forward until they are.",
            )  # fmt: skip
        data = np.empty((len(images), *self.item_shape), np.float32)
        rng = None
        for i, pixels in enumerate(images):
            if self.transformer.is_random:
                rng = self.context.random.generator("data", self.name, self.added, i)
            self.transformer(pixels, data[i], rng, f"{self._where()}: image {i}")
        self._set_arrays(data, labels)
        self.added += 1
        self.unconsumed = True

    def forward(self, bottom, top):
        if self.data is None:
            raise self.error(
                "arrays to feed", "none",
                "Call net.set_input_arrays(data, labels), or the layer's reset().",
            )  # fmt: skip
        batch = slice(self.position, self.position + self.batch_size)
        top[0].reshape(self.batch_size, *self.item_shape)
        top[1].reshape(self.batch_size, 1, 1, 1)
        top[0].set_data(self.data[batch])
        top[1].set_data(self.labels[batch])  # (N,) -> (N, 1, 1, 1)
        self._move_to(self.position + self.batch_size)

    def _move_to(self, row):
        self.position = row % self.rows
        if self.position == 0:
            self.unconsumed = False

    def seek(self, pass_index):
        """Continue with the rows of forward pass number `pass_index`, if there are arrays yet."""
        if self.data is not None:
            self._move_to(pass_index * self.batch_size)
