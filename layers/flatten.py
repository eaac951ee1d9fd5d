"""Flatten: a range of axes made into one."""

from ..engine.layer import Layer, register


@register("Flatten")
class Flatten(Layer):
    """Axes `flatten_param.axis` to `end_axis`, both included, as one (Caffe: FlattenLayer).

    By default (N, C, H, W) -> (N, C*H*W). The top is the bottom's memory.
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.flatten_param
        self.given_axes = p.axis, p.end_axis

    def reshape(self, bottom, top):
        first, last = (self.axis_of(bottom[0], axis) for axis in self.given_axes)
        # An empty range inserts an axis of length 1, in Caffe too.
        if first > last + 1:
            raise self.error(
                "flatten_param.axis not behind end_axis",
                f"axis {first} and end_axis {last} for bottom shape {bottom[0].shape}",
            )  # fmt: skip
        shape = bottom[0].shape
        top[0].reshape(
            *shape[:first], bottom[0].count_from(first, last + 1), *shape[last + 1 :]
        )  # fmt: skip
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])
