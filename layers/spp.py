"""SPP: spatial pyramid pooling, which makes a fixed number of features of any image size."""

import math

from ..engine.layer import Layer, register
from ..engine.phase import Phase
from .pooling import Pool, check_pad, pool_geometry

MAX_HEIGHT = 16  # a further level alone would have more elements than any blob


@register("SPP")
class SPP(Layer):
    """Pooling into 1 x 1, 2 x 2, 4 x 4, ... bins, side by side (Caffe: SPPLayer).

    (N, C, H, W) -> (N, C * (1 + 4 + 16 + ...)), or (N, C, 1, 1) with `pyramid_height: 1`. On
    level i, the windows of ceil(H / 2^i) x ceil(W / 2^i) do not overlap; the padding that this
    takes must be smaller than they are.
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.spp_param
        if not 1 <= p.pyramid_height <= MAX_HEIGHT:
            raise self.error(f"spp_param.pyramid_height from 1 to {MAX_HEIGHT}", p.pyramid_height)
        # NOTE: Caffe's levels are in TRAIN always; here they follow the layer's phase.
        training = self.phase == Phase.TRAIN
        self.method = p.pool
        self.levels = [Pool(self.device, p.pool, training) for _ in range(p.pyramid_height)]
        self.tops = [self._blob() for _ in self.levels]
        self.scratch = self._blob()  # its gradient: one level's share of the bottom's
        self.bottom_shape = None

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        if shape != self.bottom_shape:
            if len(shape) != 4 or min(shape[2:]) < 1:
                raise self.error("a bottom (N, C, H, W), not empty", f"shape {shape}")
            for i, (level, t) in enumerate(zip(self.levels, self.tops)):
                level.geometry = self._geometry(shape[2:], i)
                t.reshape(*shape[:2], *level.geometry.out_size)
            self.scratch.reshape(*shape)
            self.bottom_shape = shape
        if len(self.levels) == 1:
            top[0].reshape(*self.tops[0].shape)
        else:
            top[0].reshape(shape[0], sum(t.count_from(1) for t in self.tops))

    def _geometry(self, size, i):
        bins = 2**i
        kernel = tuple(-(-n // bins) for n in size)
        pad = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, size))
        if any(p >= k for p, k in zip(pad, kernel)) and any(pad):
            raise self.error(
                f"height and width that {bins} x {bins} bins can share out", size,
                f"Enlarge the bottom, or reduce spp_param.pyramid_height {len(self.levels)}.",
            )  # fmt: skip
        check_pad(self, self.method, kernel, pad)
        return pool_geometry(self, size, kernel, kernel, pad, ceil=True)

    def forward(self, bottom, top):
        x = bottom[0].array
        for i, (level, t, part) in enumerate(self._levels(top[0].array)):
            level.forward(x, t.array, lambda i=i: self.random(i), self.needs_backward)
            part[...] = t.array.reshape(part.shape)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        x, dx = bottom[0].array, bottom[0].grad
        for i, (level, t, part) in enumerate(self._levels(top[0].grad)):
            t.grad[...] = part.reshape(t.shape)
            level.backward(x, t.array, t.grad, self.scratch.grad if i else dx)
            if i:
                dx += self.scratch.grad

    def _levels(self, y):
        # Each level, its own top, and its features within y: (N, C * bins * bins), a view.
        y = y.reshape(y.shape[0], math.prod(y.shape[1:]))
        start = 0
        for level, t in zip(self.levels, self.tops):
            count = t.count_from(1)
            yield level, t, y[:, start : start + count]
            start += count
