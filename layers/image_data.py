"""ImageData: batches of image files named, with their labels, in a text file."""

import functools

import numpy as np

from ..engine.blob import check_shape
from ..engine.errors import DataError
from ..engine.layer import register
from ..engine.phase import TRAIN
from .data_transform import DataTransformer, image_pixels, read_image, warn_ignored
from .prefetch import PrefetchingLayer, decoding_threads


@register("ImageData")
class ImageData(PrefetchingLayer):
    """Image files and integer labels, read ahead and transformed (Caffe: ImageDataLayer).

    Tops: data (N, C, H, W) and label (N,). With a batch size of 1, the data top takes the shape
    of each image. `shuffle` gives every epoch an order of its own.
    """

    num_top = 2

    def setup(self, bottom, top):
        p = self.param.image_data_param
        warn_ignored(p, ("scale", "mean_file", "crop_size", "mirror"), self._where())
        if p.batch_size <= 0:
            raise self.error("a positive batch_size in image_data_param", p.batch_size)
        if (p.new_height > 0) != (p.new_width > 0):
            raise self.error(
                "new_height and new_width together", f"{p.new_height} and {p.new_width}"
            )
        train = self.phase == TRAIN
        find = self.context.find
        transformer = DataTransformer(self.param.transform_param, train, self._where(), find)
        source = _Source(p, transformer, self.context.random, self.name, find)
        top[0].reshape(*check_shape((p.batch_size, *source.first_shape()), self._where()))
        top[1].reshape(p.batch_size)
        self.prefetch(lambda: source.load, decoding_threads())


def read_list(path, where, need_labels=False):
    """The (file name, label) pairs of a list file: a line is a name, a space, an integer.

    A name may contain spaces; a line without any is a name with label 0, as in Caffe, or with
    `need_labels` an error.
    NOTE: Caffe cuts at the last space only and takes a label that is no number for 0; here other
    white space (a tab) will do as well, empty lines do not count, and such a label is an error.
    """
    items = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            for number, line in enumerate(f, 1):
                words = line.strip().rsplit(None, 1)
                if not words:
                    continue
                if len(words) == 1 and not need_labels:
                    words.append("0")
                try:
                    name, label = words
                    items.append((name, int(label)))
                except ValueError:
                    raise DataError(
                        f"{path}:{number}", "a file name, a space and an integer label",
                        repr(line.strip()),
                    ) from None  # fmt: skip
    except OSError as e:
        raise DataError(
            f"{where}: source {path!r}", "a list of images", e.strerror or str(e)
        ) from None
    if not items:
        raise DataError(path, "at least one line with a file name and a label", "none")
    return items


class _Source:
    """What batch number k holds: a pure function of the files, the seed, the name and k."""

    def __init__(self, param, transformer, random, name, find):
        self.param, self.transformer, self.random, self.name = param, transformer, random, name
        self.find = find
        self.items = read_list(find(param.source), transformer.where)
        self.order = functools.lru_cache(2)(self._order)
        # NOTE: Caffe fails only if the number that it draws is too large; here it cannot be.
        if param.rand_skip > len(self.items):
            raise DataError(
                transformer.where, f"rand_skip of at most {len(self.items)} (images)",
                param.rand_skip,
            )  # fmt: skip

    @property
    def skip(self):
        """How many images to leave out before the first."""
        if not self.param.rand_skip:
            return 0
        rng = self.random.generator("data", self.name, "skip")
        return int(rng.integers(self.param.rand_skip))

    def _order(self, epoch, seed):
        # The seed is an argument for the cache's sake: a restored solver changes it.
        rng = self.random.generator("data", self.name, "shuffle", epoch)
        return rng.permutation(len(self.items))

    def item(self, index):
        """File name and label number `index` of the endless sequence of epochs."""
        epoch, row = divmod(index, len(self.items))
        return self.items[self.order(epoch, self.random.seed)[row] if self.param.shuffle else row]

    def pixels(self, name):
        """The (C, H, W) pixels of a file, resized if the layer says so."""
        p = self.param
        # NOTE: Caffe joins root_folder and name without a separator, and so do we.
        path = self.find(p.root_folder + name)
        image = read_image(path, p.is_color, self.transformer.where)
        if p.new_height:
            from ..engine.opencv import cv2

            image = cv2.resize(image, (p.new_width, p.new_height))
        return image_pixels(image, name)

    def first_shape(self):
        """The (C, H, W) shape of the first image, transformed."""
        name = self.item(self.skip)[0]
        return self.transformer.output_shape(self.pixels(name), self._where(name))

    def load(self, k):
        """Batch number k: data and labels."""
        batch_size, transformer = self.param.batch_size, self.transformer
        labels = np.empty(batch_size, np.float32)
        data = rng = None
        first = self.skip + k * batch_size
        for i in range(batch_size):
            name, labels[i] = self.item(first + i)
            pixels, where = self.pixels(name), self._where(name)
            if data is None:
                shape = transformer.output_shape(pixels, where)
                data = np.empty(check_shape((batch_size, *shape), where), np.float32)
            if transformer.is_random:
                rng = self.random.generator("data", self.name, k, i)
            transformer(pixels, data[i], rng, where)
        return [data, labels]

    def _where(self, name):
        return f"{self.transformer.where}: {self.param.root_folder + name}"
