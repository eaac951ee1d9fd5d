"""SigmoidCrossEntropyLoss: independent yes-or-no predictions against target probabilities."""

from ..engine.layer import register
from .loss import BATCH_SIZE, LossLayer, divisor_of, ignore_label, normalization
from .sigmoid import sigmoid


def sigmoid_cross_entropy(xp, x, target):
    """-(t * log(s) + (1 - t) * log(1 - s)), s = sigmoid(x), element by element.

    Computed from x, as max(x, 0) - x * t + log(1 + exp(-|x|)), which cannot overflow.
    """
    return xp.maximum(x, 0) - x * target + xp.log1p(xp.exp(-xp.abs(x)))


def sigmoid_cross_entropy_backward(xp, x, target, out):
    """out = sigmoid(x) - t."""
    sigmoid(xp, x, out)
    out -= target


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """Cross-entropy of sigmoid(x) and targets in [0, 1] (Caffe: SigmoidCrossEntropyLossLayer).

    Bottoms: x (N, ...) and as many targets. `loss_param`: elements whose target, its fraction
    cut off, is `ignore_label` do not count; `normalization` is BATCH_SIZE by default.
    """

    def setup(self, bottom, top):
        self.ignored_label = ignore_label(self.param.loss_param)
        self.normalization = normalization(self.param.loss_param, BATCH_SIZE)

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_counts_equal(bottom, [1])

    def forward(self, bottom, top):
        xp, x = self.device.xp, bottom[0].array
        target = bottom[1].array.reshape(x.shape)
        losses = sigmoid_cross_entropy(xp, x, target)
        self.ignored = None
        if self.ignored_label is not None:
            self.ignored = xp.trunc(target) == self.ignored_label
            xp.copyto(losses, 0, where=self.ignored)
        self.divisor = divisor_of(self, self.normalization, x.shape[0], x.size, self.ignored)
        top[0].array[...] = losses.sum() / self.divisor

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the targets")
        if not propagate_down[0]:
            return
        x, dx = bottom[0].array, bottom[0].grad
        target = bottom[1].array.reshape(x.shape)
        sigmoid_cross_entropy_backward(self.device.xp, x, target, dx)
        dx *= top[0].grad / self.divisor
        if self.ignored is not None:
            self.device.xp.copyto(dx, 0, where=self.ignored)
