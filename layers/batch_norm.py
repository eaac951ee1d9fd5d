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
        x, y = self._forward(bottom, top, self.needs_backward and not self.use_global)
        if self.input is self.kept:
            self.device.kernels.copies.copy(x, self.kept.array)
        self.device.kernels.channelwise.affine(x, self.mean, self.factor, self.zeros, y)

    def fuses_scale(self, scale):
        """Whether this layer and a Scale, of learned coefficients, can be one pass."""
        return scale.is_scale and scale.is_learned and scale.view == self.view

    def folds_scale(self, scale):
        """Whether a convolution can do this layer's work and that of a Scale: statistics are
        stored, and backward does not look at what was normalised."""
        return self.use_global and self.fuses_scale(scale) and not scale.needs_input

    def forward_scale(self, bottom, top, scale, relu):
        """`forward`, that of the layer `scale` in place, and max(x, 0) if `relu`."""
        scale.reshape(top, top)
        scale.norm = self
        wanted = (self.needs_backward and not self.use_global) or scale.needs_input
        x, y = self._forward(bottom, top, wanted)
        kept = self.kept.array.reshape(self.view) if self.input is self.kept else None
        self.device.kernels.channelwise.normalise(
            x, self.mean, self.factor, *scale.coefficients(top), relu, y, kept
        )

    def normalise_again(self, out):
        """Write what `forward` computed without a Scale, from the input that it has kept."""
        x = self.input.array.reshape(self.view)
        self.device.kernels.channelwise.affine(
            x, self.mean, self.factor, self.zeros, out.reshape(self.view)
        )

    def coefficients(self, top, scale):
        """What this layer, of stored statistics, and a Scale do to `top`, as arrays (C,): centre,
        factor, scale, offset."""
        scale.reshape(top, top)
        self._set_statistics(*self._stored())
        return self.mean, self.factor, *scale.coefficients(top)

    def _forward(self, bottom, top, keep):
        """Compute the statistics, choose where backward finds the input; give views of x and y."""
        x, y = bottom[0].array.reshape(self.view), top[0].array.reshape(self.view)
        if self.use_global or not self.per_channel:
            self._set_statistics(*self._stored())
        else:
            moments = batch_moments(self.device.kernels.channelwise, x)
            self._update(*moments)
            self._set_statistics(*moments)
        self.input = bottom[0]
        if keep and top[0] is bottom[0]:
            self.kept.reshape_like(bottom[0])
            self.input = self.kept
        return x, y

    def _set_statistics(self, mean, variance):
        self.mean = mean
        self.factor = 1 / self.device.xp.sqrt(variance + self.eps)

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
        x = self.input.array.reshape(self.view)
        total, dot = kernels.sums(dy, self.zeros, x, self.mean)
        mean_dy, slope = self._slopes(total, dot)
        kernels.combine(dy, mean_dy, self.factor, x, self.mean, slope, dx)

    def fuses_scale_gradient(self, scale):
        """Whether there is `backward_scale`: both are in place, and statistics the batch's."""
        return not self.use_global and self.device.is_host and self.fuses_scale(scale)

    def backward_scale(self, top, propagate_down, bottom, scale):
        """That of the layer `scale`, and `backward`, where all blobs are the same."""
        kernels, grad = self.device.kernels.channelwise, top[0].grad.reshape(self.view)
        s, x = scale.coefficients(bottom)[0], self.input.array.reshape(self.view)
        total, dot, *sums = kernels.norm_sums(grad, s, x, self.mean, self.factor)
        scale.add_gradients(total, dot)
        mean_dy, slope = self._slopes(*sums)
        kernels.norm_backward(grad, s, mean_dy, self.factor, x, self.mean, slope, grad)

    def _slopes(self, total, dot):
        # mean(dy), and what (x - mean) is multiplied by:
        # mean(dy * y) * y = (x - mean) * factor^2 * dot / m
        m = max(self.per_channel, 1)
        dtype = self.factor.dtype
        return (total / m).astype(dtype), (-(dot / m)).astype(dtype) * self.factor**3


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
