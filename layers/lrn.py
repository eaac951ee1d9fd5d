"""LRN: local response normalisation (Krizhevsky et al. 2012)."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2


@register("LRN")
class LRN(Layer):
    """y = x * s ** -beta, s growing with the squares of x's neighbours (Caffe: LRNLayer).

    Bottom and top (N, C, H, W). ACROSS_CHANNELS: s = k + alpha / n * sum of x^2 over the n =
    local_size channels around. WITHIN_CHANNEL: s = 1 + alpha / n^2 * sum of x^2 over the n by n
    pixels around; k is ignored. What lies outside counts as 0.
    dx = dy * s ** -beta - 2 * alpha * beta / n * x * (the same sum of dy * x * s ** (-beta - 1)).
    """

    num_bottom = num_top = 1
    in_place = False  # NOTE: Caffe goes on and computes something else.

    def setup(self, bottom, top):
        p = self.param.lrn_param
        if p.local_size % 2 == 0:
            raise self.error("an odd lrn_param.local_size", p.local_size)
        self.size = p.local_size
        self.across = p.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS
        scalar = self.dtype.type
        self.beta, self.k = scalar(p.beta), scalar(p.k if self.across else 1)
        self.alpha = scalar(p.alpha / (p.local_size if self.across else p.local_size**2))

    def reshape(self, bottom, top):
        if bottom[0].num_axes != 4:
            raise self.error("a bottom (N, C, H, W)", f"shape {bottom[0].shape}")
        n, c, h, w = bottom[0].shape
        self.view = (n, c, h * w)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        x, y = bottom[0].array, top[0].array
        if self.across:
            self.device.kernels.lrn.across_forward(
                x.reshape(self.view), self.size, self.alpha, self.beta, self.k,
                y.reshape(self.view),
            )  # fmt: skip
        else:
            s = self._scale(x)
            self.device.xp.multiply(x, s**-self.beta, out=y)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        x, dy, dx = bottom[0].array, top[0].grad, bottom[0].grad
        if self.across:
            self.device.kernels.lrn.across_backward(
                x.reshape(self.view), dy.reshape(self.view), self.size, self.alpha, self.beta,
                self.k, dx.reshape(self.view),
            )  # fmt: skip
        else:
            s = self._scale(x)
            direct = dy * s**-self.beta
            mutual = box_sum(direct * x / s, self.size // 2)
            mutual *= x
            mutual *= 2 * self.alpha * self.beta
            self.device.xp.subtract(direct, mutual, out=dx)

    def _scale(self, x):
        s = box_sum(x * x, self.size // 2)
        s *= self.alpha
        s += self.k
        return s


def box_sum(x, radius):
    """Sums over the square of 2 * radius + 1 pixels around each pixel of `x` (N, C, H, W)."""
    for axis in (2, 3):
        x = x.swapaxes(axis, 3)  # a view with the axis last
        total = x.copy(order="K")
        for d in range(1, min(radius, x.shape[3] - 1) + 1):
            total[..., d:] += x[..., :-d]
            total[..., :-d] += x[..., d:]
        x = total.swapaxes(axis, 3)
    return x
