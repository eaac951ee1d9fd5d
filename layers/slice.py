"""Slice: one blob cut into several along an axis."""

from itertools import pairwise

from ..engine.layer import Layer, register
from .concat import Joint


@register("Slice")
class Slice(Layer):
    """The bottom cut along `slice_param.axis` (Caffe: SliceLayer).

    The cuts are at the `slice_point`s, one fewer than tops, or make equal pieces. The legacy
    `slice_dim` counts from the front only. A single top is shared, not copied.
    """

    num_bottom = 1
    min_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.slice_param
        if p.HasField("axis") and p.HasField("slice_dim"):
            raise self.error(
                "axis or slice_dim in slice_param", "both", "Keep axis, the newer name."
            )
        self.given_axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        self.points = list(p.slice_point)
        if self.points and len(self.points) != len(top) - 1:
            raise self.error(
                f"{len(top) - 1} slice_point for {len(top)} tops, or none for equal pieces",
                f"{len(self.points)}",
            )  # fmt: skip

    def reshape(self, bottom, top):
        axis = self.axis_of(bottom[0], self.given_axis)
        shape = list(bottom[0].shape)
        sizes = self._sizes(shape[axis], axis, len(top))
        self.joint = Joint(self.device, shape, axis, sizes)
        for t, size in zip(top, sizes):
            shape[axis] = size
            t.reshape(*shape)
        if len(top) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])

    def _sizes(self, length, axis, count):
        """How long each top is along the axis."""
        if not self.points:
            if length % count:
                raise self.error(
                    f"axis {axis} to be divisible by the number of tops, {count}", f"{length}",
                    "Give slice_point for unequal pieces.",
                )  # fmt: skip
            return [length // count] * count
        sizes = [end - start for start, end in pairwise([0, *self.points, length])]
        if min(sizes[:-1]) < 1 or sizes[-1] < 0:
            raise self.error(
                f"slice_point to rise from above 0 to at most {length}, the length of axis {axis}",
                f"{self.points}",
            )  # fmt: skip
        return sizes

    def forward(self, bottom, top):
        if len(top) > 1:
            for k, t in enumerate(top):
                self.joint.read(bottom[0].array, k, t.array)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0] and len(top) > 1:
            for k, t in enumerate(top):
                self.joint.write(bottom[0].grad, k, t.grad)
