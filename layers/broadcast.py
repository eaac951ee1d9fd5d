"""How a blob of coefficients is laid along the axes of another (Bias and Scale)."""

import math


def coefficient_shape(layer, bottom, axis, num_axes):
    """The shape of learned coefficients for `num_axes` axes of `bottom` from `axis` on; -1: all."""
    axis = layer.axis_of(bottom, axis)
    if num_axes < -1 or axis + num_axes > bottom.num_axes:
        raise layer.error(
            f"num_axes from -1 to {bottom.num_axes - axis} for axis {axis} of bottom shape "
            f"{bottom.shape}", num_axes,
        )  # fmt: skip
    return bottom.shape[axis:] if num_axes == -1 else bottom.shape[axis : axis + num_axes]


def broadcast_view(layer, bottom, shape, axis):
    """The shape (outer, coefficients, inner) that `bottom` has for coefficients of `shape`.

    Raises LayerError unless the coefficients' shape is that of the bottom from `axis` on. The
    shape () is for one coefficient, whatever the axis.
    """
    axis = layer.axis_of(bottom, axis) if shape else 0
    end = axis + len(shape)
    if bottom.shape[axis:end] != shape:
        raise layer.error(
            f"coefficients of shape {bottom.shape[axis:end]} or of its first axes, from axis "
            f"{axis} of bottom shape {bottom.shape}", f"shape {shape}",
            "Correct axis, or the blob that holds the coefficients.",
        )  # fmt: skip
    return bottom.count_from(0, axis), math.prod(shape), bottom.count_from(end)
