"""The window of convolution-like layers, read from a ConvolutionParameter."""

from typing import NamedTuple

from ..engine.kernels.geometry import ConvGeometry, conv_size, deconv_size, window_extent


class Window(NamedTuple):
    """Kernel size, stride, padding and dilation: tuples with an entry for each spatial axis."""

    kernel: tuple
    stride: tuple
    pad: tuple
    dilation: tuple


def read_window(layer, axes):
    """The window that a layer's `convolution_param` asks for over `axes` spatial axes."""
    p = layer.param.convolution_param
    kernel = _per_axis(layer, "kernel_size", "kernel_", axes, None)
    stride = _per_axis(layer, "stride", "stride_", axes, 1)
    pad = _per_axis(layer, "pad", "pad_", axes, 0)
    dilation = _repeated(layer, "dilation", p.dilation, axes, 1)
    for name, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if min(values, default=1) < 1:
            raise layer.error(f"convolution_param.{name} of at least 1", values)
    return Window(kernel, stride, pad, dilation)


def _per_axis(layer, name, prefix, axes, default):
    # Given as `name` once or for each axis, or for two axes as <prefix>h and <prefix>w.
    p = layer.param.convolution_param
    pair = [f"{prefix}h", f"{prefix}w"]
    given = [n for n in pair if p.HasField(n)]
    repeated = getattr(p, name)
    if not given:
        return _repeated(layer, name, repeated, axes, default)
    both = f"{pair[0]} and {pair[1]}"
    if repeated:
        raise layer.error(f"convolution_param.{name} or {both}", "both", f"Give {name} alone.")
    if axes != 2:
        raise layer.error(
            f"{both} only with 2 spatial axes", f"{axes} spatial axes",
            f"Give {name} once, or once for each axis.",
        )  # fmt: skip
    if len(given) < 2 and default != 0:
        raise layer.error(f"both {both} in convolution_param", f"{given[0]} alone")
    return tuple(getattr(p, n) for n in pair)


def _repeated(layer, name, values, axes, default):
    if not values and default is not None:
        return (default,) * axes
    if len(values) == axes:
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * axes
    raise layer.error(
        f"convolution_param.{name} once, or once for each of {axes} spatial axes",
        f"{len(values)} values" if values else f"no {name}",
        "The spatial axes are those after convolution_param.axis.",
    )


def conv_geometry(layer, batch, channels, num_output, size, window, group=1, transposed=False):
    """The geometry of a convolution over images of `size`, or an error if its top were empty.

    With `transposed`, it is that of the deconvolution: `size`, `channels` and `num_output` are
    those of the deconvolution's bottom and top.
    """
    output_size = deconv_size if transposed else conv_size
    out = tuple(map(output_size, size, *window))
    for axis, count in enumerate(out):
        if count < 1 or size[axis] < 1:
            kernel, _, pad, dilation = (w[axis] for w in window)
            raise layer.error(
                f"a top of at least 1 along spatial axis {axis}",
                f"{size[axis]} elements in the bottom, pad {pad} and a window of "
                f"{window_extent(kernel, dilation)}: the output would be empty",
                "Enlarge the bottom, or change kernel, pad or dilation.",
            )  # fmt: skip
    if transposed:
        channels, num_output, size, out = num_output, channels, out, size
    return ConvGeometry(batch, channels, num_output, size, out, *window, group)
