"""Concat: several blobs joined along an axis."""

from ..engine.layer import Layer, register


def slices_along(axis, sizes):
    """One index tuple for each of the `sizes` that consecutive blocks have along `axis`."""
    stops = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [(slice(None),) * axis + (slice(stop - size, stop),) for stop, size in zip(stops, sizes)]


@register("Concat")
class Concat(Layer):
    """The bottoms one after the other along `concat_param.axis` (Caffe: ConcatLayer).

    Bottoms of equal shape but for the axis -> top whose axis is their sum. The legacy
    `concat_dim` counts from the front only. A single bottom is shared, not copied.
    """

    min_bottom = 1
    num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise self.error(
                "axis or concat_dim in concat_param", "both", "Keep axis, the newer name."
            )
        self.given_axis = p.concat_dim if p.HasField("concat_dim") else p.axis

    def reshape(self, bottom, top):
        axis = self.axis_of(bottom[0], self.given_axis)
        shape = list(bottom[0].shape)
        for k, b in enumerate(bottom):
            shape[axis] = b.shape[axis] if axis < len(b.shape) else 0
            if b.shape != tuple(shape):
                raise self.error(
                    f"bottoms of equal shapes except along axis {axis}",
                    f"{bottom[0].shape} for bottom 0 and {b.shape} for bottom {k}",
                    "Check concat_param.axis and the layers that make the bottoms.",
                )  # fmt: skip
        sizes = [b.shape[axis] for b in bottom]
        self.parts = slices_along(axis, sizes)
        shape[axis] = sum(sizes)
        top[0].reshape(*shape)
        if len(bottom) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])

    def forward(self, bottom, top):
        if len(bottom) > 1:
            for part, b in zip(self.parts, bottom):
                top[0].array[part] = b.array

    def backward(self, top, propagate_down, bottom):
        if len(bottom) > 1:
            for part, b, wanted in zip(self.parts, bottom, propagate_down):
                if wanted:
                    b.grad[...] = top[0].grad[part]
