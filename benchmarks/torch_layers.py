"""Caffe's layer types in PyTorch: MAKERS has `make(layer, parameters, training)` of each type.

It returns a function of the bottoms. `layer` is a LayerParameter, `parameters` its tensors. Known
are the types and options of the networks in prototxt/; any other option is an error.
"""

import torch
import torch.nn.functional as F

from demitasse.engine.proto import caffe_pb2

POOL, LRN, ELTWISE = (
    getattr(caffe_pb2, f"{name}Parameter") for name in ("Pooling", "LRN", "Eltwise")
)


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
    p = layer.dropout_param
    ratio = p.dropout_ratio
    if p.scale_train:
        return lambda x: F.dropout(x, ratio, training)
    return lambda x: F.dropout(x, ratio, training) * (1 - ratio)  # scaled when tested instead


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
    p = layer.loss_param
    ignored = p.ignore_label if p.HasField("ignore_label") else -100

    def loss(scores, labels):
        # Scores (N, C, 1, 1) with labels (N,) have labels (N, 1, 1) for PyTorch.
        shape = (len(scores), *scores.shape[2:])
        return F.cross_entropy(scores, labels.reshape(shape).long(), ignore_index=ignored)

    return loss


# ---- of detectors


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
    "Reshape": reshape,
    "ROIPooling": roi_pooling,
    "SmoothL1Loss": smooth_l1_loss,
    "Softmax": softmax,
    "SoftmaxWithLoss": softmax_loss,
}
