"""Crop: a part of one blob, as large as another."""

from ..engine.layer import Layer, register


@register("Crop")
class Crop(Layer):
    """The part of bottom 0, from `offset` on, of bottom 1's size (Caffe: CropLayer).

    The axes before `crop_param.axis` are kept whole. `offset` is given once for all further axes,
    or once for each, or not at all (0). Only the shape of bottom 1 is looked at.
    """

    num_bottom, num_top = 2, 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.crop_param
        self.given_axis, self.offset = p.axis, tuple(p.offset)

    def reshape(self, bottom, top):
        shape, reference = bottom[0].shape, bottom[1].shape
        axis = self.axis_of(bottom[0], self.given_axis)
        if len(reference) < len(shape):
            raise self.error(
                f"bottom 1 with {len(shape)} axes or more, as bottom 0", f"shape {reference}"
            )
        reference = reference[: len(shape)]
        offset = self._offsets(len(shape) - axis)
        for i, o in enumerate(offset, start=axis):
            if o + reference[i] > shape[i]:
                raise self.error(
                    f"offset {o} and size {reference[i]} within the {shape[i]} of axis {i}",
                    f"bottom shapes {shape} and {reference}",
                    "Reduce crop_param.offset or the reference blob.",
                )  # fmt: skip
        top[0].reshape(*shape[:axis], *reference[axis:])
        part = [slice(o, o + n) for o, n in zip(offset, reference[axis:])]
        self.part = (slice(None),) * axis + tuple(part)

    def _offsets(self, axes):
        if len(self.offset) > 1 and len(self.offset) != axes:
            raise self.error(
                f"crop_param.offset once, or once for each of the {axes} axes cropped",
                f"{len(self.offset)} values",
            )  # fmt: skip
        return self.offset if len(self.offset) > 1 else (self.offset or (0,)) * axes

    def forward(self, bottom, top):
        top[0].array[...] = bottom[0].array[self.part]

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].grad[...] = 0
            bottom[0].grad[self.part] = top[0].grad
        if propagate_down[1]:
            bottom[1].grad[...] = 0
