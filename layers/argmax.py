"""ArgMax: where the largest values are."""

from ..engine.layer import Layer, register


def top_indices(xp, x, count, axis):
    """Indices of the `count` largest values along `axis`, largest first; ties: larger index first.

    Shape: x's with `count` for the axis.
    """
    length = x.shape[axis]
    backwards = xp.flip(x, axis)
    if count == 1:
        found = xp.expand_dims(backwards.argmax(axis=axis), axis)
    else:
        order = xp.argsort(-backwards, axis=axis, kind="stable")
        found = order[(slice(None),) * axis + (slice(count),)]
    return length - 1 - found


@register("ArgMax")
class ArgMax(Layer):
    """Indices (or values) of the `argmax_param.top_k` largest (Caffe: ArgMaxLayer).

    With `axis`: bottom (..., C, ...) -> top (..., top_k, ...) of indices, or of values with
    `out_max_val`. Without: each item is flattened, (N, ...) -> (N, 1, top_k), or (N, 2, top_k)
    with `out_max_val`: the indices, then the values; with 1s behind for as many axes as the
    bottom has. Among equal values the larger index wins.
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.argmax_param
        self.out_max_val, self.top_k = p.out_max_val, p.top_k
        self.given_axis = p.axis if p.HasField("axis") else None

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        if self.given_axis is None:
            if not shape:
                raise self.error("a bottom with a batch axis, or argmax_param.axis", "shape ()")
            length = bottom[0].count_from(1)
            rows = 2 if self.out_max_val else 1
            top_shape = (shape[0], rows, self.top_k) + (1,) * (len(shape) - 3)
        else:
            self.axis = self.axis_of(bottom[0], self.given_axis)
            length = shape[self.axis]
            top_shape = shape[: self.axis] + (self.top_k,) + shape[self.axis + 1 :]
        if not 1 <= self.top_k <= length:
            raise self.error(
                f"argmax_param.top_k from 1 to {length} for bottom shape {shape}", self.top_k
            )
        top[0].reshape(*top_shape)

    def forward(self, bottom, top):
        xp, x, y = self.device.xp, bottom[0].array, top[0].array
        if self.given_axis is not None:
            found = top_indices(xp, x, self.top_k, self.axis)
            values = xp.take_along_axis(x, found, axis=self.axis) if self.out_max_val else found
            y[...] = values
            return
        # (N, ...) -> (N, C) -> (N, 1 or 2, top_k)
        x = x.reshape(x.shape[0], bottom[0].count_from(1))
        y = y.reshape(y.shape[:3])
        found = top_indices(xp, x, self.top_k, 1)
        y[:, 0] = found
        if self.out_max_val:
            y[:, 1] = xp.take_along_axis(x, found, axis=1)

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 0, "ArgMax cannot be differentiated")
