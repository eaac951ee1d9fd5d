"""A Caffe net in PyTorch: the same layers, computed by torch.nn.functional.

    model = TorchNet(net_parameter, arrays)

It knows the layer types of the networks in prototxt/; any other type or option is an error.
"""

import torch
import torch.nn.functional as F
from torch import nn

from demitasse.engine.proto import caffe_pb2

POOL, LRN, ELTWISE = (
    getattr(caffe_pb2, f"{name}Parameter") for name in ("Pooling", "LRN", "Eltwise")
)


class Step:
    """One layer: `tops = function(*bottoms)`, and the blobs that nobody needs afterwards."""

    def __init__(self, function, layer):
        self.function = function
        self.bottoms, self.tops = list(layer.bottom), list(layer.top)
        self.weight = loss_weight(layer)
        self.unneeded = []


class TorchNet(nn.Module):
    """The layers of a NetParameter (filtered by phase, Input layers apart) as one module.

    BatchNorm followed by Scale becomes one `batch_norm`, as a PyTorch program would write it.
    Blobs are dropped after their last use, except those in `keep`.
    """

    def __init__(
        self, net, arrays, training=False, gradients=False, channels_last=False, keep=(),
        device="cpu",
    ):  # fmt: skip
        """Translate a net.

        Args:
            net: a NetParameter.
            arrays: layer name -> its parameters as NumPy arrays; the memory is shared.
            training: whether Dropout and BatchNorm do what they do in TRAIN.
            gradients: whether the weights shall have gradients.
            channels_last: lay out 4-D weights so.
            keep: names of blobs that `run` returns beside the outputs.
            device: where to compute.
        """
        super().__init__()
        self.gradients, self.device = gradients, device
        self.weights = nn.ParameterList()
        self.names, self.steps = [], []
        layers = [x for x in net.layer if x.type != "Input"]
        while layers:
            layer = layers.pop(0)
            parameters = self._weights_of(layer, arrays, channels_last)
            if layer.type == "BatchNorm" and layers and follows(layers[0], layer):
                scale = layers.pop(0)
                gamma_beta = self._weights_of(scale, arrays, channels_last)
                function = batch_norm(layer, parameters, training, *gamma_beta)
                layer = merged(layer, scale)
            else:
                function = make(layer, parameters, training)
            self.steps.append(Step(function, layer))
        self._plan(set(keep))

    def _weights_of(self, layer, arrays, channels_last):
        tensors = [torch.from_numpy(a).to(self.device) for a in arrays.get(layer.name, ())]
        if layer.type == "BatchNorm":
            return tensors
        for k, tensor in enumerate(tensors):
            if channels_last and tensor.ndim == 4:
                tensors[k] = tensor.contiguous(memory_format=torch.channels_last)
            tensors[k] = nn.Parameter(tensors[k], requires_grad=self.gradients)
            self.weights.append(tensors[k])
            self.names.append((layer.name, k))
        return tensors

    def _plan(self, keep):
        last = {}
        for i, step in enumerate(self.steps):
            last.update(dict.fromkeys(step.bottoms, i))
        for name, i in last.items():
            if name not in keep and name not in self.steps[i].tops:
                self.steps[i].unneeded.append(name)

    def run(self, **blobs):
        """All blobs that are left at the end, from the values of the input blobs."""
        for step in self.steps:
            result = step.function(*(blobs[b] for b in step.bottoms))
            blobs[step.tops[0]] = result
            for name in step.unneeded:
                del blobs[name]
        return blobs

    def loss(self, **blobs):
        """The weighted sum of the losses."""
        blobs = self.run(**blobs)
        return sum(step.weight * blobs[step.tops[0]].sum() for step in self.steps if step.weight)

    def forward(self, data):
        """The last layer's top, of the input blob `data`."""
        return self.run(data=data)[self.steps[-1].tops[0]]


def follows(scale, norm):
    """Whether `scale` is a Scale layer that does to `norm`'s top what batch_norm can do too."""
    return (
        scale.type == "Scale"
        and list(scale.bottom) == list(norm.top)
        and scale.scale_param.bias_term
        and scale.scale_param.axis == 1
    )


def merged(first, second):
    """A LayerParameter with the first's bottoms and the second's tops."""
    layer = caffe_pb2.LayerParameter(name=first.name, type=first.type)
    layer.bottom.extend(first.bottom)
    layer.top.extend(second.top)
    return layer


def loss_weight(layer):
    """The weight of a layer's (one) top in the loss."""
    if layer.loss_weight:
        return layer.loss_weight[0]
    return 1.0 if layer.type.endswith("Loss") else 0.0


