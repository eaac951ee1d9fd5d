"""EuclideanLoss: half the mean squared distance of two blobs."""

from ..engine.layer import register
from .loss import LossLayer


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """sum((a - b)^2) / (2 N), N the first dimension (Caffe: EuclideanLossLayer).

    Bottoms: a and b of as many elements and equal N; both have gradients.
    """

    no_force_backward = ()

    def setup(self, bottom, top):
        self.difference = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_counts_equal(bottom, [1])
        self.difference.reshape_like(bottom[0])
        # NOTE: Caffe divides by zero for an empty batch; here its loss is 0.
        self.items = max(1, bottom[0].shape[0])

    def forward(self, bottom, top):
        xp, d = self.device.xp, self.difference.array
        xp.subtract(bottom[0].array, bottom[1].array.reshape(d.shape), out=d)
        top[0].array[...] = xp.vdot(d, d) / (2 * self.items)

    def backward(self, top, propagate_down, bottom):
        for sign, b, wanted in zip((1, -1), bottom, propagate_down):
            if wanted:
                scale = sign * top[0].grad / self.items
                d = self.difference.array.reshape(b.shape)
                self.device.xp.multiply(d, scale, out=b.grad)
