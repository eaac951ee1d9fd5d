"""ContrastiveLoss: pulls similar pairs together and pushes others a margin apart."""

from ..engine.layer import register
from .loss import LossLayer

NEAR_ZERO = 1e-4  # Caffe adds it to a distance that it divides by


@register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """Sum over pairs, divided by 2 N, of d^2 for similar ones and else max(0, margin - d)^2.

    Bottoms: features a and b (N, C), and N labels, not 0 for a similar pair; d is the distance
    of a[n] and b[n]. `contrastive_loss_param.legacy_version` takes max(0, margin - d^2) instead
    (Hadsell et al. 2006; Caffe: ContrastiveLossLayer).
    """

    num_bottom = 3
    no_force_backward = (2,)

    def setup(self, bottom, top):
        p = self.param.contrastive_loss_param
        self.margin, self.legacy = p.margin, p.legacy_version
        self.difference = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_counts_equal(bottom, [1])
        items = bottom[0].shape[0]
        if bottom[2].count != items:
            raise self.error(
                f"one label for each of the {items} pairs as bottom 2", f"shape {bottom[2].shape}"
            )
        self.difference.reshape(items, bottom[0].count_from(1))
        # NOTE: Caffe divides by zero for an empty batch; here its loss is 0.
        self.divisor = max(1, items)

    def forward(self, bottom, top):
        xp, d = self.device.xp, self.difference.array
        a, b = (blob.array.reshape(d.shape) for blob in bottom[:2])
        xp.subtract(a, b, out=d)
        self.similar = xp.trunc(bottom[2].array.reshape(-1)) != 0
        squared = xp.einsum("nc,nc->n", d, d)
        self.distance = xp.sqrt(squared)
        gap = self.margin - (squared if self.legacy else self.distance)
        self.gap = xp.maximum(gap, 0)
        apart = self.gap if self.legacy else self.gap * self.gap
        losses = xp.where(self.similar, squared, apart)
        top[0].array[...] = losses.sum() / (2 * self.divisor)

    def backward(self, top, propagate_down, bottom):
        xp = self.device.xp
        if self.legacy:
            push = (self.gap > 0).astype(self.gap.dtype)
        else:
            push = self.gap / (self.distance + NEAR_ZERO)
        # The loss by the difference, up to the scale, is this factor times the difference.
        factor = xp.where(self.similar, push.dtype.type(1), -push)[:, None]
        for sign, b, wanted in zip((1, -1), bottom, propagate_down):
            if wanted:
                scale = sign * top[0].grad / self.divisor
                dx = b.grad.reshape(self.difference.shape)
                xp.multiply(self.difference.array, factor * scale, out=dx)
        if propagate_down[2]:
            bottom[2].grad[...] = 0  # the labels are constants