# ---- layer types: make(layer, parameters, training) -> function of the bottoms


def make(layer, parameters, training):
    """The function of a layer; ValueError if there is none for its type."""
    if layer.type not in MAKERS:
        raise ValueError(f"layer {layer.name!r}: no PyTorch form of type {layer.type!r}")
    return MAKERS[layer.type](layer, parameters, training)


def pair(values, h, w, default):
    """Height and width of a repeated field or of its _h and _w forms."""
    if h or w:
        return h, w
    values = list(values) or [default]
    return tuple(values * 2 if len(values) == 1 else values)


def convolution(layer, parameters, training):
    p = layer.convolution_param
    stride = pair(p.stride, p.stride_h, p.stride_w, 1)
    pad = pair(p.pad, p.pad_h, p.pad_w, 0)
    dilation = pair(p.dilation, 0, 0, 1)
    weight, bias = (*parameters, None)[:2]
    return lambda x: F.conv2d(x, weight, bias, stride, pad, dilation, p.group)


def pooling(layer, parameters, training):
    p = layer.pooling_param
    if p.global_pooling:
        method = {POOL.MAX: F.adaptive_max_pool2d, POOL.AVE: F.adaptive_avg_pool2d}[p.pool]
        return lambda x: method(x, 1)
    kernel = pair([p.kernel_size] if p.kernel_size else [], p.kernel_h, p.kernel_w, 0)
    stride = pair([p.stride], p.stride_h, p.stride_w, 1)
    pad = pair([p.pad], p.pad_h, p.pad_w, 0)
    if any(s > k and not q for s, k, q in zip(stride, kernel, pad)):
        raise ValueError(f"layer {layer.name!r}: Caffe and PyTorch round its size differently")
    method = {POOL.MAX: F.max_pool2d, POOL.AVE: F.avg_pool2d}[p.pool]
    return lambda x: method(x, kernel, stride, pad, ceil_mode=True)


def lrn(layer, parameters, training):
    p = layer.lrn_param
    if p.norm_region == LRN.ACROSS_CHANNELS:
        return lambda x: F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)

    def within(x):
        mean = F.avg_pool2d(x * x, p.local_size, 1, p.local_size // 2)
        return x * (1 + p.alpha * mean) ** -p.beta

    return within


def relu(layer, parameters, training):
    slope = layer.relu_param.negative_slope
    in_place = list(layer.bottom) == list(layer.top)
    if slope:
        return lambda x: F.leaky_relu(x, slope, in_place)
    return lambda x: F.relu(x, in_place)


def inner_product(layer, parameters, training):
    weight, bias = (*parameters, None)[:2]
    return lambda x: F.linear(x.flatten(layer.inner_product_param.axis), weight, bias)


def dropout(layer, parameters, training):
    ratio = layer.dropout_param.dropout_ratio
    return lambda x: F.dropout(x, ratio, training)


def batch_norm(layer, parameters, training, gamma=None, beta=None):
    p = layer.batch_norm_param
    mean, variance, weight = parameters
    factor = float(weight[0])
    mean, variance = mean / factor, variance / factor
    stored = p.use_global_stats if p.HasField("use_global_stats") else not training
    return lambda x: F.batch_norm(
        x, mean, variance, gamma, beta, not stored, 1 - p.moving_average_fraction, p.eps
    )


def eltwise(layer, parameters, training):
    p = layer.eltwise_param
    if p.operation != ELTWISE.SUM or any(c != 1 for c in p.coeff) or len(layer.bottom) != 2:
        raise ValueError(f"layer {layer.name!r}: no PyTorch form but for the sum of two blobs")
    return torch.add


def concat(layer, parameters, training):
    return lambda *xs: torch.cat(xs, layer.concat_param.axis)


def softmax(layer, parameters, training):
    return lambda x: F.softmax(x, layer.softmax_param.axis)


def softmax_loss(layer, parameters, training):
    # Scores (N, C, 1, 1) with labels (N,) are scores (N, C).
    return lambda x, label: F.cross_entropy(x.flatten(1) if label.ndim == 1 else x, label)


MAKERS = {
    "BatchNorm": batch_norm,
    "Concat": concat,
    "Convolution": convolution,
    "Dropout": dropout,
    "Eltwise": eltwise,
    "InnerProduct": inner_product,
    "LRN": lrn,
    "Pooling": pooling,
    "ReLU": relu,
    "Softmax": softmax,
    "SoftmaxWithLoss": softmax_loss,
}
