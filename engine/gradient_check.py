"""Compare a layer's backward pass with central differences of its forward pass.

Made for tests of layers, the built-in ones and a user's own:

    check_gradients('type: "ReLU" relu_param { negative_slope: 0.1 }', [x], kinks=0)
"""

import numpy as np

from .blob import Blob
from .context import Context
from .device import CPU
from .layer import layer_class
from .proto import caffe_pb2
from .prototxt import parse_text


class GradientError(AssertionError):
    """A gradient that differs from the numerical one; names the layer, blob and index."""


def make_layer(
    text, bottoms, phase=caffe_pb2.TRAIN, dtype=np.float64, seed=1, num_tops=None, in_place=False,
    device=CPU,
):  # fmt: skip
    """A layer alone, set up and shaped on the given arrays: `(layer, bottom blobs, top blobs)`.

    Args:
        text: the inside of `layer { ... }`; name, bottoms and tops may be left out.
        bottoms: arrays for the bottom blobs.
        num_tops: how many tops; by default those named in `text`, else what the layer requires.
        in_place: whether the first top is the first bottom.
        device: where it computes.
    """
    param = parse_text(text, caffe_pb2.LayerParameter, "layer")
    param.phase = phase if not param.HasField("phase") else param.phase
    param.name = param.name or "layer"
    cls = layer_class(param.type)
    layer = cls.create(param, Context(seed), device, np.dtype(dtype))
    bottom = []
    for values in bottoms:
        blob = Blob(np.shape(values), dtype, device)
        blob.set_data(values)
        bottom.append(blob)
    if num_tops is None:
        required = layer.num_top or layer.min_top or (len(bottom) if layer.equal_counts else 1)
        num_tops = len(param.top) or (0 if layer.num_top == 0 else required)
    top = [Blob((0,), dtype, device) for _ in range(num_tops)]
    if in_place:
        top[0] = bottom[0]
    layer.setup(bottom, top)
    layer.reshape(bottom, top)
    layer.param_propagate_down[:] = [True] * len(layer.blobs)
    return layer, bottom, top


def check_gradients(
    text, bottoms, *, params=None, check_bottoms=None, check_tops=None, phase=caffe_pb2.TRAIN,
    check_params=None, num_tops=None, in_place=False, kinks=None, kink_range=1e-3, step=1e-5,
    tolerance=1e-6, seed=1,
):  # fmt: skip
    """Check every element of every bottom and parameter gradient of a layer, in float64.

    The objective is the sum of the tops, each element weighted at random. The bottoms' gradients
    are filled with garbage beforehand (a layer must assign them), the parameters' with ones (a
    layer must add to them).

    Args:
        text, bottoms, phase, num_tops, in_place, seed: as in `make_layer`.
        params: arrays to overwrite the parameters with; the layer's own fillers' otherwise.
        check_bottoms: indices of the bottoms to differentiate by; all by default.
        check_tops: indices of the tops that are differentiable; all by default.
        check_params: indices of the parameters to differentiate by; all by default.
        kinks: a value, or several, at which the function has a kink; bottom elements within
            `kink_range` of one are passed over.
        step: of the central differences. tolerance: allowed error relative to
            max(1, |analytic|, |numeric|).

    Raises:
        GradientError: at the first element that differs.
    """
    layer, bottom, top = make_layer(text, bottoms, phase, np.float64, seed, num_tops, in_place)
    for blob, values in zip(layer.blobs, params or []):
        blob.set_data(values)
    rng = np.random.default_rng(seed)
    which = range(len(bottom)) if check_bottoms is None else check_bottoms
    tops = range(len(top)) if check_tops is None else check_tops
    propagate = [j in which for j in range(len(bottom))]

    given = bottom[0].array.copy() if in_place else None
    layer.reshape(bottom, top)  # as a net does before every pass
    layer.forward(bottom, top)
    weights = {t: rng.uniform(0.5, 1.5, top[t].shape) * rng.choice([-1, 1]) for t in tops}
    for j in which:
        bottom[j].grad[...] = np.nan
    for t, blob in enumerate(top):
        blob.grad[...] = weights.get(t, 0)
    for blob in layer.blobs:
        blob.grad[...] = 1
    layer.backward(top, propagate, bottom)
    analytic = [(f"bottom {j}", bottom[j], bottom[j].grad.copy()) for j in which]
    analytic += [
        (f"parameter {k}", b, b.grad - 1)
        for k, b in enumerate(layer.blobs)
        if check_params is None or k in check_params
    ]
    if in_place:
        bottom[0].array[...] = given

    def objective():
        given = bottom[0].array.copy() if in_place else None
        layer.reshape(bottom, top)
        layer.forward(bottom, top)
        value = sum(float((weights[t] * top[t].array).sum()) for t in tops)
        if in_place:
            bottom[0].array[...] = given
        return value

    for name, blob, grad in analytic:
        skip = _near(blob.array, kinks, kink_range) if name.startswith("bottom") else None
        _compare(layer, name, blob, grad, objective, skip, step, tolerance)


def _near(values, kinks, reach):
    if kinks is None:
        return None
    return np.any([np.abs(values - k) < reach for k in np.atleast_1d(kinks)], axis=0)


def _compare(layer, name, blob, grad, objective, skip, step, tolerance):
    values = blob.array
    for index in np.ndindex(*values.shape):
        if skip is not None and skip[index]:
            continue
        x = values[index]
        values[index] = x + step
        above = objective()
        values[index] = x - step
        below = objective()
        values[index] = x
        numeric = (above - below) / (2 * step)
        scale = max(1.0, abs(numeric), abs(grad[index]))
        # A NaN must fail, hence the negated comparison.
        if not abs(numeric - grad[index]) <= tolerance * scale:
            raise GradientError(
                f"{layer.type} {name}{list(index)}: backward gives {grad[index]:.9g}, "
                f"central differences {numeric:.9g}"
            )
