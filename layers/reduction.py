"""Reduction: all axes from one on, reduced to a number."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2

SUM, ASUM, SUMSQ, MEAN = (
    caffe_pb2.ReductionParameter.ReductionOp.Value(name)
    for name in ("SUM", "ASUM", "SUMSQ", "MEAN")
)


def reduce_rows(xp, x, operation):
    """Sum (or mean), sum of absolute values, or sum of squares of each row: (R, C) -> (R,)."""
    if operation == ASUM:
        return xp.abs(x).sum(axis=1)
    if operation == SUMSQ:
        return xp.einsum("rc,rc->r", x, x)
    return x.sum(axis=1)


@register("Reduction")
class Reduction(Layer):
    """coeff * sum(x), sum(|x|), sum(x^2) or mean(x) over all axes from `reduction_param.axis` on.

    (A, ..., B, ...) -> (A, ...), the axes before it (Caffe: ReductionLayer).
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.reduction_param
        self.given_axis, self.operation, self.given_coeff = p.axis, p.operation, p.coeff

    def reshape(self, bottom, top):
        axis = self.axis_of(bottom[0], self.given_axis)
        top[0].reshape(*bottom[0].shape[:axis])
        self.rows, self.columns = top[0].count, bottom[0].count_from(axis)
        self.coeff = self.given_coeff
        if self.operation == MEAN:
            self.coeff /= max(1, self.columns)

    def forward(self, bottom, top):
        x = bottom[0].array.reshape(self.rows, self.columns)
        y = reduce_rows(self.device.xp, x, self.operation)
        y *= self.coeff
        top[0].array[...] = y.reshape(top[0].shape)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        xp = self.device.xp
        x = bottom[0].array.reshape(self.rows, self.columns)
        dx = bottom[0].grad.reshape(self.rows, self.columns)
        dy = self.coeff * top[0].grad.reshape(self.rows, 1)
        if self.operation == ASUM:
            xp.multiply(xp.sign(x), dy, out=dx)
        elif self.operation == SUMSQ:
            xp.multiply(x, 2 * dy, out=dx)
        else:
            dx[...] = dy
