"""Data: batches from a LevelDB or LMDB of Datum records."""

import numpy as np

from ..engine.blob import check_shape
from ..engine.db import open_db
from ..engine.layer import register
from ..engine.phase import TRAIN
from .data_transform import DataTransformer, parse_datum, warn_ignored
from .prefetch import PrefetchingLayer, decoding_threads


@register("Data")
class Data(PrefetchingLayer):
    """Images and labels from a database, read ahead and transformed (Caffe: DataLayer).

    Tops: data (N, C, H, W), and label (N,) if there is a second top. With a batch size of 1, the
    data top takes the shape of each image.
    """

    min_top = 1
    max_top = 2

    def setup(self, bottom, top):
        p = self.param.data_param
        warn_ignored(p, ("scale", "mean_file", "crop_size", "mirror"), self._where())
        if p.batch_size <= 0:
            raise self.error("a positive batch_size in data_param", p.batch_size)
        train = self.phase == TRAIN
        find = self.context.find
        transformer = DataTransformer(self.param.transform_param, train, self._where(), find)
        source = _Source(
            p, find(p.source), transformer, self.context.random, self.name, len(top) > 1
        )
        shape, encoded = source.first()
        top[0].reshape(*check_shape((p.batch_size, *shape), self._where()))
        if len(top) > 1:
            top[1].reshape(p.batch_size)
        self.prefetch(source.open, decoding_threads() if encoded else 1)


class _Source:
    """What batch number k holds: a pure function of the database, the seed, the name and k."""

    def __init__(self, param, path, transformer, random, name, labels):
        self.path, self.backend, self.batch_size = path, param.backend, param.batch_size
        self.transformer, self.random, self.name = transformer, random, name
        self.rand_skip, self.labels = param.rand_skip, labels

    def first(self):
        """The (C, H, W) shape of the first image, and whether it is encoded.

        The database is closed again: a process that forks later may then open it in the child.
        """
        with open_db(self.path, self.backend, where=self.transformer.where) as db:
            pixels, datum, where = self._read(db.cursor())
            return self.transformer.output_shape(pixels, where), datum.encoded

    def open(self):
        """A function that loads batch number k, with a cursor of its own."""
        db = open_db(self.path, self.backend, where=self.transformer.where)
        cursor = db.cursor()
        return lambda k: self._load(cursor, k)

    def _read(self, cursor):
        key, value = cursor.read()
        where = f"{self.transformer.where}: record {key.decode('utf-8', 'replace')!r}"
        datum = parse_datum(value, f"{where} of {self.path}")
        return self.transformer.datum(datum, where), datum, where

    def _skip(self):
        """How many records to leave out before the first."""
        # NOTE: Caffe 1.0 declares rand_skip deprecated and ignores it here; it acts as before.
        if not self.rand_skip:
            return 0
        return int(self.random.generator("data", self.name, "skip").integers(self.rand_skip))

    def _load(self, cursor, k):
        cursor.seek(self._skip() + k * self.batch_size)
        labels = np.empty(self.batch_size, np.float32)
        data = rng = None
        for i in range(self.batch_size):
            pixels, datum, where = self._read(cursor)
            if data is None:
                shape = self.transformer.output_shape(pixels, where)
                data = np.empty(check_shape((self.batch_size, *shape), where), np.float32)
            if self.transformer.is_random:
                rng = self.random.generator("data", self.name, k, i)
            self.transformer(pixels, data[i], rng, where)
            labels[i] = datum.label
        return [data, labels] if self.labels else [data]
