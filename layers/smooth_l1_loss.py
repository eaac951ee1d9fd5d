"""SmoothL1Loss: quadratic near zero, linear further out; the loss of bounding-box regression."""

from ..engine.layer import register
from .loss import LossLayer


def smooth_l1_slope(xp, d, sigma_squared, out):
    """out = the derivative by d: sigma^2 * d, clipped to [-1, 1]."""
    xp.multiply(d, sigma_squared, out=out)
    xp.clip(out, -1, 1, out=out)


def smooth_l1(d, slope, sigma_squared):
    """0.5 * sigma^2 * d^2 where |d| < 1 / sigma^2, |d| - 0.5 / sigma^2 elsewhere.

    With the slope, s = sigma^2 * d or the sign of d, both are s * (d - s / (2 sigma^2)).
    """
    return slope * (d - slope * (0.5 / sigma_squared))


@register("SmoothL1Loss")
class SmoothL1Loss(LossLayer):
    """sum(w_out * smooth_l1(w_in * (a - b))) / N (Fast R-CNN, section 2.3; its SmoothL1LossLayer).

    Bottoms: a and b (N, ...), which have gradients, and optionally the inside weights w_in and
    then the outside weights w_out; all of as many elements. N is the first dimension, whatever the
    weights are. (Fast R-CNN's nets have w_in alone, Faster R-CNN's both.)
    Unlike other losses it counts in the net's loss only with a `loss_weight`.
    """

    num_bottom = None
    min_bottom = 2
    max_bottom = 4
    is_loss = False
    no_force_backward = (2, 3)

    def setup(self, bottom, top):
        sigma = self.param.smooth_l1_loss_param.sigma
        if not sigma > 0:
            raise self.error("smooth_l1_loss_param.sigma above 0", sigma)
        self.sigma_squared = sigma * sigma
        self.slope = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_counts_equal(bottom, range(1, len(bottom)))
        self.slope.reshape_like(bottom[0])
        # NOTE: Caffe divides by zero for an empty batch; here its loss is 0.
        self.items = max(1, bottom[0].shape[0])

    def forward(self, bottom, top):
        xp, slope = self.device.xp, self.slope.array
        d, *weights = (b.array.reshape(slope.shape) for b in bottom[1:])
        d = bottom[0].array - d
        for inside in weights[:1]:
            d *= inside
        smooth_l1_slope(xp, d, self.sigma_squared, slope)
        losses = smooth_l1(d, slope, self.sigma_squared)
        for outside in weights[1:]:
            losses *= outside
        # NOTE: Fast R-CNN's Caffe leaves w_in out here, which is right for weights of 0 and 1.
        for weight in weights:
            slope *= weight
        top[0].array[...] = losses.sum() / self.items

    def backward(self, top, propagate_down, bottom):
        for sign, b, wanted in zip((1, -1), bottom, propagate_down):
            if wanted:
                scale = sign * top[0].grad / self.items
                self.device.xp.multiply(self.slope.array.reshape(b.shape), scale, out=b.grad)
        # The weights are constants. Faster R-CNN's nets ask for their gradients all the same,
        # because the layer that makes them also has bottoms that learn.
        for b, wanted in zip(bottom[2:], propagate_down[2:]):
            if wanted:
                b.grad[...] = 0
