"""Pooling: the maximum, the average or a random element of each window."""

from ..engine.kernels.geometry import PoolGeometry, pool_sizes
from ..engine.layer import Layer, register
from ..engine.phase import Phase
from ..engine.proto import caffe_pb2

MAX = caffe_pb2.PoolingParameter.MAX
AVE = caffe_pb2.PoolingParameter.AVE
STOCHASTIC = caffe_pb2.PoolingParameter.STOCHASTIC


class Pool:
    """Pooling over windows of one geometry, with what its backward pass needs.

    Attributes:
        geometry: a PoolGeometry, to be set before `forward`.
        argmax: int32 like y, the elements that MAX, or STOCHASTIC in training, last picked.
    """

    def __init__(self, device, method, training):
        self.device, self.method, self.training = device, method, training
        self.geometry = self.argmax = None

    def forward(self, x, y, random, keep=True):
        """Fill y (N, C, *out_size) from x (N, C, *in_size); `random()` gives a generator.

        With `keep` false, neither `backward` nor `argmax` is needed afterwards.
        """
        kernels, g = self.device.kernels.pooling, self.geometry
        if self.method == AVE:
            kernels.average_forward(x, g, y)
        elif self.method == MAX:
            kernels.max_forward(x, g, y, self._picks(y.shape) if keep else None)
        elif self.training:
            chance = self.device.to_device(1 - random().random(y.shape, y.dtype))  # in (0, 1]
            kernels.stochastic_forward(x, g, chance, y, self._picks(y.shape))
        else:
            kernels.expected_forward(x, g, y)

    def backward(self, x, y, dy, dx, with_relu=False):
        """Fill dx from dy, after `forward`; with MAX also the gradient of a ReLU that gave x."""
        kernels = self.device.kernels.pooling
        if self.method == AVE:
            kernels.average_backward(dy, self.geometry, dx)
        elif self.method == STOCHASTIC and not self.training:
            kernels.expected_backward(x, y, dy, self.geometry, dx)
        else:
            kernels.max_backward(dy, self.argmax, self.geometry, dx, y if with_relu else None)

    def _picks(self, shape):
        if self.argmax is None or self.argmax.shape != shape:
            self.argmax = self.device.xp.empty(shape, "int32")
        return self.argmax


@register("Pooling")
class Pooling(Layer):
    """(N, C, H, W) -> (N, C, PH, PW), the pool method over each window (Caffe: PoolingLayer).

    With MAX, a second top receives the index h * W + w of each maximum, -1 for none. STOCHASTIC
    draws an element with a probability proportional to its value in TRAIN, and takes the mean
    under these probabilities in TEST; unlike Caffe's it runs on the CPU too, and TEST has a
    gradient.
    """

    num_bottom = 1
    min_top, max_top = 1, 2
    in_place = False

    def setup(self, bottom, top):
        p = self.param.pooling_param
        if p.pool != MAX and len(top) > 1:
            raise self.error("one top, a second being for the mask of MAX", f"{len(top)} tops")
        self.pool = Pool(self.device, p.pool, self.phase == Phase.TRAIN)
        self.fuses_relu_gradient = p.pool == MAX
        self.ceil = p.round_mode == p.CEIL
        self.is_global = p.global_pooling
        if self.is_global:
            if any(p.HasField(n) for n in ("kernel_size", "kernel_h", "kernel_w")):
                raise self.error(
                    "no kernel size with global_pooling", "one", "The kernel is the whole image."
                )
            self.kernel = (1, 1)  # set by reshape
        else:
            self.kernel = self._pair("kernel_size", "kernel")
        self.stride, self.pad = self._pair("stride"), self._pair("pad")
        self._check_window()

    def _pair(self, name, prefix=None):
        # (height, width), given as one number for both or as two
        p = self.param.pooling_param
        pair = [f"{prefix or name}_h", f"{prefix or name}_w"]
        given = [n for n in pair if p.HasField(n)]
        if given and (len(given) < 2 or p.HasField(name)):
            raise self.error(
                f"pooling_param.{name}, or {pair[0]} and {pair[1]}",
                " and ".join(given + [name] * p.HasField(name)), "Give one or the other.",
            )  # fmt: skip
        if not given and name == "kernel_size" and not p.HasField(name):
            raise self.error(
                f"pooling_param.{name}, or {pair[0]} and {pair[1]}", "none",
                "Or set global_pooling: true.",
            )  # fmt: skip
        return tuple(getattr(p, n) for n in (given or (name, name)))

    def _check_window(self):
        if min(self.kernel) < 1 or min(self.stride) < 1:
            raise self.error(
                "pooling_param kernel and stride of at least 1",
                f"kernel {self.kernel}, stride {self.stride}",
            )  # fmt: skip
        if self.is_global and (any(self.pad) or self.stride != (1, 1)):
            raise self.error(
                "pad 0 and stride 1 with global_pooling", f"pad {self.pad}, stride {self.stride}"
            )
        check_pad(self, self.pool.method, self.kernel, self.pad)

    def reshape(self, bottom, top):
        shape = bottom[0].shape
        geometry = self.pool.geometry
        if geometry is None or shape[2:] != geometry.in_size or len(shape) != 4:
            if len(shape) != 4:
                raise self.error("a bottom (N, C, H, W)", f"shape {shape}")
            kernel = shape[2:] if self.is_global else self.kernel
            geometry = self.pool.geometry = pool_geometry(
                self, shape[2:], kernel, self.stride, self.pad, self.ceil
            )
        for t in top:
            t.reshape(*shape[:2], *geometry.out_size)

    def forward(self, bottom, top):
        keep = self.needs_backward or len(top) > 1
        self.pool.forward(bottom[0].array, top[0].array, self.random, keep)
        if len(top) > 1:
            top[1].array[...] = self.pool.argmax

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            self.pool.backward(bottom[0].array, top[0].array, top[0].grad, bottom[0].grad)

    def backward_relu(self, top, propagate_down, bottom):
        """`backward`, and that of the ReLU in place whose result the bottom is."""
        self.pool.backward(bottom[0].array, top[0].array, top[0].grad, bottom[0].grad, True)


def check_pad(layer, method, kernel, pad):
    """Raise the layer's error for padding that its pool method or kernel does not allow."""
    if method == STOCHASTIC and any(pad):
        raise layer.error("no padding with STOCHASTIC pooling", f"pad {pad}", "Use MAX or AVE.")
    if any(pad) and (pad[0] >= kernel[0] or pad[1] >= kernel[1]):
        raise layer.error(f"pad smaller than kernel {kernel}", f"pad {pad}")


def pool_geometry(layer, size, kernel, stride, pad, ceil):
    """The geometry of pooling over images of `size`, or the layer's error if its top were empty."""
    out = pool_sizes(size, kernel, stride, pad, ceil)
    if min(out) < 1 or min(size) < 1:
        raise layer.error(
            "an image at least as large as the pooling window",
            f"{size} with pad {pad} and kernel {kernel}: the output would be empty",
            "Enlarge the bottom, or reduce the kernel.",
        )  # fmt: skip
    return PoolGeometry(tuple(size), out, tuple(kernel), tuple(stride), tuple(pad))
