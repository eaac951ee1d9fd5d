"""Reshape: the same values in another shape."""

import math

from ..engine.layer import Layer, register


@register("Reshape")
class Reshape(Layer):
    """Replaces `num_axes` axes from `axis` on by `reshape_param.shape` (Caffe: ReshapeLayer).

    In the shape 0 copies the bottom's dimension at that place, and one -1 stands for what makes
    the counts equal. `axis: -1` is behind the last axis, -2 before it; `num_axes: -1` means all
    that follow, 0 inserts axes. The top is the bottom's memory.
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.reshape_param
        self.dims, self.axis, self.num_axes = list(p.shape.dim), p.axis, p.num_axes
        if self.dims.count(-1) > 1 or min(self.dims, default=0) < -1:
            raise self.error(
                "dimensions of at least 0 and at most one -1 in reshape_param.shape",
                f"{self.dims}",
            )  # fmt: skip

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        start, end = self._replaced_axes(shape)
        new = [*shape[:start], *self._copied(shape, start), *shape[end:]]
        if -1 in self.dims:
            k = start + self.dims.index(-1)
            new[k] = _inferred(shape, new[:k] + new[k + 1 :])
        if None in new or math.prod(new) != bottom[0].count:
            raise self.error(
                f"a shape for the {bottom[0].count} elements of bottom shape {shape}",
                f"{[-1 if d is None else d for d in new]}",
                "Correct reshape_param (0 copies a dimension, -1 is inferred) or the bottom.",
            )  # fmt: skip
        top[0].reshape(*new)
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def _replaced_axes(self, shape):
        """The first of the axes to replace and the one behind the last."""
        n = len(shape)
        start = self.axis if self.axis >= 0 else n + self.axis + 1
        end = n if self.num_axes == -1 else start + self.num_axes
        if not 0 <= start <= end <= n:
            raise self.error(
                f"reshape_param.axis in [{-n - 1}, {n}] and num_axes -1 or at most the number of "
                f"axes that follow, for bottom shape {shape}",
                f"axis {self.axis} and num_axes {self.num_axes}",
            )  # fmt: skip
        return start, end

    def _copied(self, shape, start):
        """The new dimensions with those that are 0 filled in."""
        if any(d == 0 and start + k >= len(shape) for k, d in enumerate(self.dims)):
            raise self.error(
                "for each 0 in reshape_param.shape a bottom axis to copy",
                f"{self.dims} at axis {start} of bottom shape {shape}",
            )  # fmt: skip
        return [d or shape[start + k] for k, d in enumerate(self.dims)]


def _inferred(shape, others):
    """The dimension that makes `others` hold as many elements as `shape`; None if none does."""
    if 0 in others:
        # An empty batch: infer what a full one would give.
        shape, others = [d for d in shape if d], [d for d in others if d]
    count, known = math.prod(shape), math.prod(others)
    return None if count % known else count // known
