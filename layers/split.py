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
        xp, out = self.device.xp, bottom[0].grad
        if len(top) == 1:
            out[...] = top[0].grad
            return
        xp.add(top[0].grad, top[1].grad, out=out)
        for t in top[2:]:
            out += t.grad
