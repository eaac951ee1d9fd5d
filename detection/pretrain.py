"""What a detector begins with that has no weights: convolutions that tell crops of objects apart.

From random weights a net as deep as VGG16 hardly starts to learn to detect. So it learns something
easier first: to classify crops, which batches are full of, with one score a class on the mean of
the features that its RoI pooling gives. Three things make that quick. The convolutions begin by
passing on what they get (`begin_as_shortcuts`). Earlier features are scored in the same way, which
teaches the first layers at once instead of through all the others. And the means are normalized
over the batch, because what tells crops apart is small beside what all of them have in common.
"""

import os

import numpy as np

from ..engine import weights as weight_files
from ..engine.errors import NetError
from ..engine.graph import filter_net
from ..engine.proto import caffe_pb2
from ..engine.random import RandomStream
from ..layers.prefetch import Prefetcher
from ..solvers import Solver
from . import finite
from .crops import CropBatches
from .cutting import below
from .progress import Progress

WEIGHTS = "pretrained.caffemodel"
_DEPTH = 4  # batches read ahead
_PATCH_STEP = 3  # pixels between patches that whitening is worked out from
_NOISE = 1e-3  # part of the largest variance that is added to all: what is less is taken for noise
_MIXED = 0.5  # of drawn weights beside the identity
_SCORE_RATE = 20  # learning rate of the scores, by that of the convolutions
_POOLED = 4  # features of a crop in each direction that are averaged
_INPUTS = {"data": (1, 3, 64, 64), "rois": (1, 5), "labels": (1,)}  # and shapes to begin with


def pretrain(net_param, dataset, cfg, folder, losses, net_folder=None, device=None):
    """Train the convolutions that a detector's regions stand on; returns the path of the weights.

    1. Weights are drawn and scaled on real crops, layer by layer (`begin_as_shortcuts`).
    2. Adam, whose learning rate falls to 0 linearly, minimizes the classification loss.

    Args:
        net_param: a NetParameter with a ROIPooling layer in its stage "fast_rcnn".
        dataset: a Dataset. cfg: its PRETRAIN, PIXEL_MEANS and RNG_SEED count.
        folder: where the weights go, as pretrained.caffemodel.
        losses: a LossLog.
        net_folder: of the definition. device: where to compute.

    Raises: NetError, DataError for a net or data that cannot be used; SolverError if it diverges.
    """
    settings = cfg.PRETRAIN
    net_param = crop_net(net_param, len(dataset.classes))
    batches = CropBatches(dataset, cfg, cfg.RNG_SEED, stride_of(net_param))
    prefetcher = Prefetcher(lambda: batches.load, _DEPTH)
    solver = Solver(_solver_param(net_param, cfg), net_folder, device, keep="minimal")
    solver.on_forward.append(finite.check_loss)
    progress = Progress("pretrain", settings.ITERS)
    try:
        for iteration in range(settings.ITERS):
            _feed(solver.net, *prefetcher.next())
            if iteration == 0:
                begin_as_shortcuts(solver.net)
            solver.step(1)
            shown = {"loss": solver.loss, **_accuracies(solver.net)}
            losses.add(solver.iter, shown)
            progress.update(solver.iter, shown, solver.lr, prefetcher.wait_seconds)
    finally:
        prefetcher.close()
        progress.close()
    path = os.path.join(folder, WEIGHTS)
    weight_files.save(solver.net, path)
    return path


def _feed(net, *batch):
    for name, values in zip(_INPUTS, batch):
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
    net.reshape()


def _accuracies(net):
    names = [name for name in net.blobs if name.endswith("accuracy")]
    return {name: float(net.blobs[name].data) for name in names}


def _solver_param(net_param, cfg):
    settings = cfg.PRETRAIN
    return caffe_pb2.SolverParameter(
        type="Adam", base_lr=settings.BASE_LR, momentum=0.9, momentum2=0.999, weight_decay=5e-4,
        lr_policy="poly", power=1, max_iter=settings.ITERS, snapshot_after_train=False,
        random_seed=int(RandomStream(cfg.RNG_SEED).generator("pretrain").integers(1 << 62)),
        net_param=net_param,
    )  # fmt: skip


