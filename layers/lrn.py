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
        self.view = (n, c, h * w) if self.across else (n * c, h, w)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        kernels = self.device.kernels.lrn
        run = kernels.across_forward if self.across else kernels.within_forward
        x, y = (blob.array.reshape(self.view) for blob in (bottom[0], top[0]))
        run(x, self.size, self.alpha, self.beta, self.k, y)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        kernels = self.device.kernels.lrn
        run = kernels.across_backward if self.across else kernels.within_backward
        arrays = bottom[0].array, top[0].grad, bottom[0].grad
        x, dy, dx = (array.reshape(self.view) for array in arrays)
        run(x, dy, self.size, self.alpha, self.beta, self.k, dx)
