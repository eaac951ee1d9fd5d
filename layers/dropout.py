"""Dropout: elements set to zero at random while training (Hinton et al. 2012)."""

from ..engine.layer import register
from ..engine.proto import caffe_pb2
from .elementwise import Elementwise


@register("Dropout")
class Dropout(Elementwise):
    """TRAIN: y = x * mask / (1 - p), mask being 0 with probability p = dropout_ratio, else 1.

    TEST: y = x. With `scale_train: false` (fast-rcnn) the factor is mask in TRAIN, 1 - p in
    TEST. dx = dy times the same factor (Caffe: DropoutLayer).
    """

    def setup(self, bottom, top):
        p = self.param.dropout_param
        if not 0 <= p.dropout_ratio < 1:
            raise self.error("dropout_param.dropout_ratio in [0, 1)", p.dropout_ratio)
        self.ratio = p.dropout_ratio
        self.train = self.phase == caffe_pb2.TRAIN
        kept = 1 - self.ratio
        self.scale = (1 / kept if p.scale_train else 1) if self.train else (
            1 if p.scale_train else kept
        )  # fmt: skip
        self.is_identity = not self.train and self.scale == 1

    def function(self, x, y):
        if self.train:
            self.key = self.random_key()
            self._drop(x, y)
        elif not self.shares_bottom:
            self._rescale(x, y)

    def gradient(self, x, y, dy, dx):
        if self.train:
            self._drop(dy, dx)
        else:
            self._rescale(dy, dx)

    def _drop(self, source, target):
        self.device.kernels.dropout.apply(source, self.key, self.ratio, self.scale, target)

    def _rescale(self, source, target):
        # Where the net cannot let the top be the bottom, this copies, as Caffe always does.
        if self.scale != 1:
            self.device.xp.multiply(source, self.scale, out=target)
        elif source is not target:
            target[...] = source
