"""Split: one blob for several consumers, whose gradients are summed."""

from ..engine.layer import Layer, register


@register("Split")
class Split(Layer):
    """Every top is the bottom itself, in the same memory (Caffe: SplitLayer)."""

    num_bottom = 1
    min_top = 1
    in_place = False

    def reshape(self, bottom, top):
        for t in top:
            t.reshape_like(bottom[0])
            t.share_data(bottom[0])

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        kernels, one, out = self.device.kernels, self.dtype.type(1), bottom[0].grad.reshape(-1)
        first, *others = (t.grad.reshape(-1) for t in top)
        if not others:
            kernels.copies.copy(first, out)
        for other in others:
            kernels.activations.weighted_sum(first, one, other, one, False, out)
            first = out
