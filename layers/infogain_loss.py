"""InfogainLoss: cross-entropy in which every label has a weight for every class."""

from ..engine.blobproto import read_blob
from ..engine.layer import register
from .loss import SoftmaxLossLayer

LOG_THRESHOLD = 1e-20  # what Caffe floors a probability at before the logarithm


def infogain_loss(xp, prob, rows):
    """-sum(rows * log(prob)): both (outer, C, inner)."""
    return -(rows * xp.log(xp.maximum(prob, LOG_THRESHOLD))).sum()


def infogain_loss_backward(xp, prob, rows, scale, out):
    """out = scale * (prob * sum(rows over classes) - rows), by the scores; (outer, C, inner)."""
    xp.multiply(prob, rows.sum(axis=1, keepdims=True), out=out)
    out -= rows
    out *= scale


@register("InfogainLoss")
class InfogainLoss(SoftmaxLossLayer):
    """-sum_k H[label, k] * log(softmax(scores)[k]) (Caffe: InfogainLossLayer).

    The matrix H, C*C elements, is bottom 2 or the BlobProto file `infogain_loss_param.source`
    (.binaryproto). Classes are along `infogain_loss_param.axis`; `loss_param` and the second top
    as for SoftmaxWithLoss. With the identity for H it is SoftmaxWithLoss.
    """

    num_bottom = None
    min_bottom = 2
    max_bottom = 3

    def setup(self, bottom, top):
        super().setup(bottom, top)
        p = self.param.infogain_loss_param
        self.given_axis = p.axis
        if self.param.loss_param.HasField("normalize"):
            raise self.error(
                "loss_param without normalize", "it",
                "This layer never knew it: write normalization: VALID for true, BATCH_SIZE for "
                "false.",
            )  # fmt: skip
        if len(bottom) == 2:
            if not p.source:
                raise self.error("the matrix as bottom 2 or infogain_loss_param.source", "neither")
            self.matrix = self._read_matrix(self.context.find(p.source))

    def _read_matrix(self, path):
        values = read_blob(path)
        blob = self._blob(values.shape)
        blob.set_data(values)
        return blob

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        if len(bottom) == 3:
            self.matrix = bottom[2]
        classes = self.shape[1]
        if self.matrix.count != classes * classes:
            raise self.error(
                f"an infogain matrix of {classes} x {classes} elements for {classes} classes",
                f"shape {self.matrix.shape}",
            )  # fmt: skip

    def forward(self, bottom, top):
        xp = self.device.xp
        prob = self.forward_softmax(bottom)
        matrix = self.matrix.array.reshape(self.shape[1], self.shape[1])
        # (C, C) -> (outer, inner, C) -> (outer, C, inner)
        self.rows = xp.moveaxis(matrix[self.indices], 2, 1)
        if self.ignored is not None:
            self.rows = xp.where(self.ignored[:, None, :], matrix.dtype.type(0), self.rows)
        top[0].array[...] = infogain_loss(xp, prob, self.rows) / self.divisor

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the labels")
        if len(bottom) == 3:
            self.refuse_gradient(propagate_down, 2, "the infogain matrix")
        if propagate_down[0]:
            infogain_loss_backward(
                self.device.xp, self.prob.array.reshape(self.shape), self.rows,
                top[0].grad / self.divisor, bottom[0].grad.reshape(self.shape),
            )  # fmt: skip
