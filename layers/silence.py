"""Silence: consumes blobs so that they are no outputs of the net."""

from ..engine.layer import Layer, register


@register("Silence")
class Silence(Layer):
    """Any number of bottoms, no top; the bottoms' gradients are 0 (Caffe: SilenceLayer)."""

    min_bottom = 1
    num_top = 0

    def backward(self, top, propagate_down, bottom):
        for blob, needed in zip(bottom, propagate_down):
            if needed:
                blob.grad[...] = 0
