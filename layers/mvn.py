"""MVN: mean and variance normalisation of every sample."""

from ..engine.layer import Layer, register


@register("MVN")
class MVN(Layer):
    """y = (x - mean) / (std + eps), over each channel of each image (Caffe: MVNLayer).

    Over all channels of an image with `across_channels`; y = x - mean without
    `normalize_variance`. Bottom of up to 4 axes; the top has 4, with ones at the end.
    dx = (dy - mean(dy) - y * mean(dy * y)) / (std + eps), or dy - mean(dy).
    """

    num_bottom = num_top = 1

    def setup(self, bottom, top):
        p = self.param.mvn_param
        self.across, self.eps = p.across_channels, p.eps
        self.normalize = p.normalize_variance

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        if not 1 <= len(shape) <= 4:
            raise self.error("a bottom (N, C, H, W) of at most 4 axes", f"shape {shape}")
        n, c, h, w = shape + (1,) * (4 - len(shape))
        self.view = (n, c * h * w) if self.across else (n * c, h * w)
        top[0].reshape(n, c, h, w)

    def forward(self, bottom, top):
        if not bottom[0].count:
            return
        xp = self.device.xp
        x, y = bottom[0].array.reshape(self.view), top[0].array.reshape(self.view)
        xp.subtract(x, x.mean(axis=1, keepdims=True), out=y)
        if self.normalize:
            variance = xp.square(y).mean(axis=1, keepdims=True)
            self.divisor = xp.sqrt(variance) + self.eps
            y /= self.divisor

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0] or not bottom[0].count:
            return
        y, dy = top[0].array.reshape(self.view), top[0].grad.reshape(self.view)
        dx = bottom[0].grad.reshape(self.view)
        mean = dy.mean(axis=1, keepdims=True)
        if not self.normalize:
            self.device.xp.subtract(dy, mean, out=dx)
            return
        # NOTE: the exact last term has a further factor 1 + eps / std; as Caffe, we leave it out.
        slope = (dy * y).mean(axis=1, keepdims=True)
        self.device.xp.subtract(dy, mean, out=dx)
        dx -= y * slope
        dx /= self.divisor
