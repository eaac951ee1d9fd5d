"""SoftmaxWithLoss: the cross-entropy of softmax probabilities and labels."""

from ..engine.layer import register
from .loss import SoftmaxLossLayer

SMALLEST = 1.17549435e-38  # FLT_MIN: what Caffe floors a probability at before the logarithm


def cross_entropy(xp, prob, indices, ignored):
    """-sum(log(prob of the label)).

    Args:
        prob: (outer, C, inner). indices: (outer, inner), labels. ignored: (outer, inner), which
            ones do not count, or None.
    """
    # (outer, C, inner) -> (outer, 1, inner)
    chosen = xp.take_along_axis(prob, indices[:, None, :], axis=1)[:, 0]
    losses = xp.log(xp.maximum(chosen, SMALLEST))
    if ignored is not None:
        xp.copyto(losses, 0, where=ignored)
    return -losses.sum()


def cross_entropy_backward(xp, prob, indices, ignored, scale, out):
    """out = scale * (prob - one-hot label), 0 where ignored; shapes as in `cross_entropy`."""
    outer, _, inner = prob.shape
    xp.multiply(prob, scale, out=out)
    out[xp.arange(outer)[:, None], indices, xp.arange(inner)] -= scale
    if ignored is not None:
        xp.copyto(out, 0, where=ignored[:, None, :])


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(SoftmaxLossLayer):
    """-log(softmax(scores)[label]) summed, over a divisor (Caffe: SoftmaxWithLossLayer).

    Classes are along `softmax_param.axis`. `loss_param`: predictions labelled `ignore_label` do
    not count; the divisor is at least 1 and by `normalization` the number of predictions that
    count (VALID, the default), of all (FULL), of items (BATCH_SIZE), or 1 (NONE).
    """

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self.given_axis = self.param.softmax_param.axis

    def forward(self, bottom, top):
        prob = self.forward_softmax(bottom)
        loss = cross_entropy(self.device.xp, prob, self.indices, self.ignored)
        top[0].array[...] = loss / self.divisor

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the labels")
        if propagate_down[0]:
            cross_entropy_backward(
                self.device.xp, self.prob.array.reshape(self.shape), self.indices, self.ignored,
                top[0].grad / self.divisor, bottom[0].grad.reshape(self.shape),
            )  # fmt: skip
