"""BatchNorm: normalisation by the mean and variance of each channel (Ioffe and Szegedy 2015)."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2


@register("BatchNorm")
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps), for each channel (Caffe: BatchNormLayer).

    Bottom and top (N, C, ...). In TRAIN mean and (biased) variance are those of the batch, in
    TEST the stored ones; `use_global_stats` overrides that. Parameters: the running sums of means
    (C,) and of unbiased variances (C,), and their weight (1,): each batch multiplies all three by
    `moving_average_fraction` and adds its mean, m / (m - 1) times its variance, and 1. Stored
    statistics are the sums divided by the weight, or 0 if that is 0. They are not learned: they
    never get a gradient, and their learning rates are set to 0.

    With y's statistics from the batch, dx = (dy - mean(dy) - y * mean(dy * y)) / sqrt(variance +
    eps), else dx = dy / sqrt(variance + eps).
    """

    num_bottom = num_top = 1

    def setup(self, bottom, top):
        p = self.param.batch_norm_param
        test = self.phase == caffe_pb2.TEST
        self.use_global = p.use_global_stats if p.HasField("use_global_stats") else test
        self.fraction, self.eps = p.moving_average_fraction, p.eps
        self.channels = bottom[0].shape[1] if bottom[0].num_axes > 1 else 1
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_param(shape)
        # NOTE: Caffe refuses another rate than 0, and still takes the statistics for learned when
        # it decides which layers run backward; here a net without other parameters runs none.
        while len(self.param.param) < len(self.blobs):
            self.param.param.add()
        for spec in self.param.param:
            spec.lr_mult = 0
        self.zeros = self.device.xp.zeros(self.channels, self.dtype)
        self.kept = self._blob()

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        channels = shape[1] if len(shape) > 1 else 1
        if not shape or channels != self.channels:
            raise self.error(f"{self.channels} channels, as when it was set up", f"bottom {shape}")
        self.view = (shape[0], channels, bottom[0].count_from(2))
        self.per_channel = shape[0] * self.view[2]
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        x, y = bottom[0].array.reshape(self.view), top[0].array.reshape(self.view)
        if self.use_global or not self.per_channel:
            self.mean, variance = self._stored()
        else:
            self.mean, variance = batch_moments(self.device.kernels.channelwise, x)
            self._update(self.mean, variance)
            if top[0] is bottom[0] and self.needs_backward:
                self.kept.reshape_like(bottom[0])
                self.device.kernels.copies.copy(bottom[0].array, self.kept.array)
        self.factor = 1 / self.device.xp.sqrt(variance + self.eps)
        self.device.kernels.channelwise.affine(x, self.mean, self.factor, self.zeros, y)

    def fuses_scale(self, scale):
        """Whether this layer and a Scale are one pass: stored statistics, learned coefficients."""
        return (
            self.use_global and scale.is_scale and len(scale.blobs) == 1 + scale.has_bias
            and scale.view == self.view and not scale.needs_backward
        )  # fmt: skip

    def forward_scale(self, bottom, top, scale, relu):
        """`forward`, that of the layer `scale` in place, and max(x, 0) if `relu`."""
        norm = self.coefficients(top, scale)
        x, y = bottom[0].array.reshape(self.view), top[0].array.reshape(self.view)
        self.device.kernels.channelwise.normalise(x, *norm, relu, y)

    def coefficients(self, top, scale):
        """What this layer and a Scale do to `top`, as arrays (C,) centre, factor, scale, offset."""
        scale.reshape(top, top)
        self.mean, variance = self._stored()
        self.factor = 1 / self.device.xp.sqrt(variance + self.eps)
        return self.mean, self.factor, *scale.coefficients(top)

    def _stored(self):
        xp, (mean, variance, weight) = self.device.xp, (blob.array for blob in self.blobs)
        factor = 1 / xp.where(weight != 0, weight, xp.inf)  # 0 for a weight of 0
        return mean * factor, variance * factor

    def _update(self, mean, variance):
        m = self.per_channel
        unbiased = m / (m - 1) if m > 1 else 1.0
        for blob, value in zip(self.blobs, (mean, variance * unbiased, 1)):
            blob.array[...] = blob.array * self.fraction + value

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        kernels = self.device.kernels.channelwise
        dy, dx = top[0].grad.reshape(self.view), bottom[0].grad.reshape(self.view)
        if self.use_global or not self.per_channel:
            kernels.affine(dy, self.zeros, self.factor, self.zeros, dx)
            return
        x = (self.kept if top[0] is bottom[0] else bottom[0]).array.reshape(self.view)
        total, dot = kernels.sums(dy, self.zeros, x, self.mean)
        # mean(dy * y) * y = (x - mean) * factor^2 * dot / m
        slope = (-(dot / self.per_channel)).astype(x.dtype) * self.factor**3
        mean_dy = (total / self.per_channel).astype(x.dtype)
        kernels.combine(dy, mean_dy, self.factor, x, self.mean, slope, dx)


def batch_moments(kernels, x):
    """Mean and biased variance of each channel of `x` (outer, channels, inner), in one pass.

    Values are taken relative to each channel's first, which keeps a large mean from cancelling
    the variance.
    """
    first = x[0, :, 0].copy()
    total, square = kernels.sums(x, first, x, first)
    m = x.shape[0] * x.shape[2]
    mean = total / m
    variance = square / m - mean**2
    return (mean + first).astype(x.dtype), variance.clip(min=0).astype(x.dtype)
