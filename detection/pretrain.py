"""What a detector begins with that has no weights: convolutions that tell crops of objects apart.

From random weights a net as deep as VGG16 hardly starts to learn to detect. So it learns something
easier first: to classify crops, which batches are full of, with one score a class on the mean of
the features that its RoI pooling gives, and to say where in its crop an object is. Three things
make that quick. The convolutions begin by passing on what they get (initialization.py). Earlier
features are scored in the same way, which teaches the first layers at once instead of through all
the others. And the means are normalized over the batch, because what tells crops apart is small
beside what all of them have in common.
"""

import contextlib
import os

from ..engine import weights as weight_files
from ..engine.errors import NetError
from ..engine.graph import filter_net
from ..engine.proto import caffe_pb2
from ..engine.random import RandomStream
from ..layers.prefetch import Prefetcher
from ..solvers import Solver
from .crops import CropBatches
from .cutting import below
from .initialization import begin_as_shortcuts
from .progress import Progress
from .recorder import Recorder
from .train import Interrupted, stoppable

WEIGHTS = "pretrained.caffemodel"
_DEPTH = 4  # batches read ahead
_SCORE_RATE = 20  # learning rate of the scores, by that of the convolutions
_POOLED = 4  # features of a crop in each direction that are averaged
_BOX_WEIGHT = 2  # of the loss of boxes
# And shapes to begin with.
_INPUTS = {
    "data": (1, 3, 64, 64), "rois": (1, 5), "labels": (1,), "boxes": (1, 4), "box_weights": (1, 4),
}  # fmt: skip


def pretrain(net_param, dataset, cfg, folder, losses, snapshots, net_folder=None, device=None):
    """Train the convolutions that a detector's regions stand on; returns the path of the weights.

    1. Weights are drawn and scaled on real crops, layer by layer (`begin_as_shortcuts`).
    2. Adam, whose learning rate falls to 0 linearly, minimizes the classification loss.

    It goes on from the last snapshot if there is one.

    Args:
        net_param: a NetParameter with a ROIPooling layer in its stage "fast_rcnn".
        dataset: a Dataset. cfg: its PRETRAIN, PIXEL_MEANS and RNG_SEED count.
        folder: where the weights go, as pretrained.caffemodel.
        losses: a LossLog, begun at the iteration of the last snapshot.
        snapshots: `Snapshots`, prepared.
        net_folder: of the definition. device: where to compute.

    Raises: NetError, DataError for a net or data that cannot be used; SolverError if it diverges;
        Interrupted: Ctrl-C; there is a snapshot.
    """
    settings = cfg.PRETRAIN
    net_param = crop_net(net_param, len(dataset.classes))
    batches = CropBatches(dataset, cfg, cfg.RNG_SEED, stride_of(net_param))
    prefetcher = Prefetcher(lambda: batches.load, _DEPTH)
    param = _solver_param(net_param, cfg, snapshots.prefix)
    solver = Solver(param, net_folder, device, keep="minimal")
    snapshots.restore(solver)
    prefetcher.seek(solver.iter)
    progress = Progress("pretrain", settings.ITERS, solver.iter)
    with contextlib.ExitStack() as stack:
        stack.callback(prefetcher.close)
        stack.callback(progress.close)
        stack.enter_context(stoppable(solver))
        recorder = Recorder(
            solver, losses, progress, (snapshots.every,), _accuracies(solver.net), [prefetcher]
        )
        stack.callback(recorder.flush)
        solver.on_forward.append(recorder.after_forward)
        solver.on_progress.append(recorder.after_iteration)
        for iteration in range(solver.iter, settings.ITERS):
            _feed(solver.net, *prefetcher.next())
            if iteration == 0:
                begin_as_shortcuts(solver.net)
            solver.step(1)
            snapshots.after_iteration(solver)
            if solver.stopped:
                snapshots.write(solver)
                raise Interrupted.at("pretrain", solver)
    path = os.path.join(folder, WEIGHTS)
    weight_files.save(solver.net, path)
    snapshots.remove()
    return path


def _feed(net, *batch):
    for name, values in zip(_INPUTS, batch):
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].set_data(values)
    net.reshape()


def _accuracies(net):
    return [name for name in net.blobs if name.endswith("accuracy")]


def _solver_param(net_param, cfg, snapshot_prefix):
    settings = cfg.PRETRAIN
    return caffe_pb2.SolverParameter(
        type="Adam", base_lr=settings.BASE_LR, momentum=0.9, momentum2=0.999, weight_decay=5e-4,
        lr_policy="poly", power=1, max_iter=settings.ITERS, snapshot_after_train=False,
        random_seed=int(RandomStream(cfg.RNG_SEED).generator("pretrain").integers(1 << 62)),
        net_param=net_param, snapshot_prefix=snapshot_prefix,
    )  # fmt: skip


# ---- the net


def crop_net(net_param, classes):
    """The NetParameter that scores crops: what the regions stand on, a mean, a score a class.

    Inputs: as of `CropBatches.load`.

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
    _add_boxes(net)
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


def _add_boxes(net):
    """Add layers that say where in its crop an object is, and the loss of it."""
    net.layer.add(name="crops_normalized", type="BatchNorm", bottom=["crops"], top=["normalized"])
    boxes = net.layer.add(
        name="box_pred", type="InnerProduct", bottom=["normalized"], top=["box_pred"]
    )
    boxes.inner_product_param.num_output = 4
    boxes.inner_product_param.weight_filler.type = "gaussian"
    boxes.inner_product_param.weight_filler.std = 0.001
    net.layer.add(
        name="box_loss", type="SmoothL1Loss", top=["box_loss"], loss_weight=[_BOX_WEIGHT],
        bottom=["box_pred", "boxes", "box_weights", "box_weights"],
    )  # fmt: skip
