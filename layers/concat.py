"""Concat: several blobs joined along an axis."""

import math

from ..engine.layer import Layer, register


class Joint:
    """An array that is several others, one after the other along an axis."""

    def __init__(self, device, shape, axis, sizes):
        """`shape` is that of the whole; the parts have `sizes` along `axis`."""
        self.device = device
        self.outer = math.prod(shape[:axis])
        inner = math.prod(shape[axis + 1 :])
        self.counts = [size * inner for size in sizes]
        self.starts = [sum(self.counts[:k]) for k in range(len(sizes))]

    def write(self, whole, k, part):
        """Copy `part`, the one of number k, into the whole."""
        self._copy(part, 0, whole, self.starts[k], k)

    def read(self, whole, k, part):
        """Copy number k of the parts from the whole."""
        self._copy(whole, self.starts[k], part, 0, k)

    def _copy(self, source, source_start, target, target_start, k):
        if not (source.size and target.size):
            return
        self.device.kernels.copies.copy_columns(
            source.reshape(self.outer, -1), source_start,
            target.reshape(self.outer, -1), target_start, self.counts[k],
        )  # fmt: skip


@register("Concat")
class Concat(Layer):
    """The bottoms one after the other along `concat_param.axis` (Caffe: ConcatLayer).

    Bottoms of equal shape but for the axis -> top whose axis is their sum. The legacy
    `concat_dim` counts from the front only. A single bottom is shared, not copied. Where the net
    says so (`holds_bottoms`) and the parts are contiguous, as in a batch of one, the bottoms are
    written to where they belong in the first place.
    """

    min_bottom = 1
    num_top = 1
    in_place = False
    can_hold_bottoms = True
    _shapes = None

    def setup(self, bottom, top):
        p = self.param.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise self.error(
                "axis or concat_dim in concat_param", "both", "Keep axis, the newer name."
            )
        self.given_axis = p.concat_dim if p.HasField("concat_dim") else p.axis

    def reshape(self, bottom, top):
        shapes = [b.shape for b in bottom]
        if shapes != self._shapes:
            axis = self.axis_of(bottom[0], self.given_axis)
            shape, sizes = self._joint_shape(shapes, axis)
            self.joint = Joint(self.device, shape, axis, sizes)
            self._shapes, self._top_shape = shapes, shape
            for b in bottom:  # before the memory that they are in is taken for another shape
                b.lie_alone()
        top[0].reshape(*self._top_shape)
        if len(bottom) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])
        elif self.holds_bottoms and self.joint.outer == 1:
            for b, start in zip(bottom, self.joint.starts):
                if not b.lies_in_other:
                    b.lie_in(top[0], start)

    def _joint_shape(self, shapes, axis):
        # The shape of the top, and the parts' sizes along the axis.
        shape = list(shapes[0])
        for k, part in enumerate(shapes):
            shape[axis] = part[axis] if axis < len(part) else 0
            if part != tuple(shape):
                raise self.error(
                    f"bottoms of equal shapes except along axis {axis}",
                    f"{shapes[0]} for bottom 0 and {part} for bottom {k}",
                    "Check concat_param.axis and the layers that make the bottoms.",
                )  # fmt: skip
        sizes = [part[axis] for part in shapes]
        shape[axis] = sum(sizes)
        return tuple(shape), sizes

    def forward(self, bottom, top):
        if len(bottom) > 1:
            for k, b in enumerate(bottom):
                if not b.lies_in_other:
                    self.joint.write(top[0].array, k, b.array)

    def backward(self, top, propagate_down, bottom):
        if len(bottom) > 1:
            for k, (b, wanted) in enumerate(zip(bottom, propagate_down)):
                if wanted:
                    self.joint.read(top[0].grad, k, b.grad)
