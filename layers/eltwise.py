"""Eltwise: product, sum or maximum of several blobs, element by element."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2

_Op = caffe_pb2.EltwiseParameter


@register("Eltwise")
class Eltwise(Layer):
    """y = sum of coeff_k * x_k, product of x_k, or their maximum (Caffe: EltwiseLayer).

    Two or more bottoms of one shape, which is the top's. SUM: dx_k = coeff_k * dy. PROD: dx_k =
    dy * (product of the others), or dy * y / x_k with `stable_prod_grad: false`. MAX: dx_k = dy
    where x_k is the maximum, 0 elsewhere; of the first two the second wins a tie, and a later one
    wins only if it is larger.
    """

    min_bottom = 2
    num_top = 1

    def setup(self, bottom, top):
        p = self.param.eltwise_param
        coefficients = list(p.coeff)
        self.operation, self.stable = p.operation, p.stable_prod_grad
        if coefficients and p.operation == _Op.PROD:
            raise self.error("coeff only with operation SUM", "operation PROD")
        if coefficients and len(coefficients) != len(bottom):
            raise self.error(
                f"no coeff or one for each of {len(bottom)} bottoms", f"{len(coefficients)}"
            )
        self.coefficients = coefficients or [1.0] * len(bottom)
        self.one = self.dtype.type(1)
        self.factors = [self.dtype.type(c) for c in self.coefficients]
        self.kept = self._blob()
        self.fuses_relu = p.operation == _Op.SUM

    def reshape(self, bottom, top):
        for k, blob in enumerate(bottom):
            if blob.shape != bottom[0].shape:
                raise self.error(
                    f"bottoms of one shape, {bottom[0].shape}", f"bottom {k} of shape {blob.shape}"
                )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        if self.operation == _Op.SUM:
            self._sum(bottom, top[0].array, False)
            return
        xp, y, (x, *rest) = self.device.xp, top[0].array, [b.array for b in bottom]
        # NOTE: Caffe keeps no copy: in place, its sum is wrong, and so are the gradients of a
        # product and a maximum; here all are right.
        if top[0] is bottom[0] and self.needs_backward:
            self.kept.reshape_like(bottom[0])
            self.kept.array[...] = x
        combine = xp.multiply if self.operation == _Op.PROD else xp.maximum
        combine(x, rest[0], out=y)
        for x in rest[1:]:
            combine(y, x, out=y)

    def forward_relu(self, bottom, top):
        """`forward`, where it is a sum, and max(x, 0) of the top."""
        self._sum(bottom, top[0].array, True)

    def _sum(self, bottom, y, relu):
        add, out = self.device.kernels.activations.weighted_sum, y.reshape(-1)
        total, so_far = bottom[0].array.reshape(-1), self.factors[0]
        last = len(bottom) - 1
        for k, factor in enumerate(self.factors[1:], start=1):
            x = bottom[k].array.reshape(-1)
            add(total, so_far, x, factor, relu and k == last, out)
            total, so_far = out, self.one

    def backward(self, top, propagate_down, bottom):
        xp, y, dy = self.device.xp, top[0].array, top[0].grad
        values = [b.array for b in bottom]
        if top[0] is bottom[0] and self.operation != _Op.SUM:
            values[0] = self.kept.array
        winner = None
        if self.operation == _Op.MAX and len(values) > 2:
            winner = winners(xp, values)
        # The first last: in place, its gradient overwrites dy.
        for k in reversed([k for k, needed in enumerate(propagate_down) if needed]):
            dx = bottom[k].grad
            if self.operation == _Op.SUM:
                self._scaled(dy, k, dx)
            elif self.operation == _Op.MAX:
                self._picked(values, winner, k, dy.reshape(-1), dx.reshape(-1))
            elif self.stable:
                xp.multiply(dy, product_of_others(values, k), out=dx)
            else:
                xp.multiply(dy, y / values[k], out=dx)

    def _picked(self, values, winner, k, dy, dx):
        kernels = self.device.kernels.activations
        if winner is None:
            kernels.larger_backward(*(x.reshape(-1) for x in values), k == 0, dy, dx)
        else:
            kernels.pick_backward(winner.reshape(-1), k, dy, dx)

    def _scaled(self, dy, k, dx):
        kernels = self.device.kernels
        if self.factors[k] != 1:
            kernels.activations.scaled(dy.reshape(-1), self.factors[k], dx.reshape(-1))
        elif dx is not dy:
            kernels.copies.copy(dy, dx)


def winners(xp, values):
    """Which of the arrays `values` holds the maximum, as an array of indices."""
    winner = xp.empty(values[0].shape, "int32")
    winner[...] = xp.logical_not(values[0] > values[1])
    best = xp.maximum(values[0], values[1])
    for k, x in enumerate(values[2:], start=2):
        xp.copyto(winner, k, where=x > best)
        best = xp.maximum(best, x)
    return winner


def product_of_others(values, k):
    """The product of the arrays `values` without the one at `k`."""
    first, *rest = values[:k] + values[k + 1 :]
    for other in rest:
        first = first * other
    return first
