"""Where a pixel of one top lies in another, to crop feature maps into line (pycaffe: coord_map).

A coordinate map is (axis, scale, shift): output coordinate = scale * input coordinate + shift,
for the spatial axes after `axis`; scale and shift are arrays with one entry an axis, or with a
single one for all. The identity, which belongs to no axis, is (None, 1, 0).
"""

import numpy as np

from demitasse.engine.errors import NetError

from .net_spec import layers as L

PASS_THROUGH_LAYERS = [
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Clip", "Dropout", "Eltwise", "ELU", "Exp", "Log",
    "LRN", "MVN", "Power", "PReLU", "ReLU", "Scale", "Sigmoid", "Split", "Swish", "TanH",
    "Threshold",
]  # fmt: skip


class UndefinedMapException(NetError):
    """A layer that has no coordinate map."""


class AxisMismatchException(NetError):
    """Two maps that speak of different axes."""


class UnconnectedError(NetError):
    """Two tops that no spatial layers connect."""


class CropError(NetError, AssertionError):
    """A top that cannot be cropped to another."""


def conv_params(fn):
    """The (axis, stride, kernel size, padding) of a Convolution, Deconvolution, Im2col or
    Pooling layer of a NetSpec; the kernel size is that of the dilated kernel."""
    params = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    legacy = sorted(key for key in params if key.endswith(("_h", "_w")))
    if legacy:
        raise CropError(f"layer ({fn.type_name})", "kernel_size, stride and pad", legacy)
    if "kernel_size" not in params:
        raise UndefinedMapException(f"layer ({fn.type_name})", "a kernel_size", sorted(params))
    stride, kernel, dilation, pad = (
        np.array(params.get(key, default), ndmin=1)
        for key, default in (("stride", 1), ("kernel_size", 1), ("dilation", 1), ("pad", 0))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn):
    """The (axis, offset) of a Crop layer of a NetSpec."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn):
    """The coordinate map of a layer; raises UndefinedMapException if it has none."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # Crop's axis is the first one it crops
    raise UndefinedMapException(f"layer ({fn.type_name})", "a layer with a coordinate map", "none")


def compose(base_map, next_map):
    """The map that applies `next_map` first and then `base_map`."""
    base_axis, base_scale, base_shift = base_map
    next_axis, next_scale, next_shift = next_map
    if base_axis is not None and next_axis is not None and base_axis != next_axis:
        raise AxisMismatchException("coordinate map", f"axis {base_axis}", f"axis {next_axis}")
    axis = next_axis if base_axis is None else base_axis
    return axis, base_scale * next_scale, base_scale * next_shift + base_shift


def inverse(coord_map):
    """The map in the other direction."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def _maps_upwards(top):
    """Yield (ancestor, map from ancestor to `top`) for `top` and all the tops it comes from, the
    nearest first, as far as layers have maps. Ancestors on several paths are assumed to lie the
    same way on each."""
    maps, frontier = {top: (None, 1, 0)}, [top]
    for current in frontier:  # which grows
        yield current, maps[current]
        try:
            step = coord_map(current.fn)
        except UndefinedMapException:
            continue
        # A Crop's second bottom only lends its size.
        bottoms = current.fn.inputs[:1] if current.fn.type_name == "Crop" else current.fn.inputs
        for bottom in bottoms:
            if bottom not in maps:
                maps[bottom] = compose(maps[current], step)
                frontier.append(bottom)


def coord_map_from_to(top_from, top_to):
    """The map from the coordinates of `top_from` to those of `top_to`, through an ancestor that
    they share; raises RuntimeError (an UnconnectedError) if there is none."""
    from_maps = dict(_maps_upwards(top_from))
    for ancestor, to_map in _maps_upwards(top_to):
        if ancestor in from_maps:
            return compose(to_map, inverse(from_maps[ancestor]))
    raise UnconnectedError(
        "coord_map_from_to", "tops with a common ancestor through spatial layers", "none"
    )


def crop(top_from, top_to):
    """A Crop layer that crops `top_from` to the size and place of `top_to`.

    Raises: AssertionError (a CropError) if their scales differ, or the offset is negative or
    not whole.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    offset = -np.atleast_1d(shift)
    whole = np.round(offset).astype(int)
    if not np.allclose(scale, 1):
        raise CropError("crop", "tops of the same scale", f"a scale of {scale}")
    if not np.allclose(offset, whole):
        raise CropError("crop", "a whole offset", offset)
    if (whole < 0).any():
        hint = "The top to crop is the smaller one: pad it, or crop the other."
        raise CropError("crop", "an offset of at least 0", whole, hint)
    first_axis = 2 if axis is None else axis + 1
    return L.Crop(top_from, top_to, axis=first_axis, offset=whole.tolist())
