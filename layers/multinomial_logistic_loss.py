"""MultinomialLogisticLoss: the cross-entropy of given probabilities and labels."""

from ..engine.layer import register
from .loss import LossLayer, class_indices

LOG_THRESHOLD = 1e-20  # what Caffe floors a probability at


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """-sum(log(p[n, label[n]])) / N (Caffe: MultinomialLogisticLossLayer).

    Bottoms: probabilities (N, ...), flattened to (N, C), and N labels. For scores use
    SoftmaxWithLoss, whose gradient is more exact.
    """

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_one_label(bottom)
        # NOTE: Caffe divides by zero for an empty batch; here its loss is 0.
        self.divisor = max(1, bottom[0].shape[0])

    def forward(self, bottom, top):
        xp = self.device.xp
        prob = bottom[0].array.reshape(bottom[0].shape[0], bottom[0].count_from(1))
        indices, _ = class_indices(self, bottom[1].array, prob.shape[1])
        self.labelled = xp.arange(len(prob)), indices.reshape(-1)
        self.chosen = xp.maximum(prob[self.labelled], LOG_THRESHOLD)
        top[0].array[...] = -xp.log(self.chosen).sum() / self.divisor

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the labels")
        if propagate_down[0]:
            dx = bottom[0].grad.reshape(bottom[0].shape[0], bottom[0].count_from(1))
            dx[...] = 0
            dx[self.labelled] = -top[0].grad / self.divisor / self.chosen
