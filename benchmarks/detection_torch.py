"""A detector in PyTorch: the layers that torch_net.py does not know, and the sum of the losses."""

import torch
import torch.nn.functional as F
import torch_net
from torch_net import TorchNet


class DetectorNet(TorchNet):
    """The computed layers of a Faster R-CNN; layers with `lr_mult: 0` have no gradients."""

    def __init__(self, param, arrays, training, channels_last):
        super().__init__(param, arrays, training, training, channels_last)
        rates = {layer.name: [spec.lr_mult for spec in layer.param] for layer in param.layer}
        for (name, k), weight in zip(self.names, self.weights):
            if k < len(rates[name]) and not rates[name][k]:
                weight.requires_grad_(False)

    def groups(self, param, rate, decay):
        """Parameter groups for an optimizer, by Caffe's lr_mult and decay_mult."""
        specs = {layer.name: layer.param for layer in param.layer}
        groups = {}
        for (name, k), weight in zip(self.names, self.weights):
            if weight.requires_grad:
                spec = specs[name][k] if k < len(specs[name]) else None
                key = (spec.lr_mult, spec.decay_mult) if spec else (1, 1)
                groups.setdefault(key, []).append(weight)
        return [
            {"params": weights, "lr": rate * r, "weight_decay": decay * d}
            for (r, d), weights in groups.items()
        ]

    def losses(self, **blobs):
        """The weighted sum of the losses, and each of them by name."""
        blobs = self.run(**blobs)
        weights = {step.tops[0]: step.weight for step in self.steps if step.weight}
        parts = {name: blobs[name] for name in weights}
        return sum(weights[name] * part for name, part in parts.items()), parts


class RoiPool(torch.autograd.Function):
    """Maxima over bins of regions of one image.

    adaptive_max_pool2d has Caffe's bins. A function of its own adds all regions' gradients into one
    array; autograd would make one of the features' size for each region.
    """

    @staticmethod
    def forward(ctx, features, rois, scale, pooled):
        channels, height, width = features.shape[1:]
        # A region may end one past the last feature. What is there counts for nothing after ReLU.
        padded = F.pad(features[0], (0, 1, 0, 1))
        corners = torch.floor(rois[:, 1:] * scale + 0.5).long().tolist()
        out = features.new_empty(len(rois), channels, *pooled)
        index = torch.empty(out.shape, dtype=torch.long)
        for r, (x1, y1, x2, y2) in enumerate(corners):
            window = padded[:, y1 : y2 + 1, x1 : x2 + 1]
            out[r], place = F.adaptive_max_pool2d(window, pooled, return_indices=True)
            columns = window.shape[2]
            index[r] = (place // columns + y1) * (width + 1) + place % columns + x1
        ctx.save_for_backward(index)
        ctx.shape = channels, height, width
        return out

    @staticmethod
    def backward(ctx, gradient):
        (index,) = ctx.saved_tensors
        channels, height, width = ctx.shape
        found = gradient.new_zeros(channels, (height + 1) * (width + 1))
        by_channel = (t.transpose(0, 1).reshape(channels, -1) for t in (index, gradient))
        found.scatter_add_(1, *by_channel)
        found = found.view(1, channels, height + 1, width + 1)
        return found[:, :, :height, :width], None, None, None


def roi_pooling(layer, parameters, training):
    p = layer.roi_pooling_param
    pooled = (p.pooled_h, p.pooled_w)
    return lambda x, rois: RoiPool.apply(x, rois, p.spatial_scale, pooled)


def reshape(layer, parameters, training):
    dims = list(layer.reshape_param.shape.dim)
    return lambda x: x.reshape([d or x.shape[k] for k, d in enumerate(dims)])


def smooth_l1_loss(layer, parameters, training):
    squared = layer.smooth_l1_loss_param.sigma**2

    def loss(prediction, target, inside, outside):
        d = (prediction - target) * inside
        values = F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none", beta=1 / squared)
        return (values * outside).sum() / len(prediction)

    return loss


def softmax_loss(layer, parameters, training):
    p = layer.loss_param
    ignored = p.ignore_label if p.HasField("ignore_label") else -100

    def loss(scores, labels):
        shape = (len(scores), *scores.shape[2:])
        return F.cross_entropy(scores, labels.reshape(shape).long(), ignore_index=ignored)

    return loss


torch_net.MAKERS.update(
    Reshape=reshape, ROIPooling=roi_pooling, SmoothL1Loss=smooth_l1_loss,
    SoftmaxWithLoss=softmax_loss,
)  # fmt: skip