# ---- the net


def crop_net(net_param, classes):
    """The NetParameter that scores crops: what the regions stand on, a mean, a score a class.

    Inputs: data (N, 3, H, W), rois (R, 5), labels (R,).

    Raises: NetError if no layer pools regions.
    """
    trained = caffe_pb2.NetState(phase=caffe_pb2.TRAIN, stage=["fast_rcnn"])
    layers = filter_net(net_param, trained).layer
    pooling = next((layer for layer in layers if layer.type == "ROIPooling"), None)
    if pooling is None:
        raise NetError(
            f"net {net_param.name!r}", 'a layer ROIPooling in its stage "fast_rcnn"', "none",
            "Without it there is nothing to pretrain: set PRETRAIN.ITERS to 0.",
        )  # fmt: skip
    net = caffe_pb2.NetParameter(name=f"{net_param.name}_crops")
    inputs = net.layer.add(name="crops", type="Input", top=_INPUTS)
    for shape in _INPUTS.values():
        inputs.input_param.shape.add(dim=shape)
    net.layer.extend(below([layer for layer in layers if layer.bottom], pooling.bottom[:1]))
    for layer in net.layer:
        del layer.include[:], layer.exclude[:]
        if layer.HasField("convolution_param"):
            layer.convolution_param.weight_filler.Clear()
            layer.convolution_param.weight_filler.type = "msra"
    for features, scale in _earlier(net.layer):
        _add_score(net, features, scale, classes, f"{features}_")
    _add_score(net, pooling.bottom[0], pooling.roi_pooling_param.spatial_scale, classes)
    return net


def stride_of(net_param):
    """Pixels of the image to one of the features that the last ROIPooling layer of a net pools."""
    pooling = [layer for layer in net_param.layer if layer.type == "ROIPooling"]
    return round(1 / pooling[-1].roi_pooling_param.spatial_scale)


def _earlier(layers):
    """(blob, its spatial scale) of the features that each pooling but the first begins with.

    Deep supervision: Lee et al., "Deeply-Supervised Nets", AISTATS 2015.
    """
    scales, found = {"data": 1.0}, []
    for layer in layers:
        if not layer.bottom:
            continue
        scale = scales[layer.bottom[0]]
        if layer.type == "Pooling":
            if scale < 1:
                found.append((layer.bottom[0], scale))
            scale /= layer.pooling_param.stride
        elif layer.type == "Convolution":
            scale /= (*layer.convolution_param.stride, 1)[0]
        scales.update(dict.fromkeys(layer.top, scale))
    return found


def _add_score(net, features, scale, classes, prefix=""):
    """Add layers that score crops on `features`, and the loss of it."""
    regions, mean, score = (f"{prefix}{name}" for name in ("crops", "crop_mean", "crop_score"))
    pool = net.layer.add(
        name=f"{prefix}roi_pool", type="ROIPooling", bottom=[features, "rois"], top=[regions]
    )
    pool.roi_pooling_param.pooled_h = pool.roi_pooling_param.pooled_w = _POOLED
    pool.roi_pooling_param.spatial_scale = scale
    average = net.layer.add(name=mean, type="Pooling", bottom=[regions], top=[mean])
    average.pooling_param.pool = caffe_pb2.PoolingParameter.AVE
    average.pooling_param.global_pooling = True
    normalized = f"{mean}_normalized"
    net.layer.add(name=normalized, type="BatchNorm", bottom=[mean], top=[normalized])
    scores = net.layer.add(name=score, type="InnerProduct", bottom=[normalized], top=[score])
    for _ in ("weights", "biases"):
        scores.param.add(lr_mult=_SCORE_RATE)
    scores.inner_product_param.num_output = classes
    scores.inner_product_param.weight_filler.type = "gaussian"
    scores.inner_product_param.weight_filler.std = 0.01
    for kind, top in (("SoftmaxWithLoss", "loss"), ("Accuracy", "accuracy")):
        name = f"{prefix}{top}"
        net.layer.add(name=name, type=kind, bottom=[score, "labels"], top=[name])


