"""A Caffe net in PyTorch: the same layers, computed by torch.nn.functional.

    model = TorchNet(net_parameter, arrays)

It knows the layer types of torch_layers.py; any other is an error.
"""

import torch
from torch import nn
from torch_layers import MAKERS, batch_norm

from demitasse.engine.proto import caffe_pb2


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
    Blobs are dropped after their last use, except those in `keep`. Parameters with `lr_mult: 0`
    have no gradients.
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
        self.steps = []
        self.names, self.multipliers = [], []  # a weight's (layer, index), (lr_mult, decay_mult)
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
            spec = layer.param[k] if k < len(layer.param) else caffe_pb2.ParamSpec()
            learns = self.gradients and spec.lr_mult != 0
            tensors[k] = nn.Parameter(tensors[k], requires_grad=learns)
            self.weights.append(tensors[k])
            self.names.append((layer.name, k))
            self.multipliers.append((spec.lr_mult, spec.decay_mult))
        return tensors

    def parameter_groups(self, rate, decay):
        """Parameter groups for an optimizer, by Caffe's lr_mult and decay_mult."""
        groups = {}
        for multipliers, weight in zip(self.multipliers, self.weights):
            if weight.requires_grad:
                groups.setdefault(multipliers, []).append(weight)
        return [
            {"params": weights, "lr": rate * r, "weight_decay": decay * d}
            for (r, d), weights in groups.items()
        ]

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
        return self.losses(**blobs)[0]

    def losses(self, **blobs):
        """The weighted sum of the losses, and each of them by name."""
        blobs = self.run(**blobs)
        weights = {step.tops[0]: step.weight for step in self.steps if step.weight}
        losses = {name: blobs[name].sum() for name in weights}
        return sum(weights[name] * loss for name, loss in losses.items()), losses

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


def make(layer, parameters, training):
    """The function of a layer; ValueError if there is none for its type."""
    if layer.type not in MAKERS:
        raise ValueError(f"layer {layer.name!r}: no PyTorch form of type {layer.type!r}")
    return MAKERS[layer.type](layer, parameters, training)
