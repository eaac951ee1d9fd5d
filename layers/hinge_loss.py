"""HingeLoss: one-against-all margins."""

from ..engine.layer import register
from ..engine.proto import caffe_pb2
from .loss import LossLayer, class_indices

L2 = caffe_pb2.HingeLossParameter.Norm.Value("L2")


@register("HingeLoss")
class HingeLoss(LossLayer):
    """sum(m) / N, or sum(m^2) / N with `hinge_loss_param.norm: L2` (Caffe: HingeLossLayer).

    m = max(0, 1 - x) for the labelled class, max(0, 1 + x) for the others. Bottoms: scores
    (N, ...), flattened to (N, C), and N labels.
    """

    def setup(self, bottom, top):
        self.squared = self.param.hinge_loss_param.norm == L2
        self.margins = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.check_one_label(bottom)
        items = bottom[0].shape[0]
        self.margins.reshape(items, bottom[0].count_from(1))
        # NOTE: Caffe divides by zero for an empty batch; here its loss is 0.
        self.divisor = max(1, items)

    def forward(self, bottom, top):
        xp, m = self.device.xp, self.margins.array
        indices, _ = class_indices(self, bottom[1].array, m.shape[1])
        self.labelled = xp.arange(len(m)), indices.reshape(-1)
        m[...] = bottom[0].array.reshape(m.shape)
        m[self.labelled] *= -1
        m += 1
        xp.maximum(m, 0, out=m)
        loss = xp.vdot(m, m) if self.squared else m.sum()
        top[0].array[...] = loss / self.divisor

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the labels")
        if not propagate_down[0]:
            return
        m, scale = self.margins.array, top[0].grad / self.divisor
        dx = bottom[0].grad.reshape(m.shape)
        if self.squared:
            self.device.xp.multiply(m, 2 * scale, out=dx)
        else:
            self.device.xp.multiply(m > 0, scale, out=dx)
        dx[self.labelled] *= -1