def begin_as_shortcuts(net):
    """Draw weights with which convolutions pass on their inputs, and some of what was drawn.

    Each is an identity (of channels repeated, where there are more outputs than inputs) plus
    `_MIXED` times the filler's weights, in units of the standard deviation of the outputs:
    Zagoruyko and Komodakis, "DiracNets: Training Very Deep Neural Networks Without
    Skip-Connections", 2017. What the first one finds in an image thus reaches all others at once.
    The first one's inputs are whitened before, or of its outputs colour would be nearly all.
    """
    begin = 0
    for i, node in enumerate(net.nodes):
        if node.layer.type_name != "Convolution":
            continue
        weight = node.layer.blobs[0].data
        axes = tuple(range(1, weight.ndim))
        if not begin:
            weight[...] = whitened(weight, node.bottoms[0].data)
        else:  # inputs are not negative: what is common to them would be most of a sum
            weight -= weight.mean(axis=axes, keepdims=True)
        net.forward(begin, i)
        weight /= np.expand_dims(_per_channel(node.tops[0].data), axes)
        if begin:
            _mix_with_identity(weight, _per_channel(node.bottoms[0].data))
        begin = i  # its outputs change, so it runs again with what follows


def _mix_with_identity(weight, input_std):
    """Make weights (K, C / groups, h, w), whose outputs vary by 1, pass on inputs (C,) besides."""
    outputs, group_size = np.arange(len(weight)), weight.shape[1]
    groups = len(input_std) // group_size
    within = outputs % group_size
    inputs = outputs * groups // len(weight) * group_size + within
    weight *= np.expand_dims(_MIXED * input_std[inputs], (1, 2, 3))
    weight[outputs, within, weight.shape[2] // 2, weight.shape[3] // 2] += 1
    weight /= np.hypot(1, _MIXED)


def pass_on_means(net, names):
    """Let hidden InnerProduct layers pass on their inputs' means, beside what the filler drew.

    Unit k gets the mean over all positions of channel k, and from the first channel again if there
    are more units. So what pretraining found reaches the scores above from the first iteration.

    Args: names: of the layers to change, if they are InnerProduct layers with a ReLU behind.
    """
    hidden = {node.bottoms[0] for node in net.nodes if node.type == "ReLU"}
    for node in net.nodes:
        of_means = node.type == "InnerProduct" and not node.layer.transpose
        if of_means and node.name in names and node.tops[0] in hidden:
            weight = node.layer.blobs[0].data
            channels = node.bottoms[0].shape[1]
            weight -= weight.mean(axis=1, keepdims=True)  # as of convolutions, above
            by_channel = weight.reshape(len(weight), channels, -1)
            units = np.arange(len(weight))
            by_channel[units, units % channels] += 1 / by_channel.shape[2]


def _per_channel(values):
    """Standard deviations (C,) of (N, C, H, W), 1 for those that are 0."""
    std = values.std(axis=(0, 2, 3))
    std[std == 0] = 1
    return std


def whitened(weight, images):
    """Weights (K, C, h, w) that do to patches of `images` what `weight` does to whitened ones.

    Whitening makes all directions in the space of patches equally likely. Neighbouring pixels are
    alike, so that without it what tells a texture from another is but a small part of a patch.
    """
    channels, *kernel = weight.shape[1:]
    patches = np.lib.stride_tricks.sliding_window_view(images[:, :channels], kernel, axis=(2, 3))
    patches = patches[:, :, ::_PATCH_STEP, ::_PATCH_STEP].transpose(0, 2, 3, 1, 4, 5)
    patches = patches.reshape(-1, weight[0].size).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    scale = 1 / np.sqrt(values + _NOISE * values[-1])
    whitening = (vectors * scale) @ vectors.T
    return (weight.reshape(len(weight), -1) @ whitening).reshape(weight.shape)
