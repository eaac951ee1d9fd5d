"""BatchReindex: the items of a batch picked, repeated and reordered by number."""

from ..engine.layer import Layer, register


@register("BatchReindex")
class BatchReindex(Layer):
    """y[k] = x[index[k]] (Caffe: BatchReindexLayer).

    Bottoms: x (N, ...), index (K,) of whole numbers below N -> top (K, ...).
    """

    num_bottom = 2
    num_top = 1
    in_place = False

    def reshape(self, bottom, top):
        if len(bottom[1].shape) != 1:
            raise self.error("indices of shape (K,) as bottom 1", f"shape {bottom[1].shape}")
        if not bottom[0].shape:
            raise self.error("bottom 0 with a batch axis", "shape ()")
        top[0].reshape(bottom[1].shape[0], *bottom[0].shape[1:])

    def forward(self, bottom, top):
        xp, count = self.device.xp, bottom[0].shape[0]
        given = xp.trunc(bottom[1].array)
        # The comparison is negated so that NaN counts as wrong.
        wrong = ~((given >= 0) & (given < count))
        self.check(
            wrong, f"indices from 0 to {count - 1}",
            lambda: f"{float(bottom[1].array[wrong][0])} at position {wrong.argmax()}",
            "They number the items of bottom 0.",
        )  # fmt: skip
        self.index = xp.where(wrong, 0, given).astype(xp.intp)
        xp.take(bottom[0].array, self.index, axis=0, out=top[0].array)

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the indices")
        if not propagate_down[0]:
            return
        dx, columns = bottom[0].grad, bottom[0].count_from(1)
        dx[...] = 0
        # (K, ...) -> (K, C) and (N, ...) -> (N, C)
        self.device.kernels.scatter.add_rows(
            top[0].grad.reshape(len(self.index), columns), self.index, dx.reshape(len(dx), columns)
        )
