"""The normalization of bounding-box targets, and what it means for weights that are saved.

The net learns targets t' = (t - mean) / std, one mean and std for each class and coordinate
(`roidb.BoxStatistics`). What is saved predicts t itself: the normalization is folded into the layer
that predicts the boxes (bbox_pred), whose prediction W x + b becomes (std W) x + (std b + mean)
(py-faster-rcnn: SolverWrapper.snapshot).
"""

import contextlib

import numpy as np

from ..engine.errors import NetError
from .roidb import BoxStatistics
from .roles import find_roles, parameter_count


def layer_of(net_param, statistics):
    """The name of the layer that predicts normalized boxes, or None where nothing is normalized.

    Args:
        net_param: the NetParameter of a training net, without layers of other stages.
        statistics: BoxStatistics, or None for a net that predicts no classes' boxes.

    Raises: NetError if there is not one such layer, with biases where the means are not 0.
    """
    if statistics is None or ((statistics.means == 0).all() and (statistics.stds == 1).all()):
        return None
    layers = find_roles(net_param).bbox_pred
    needed = 1 + statistics.means.any()
    if len(layers) == 1 and parameter_count(layers[0]) >= needed:
        return layers[0].name
    found = " and ".join(layer.name for layer in layers) or "none"
    if len(layers) == 1:
        found += " without biases"
    raise NetError(
        f"net {net_param.name!r}", "one layer that predicts the boxes, whose targets are "
        "normalized, so that its saved weights can be brought back", found,
        "Call it bbox_pred, or set TRAIN.BBOX_NORMALIZE_TARGETS to False.",
    )  # fmt: skip


@contextlib.contextmanager
def folded(net, statistics, layer):
    """While the context lasts, a net's `layer` (of `layer_of`) predicts targets that are not
    normalized.

    Afterwards its parameters are what they were, bit by bit. With None nothing changes.
    """
    blobs = [] if layer is None else list(net.params[layer])
    before = [blob.data.copy() for blob in blobs]
    for blob, values in zip(blobs, fold(before, statistics)):
        blob.data[...] = values
    try:
        yield
    finally:
        for blob, values in zip(blobs, before):
            blob.data[...] = values


def fold(parameters, statistics):
    """Folded copies of [weights (4 num_classes, ...), biases (4 num_classes,)], or of []."""
    return [
        (p.T * statistics.stds.ravel()).T + (statistics.means.ravel() if k else 0)
        for k, p in enumerate(parameters)
    ]


def unfold(net, statistics, layer):
    """Have a net's `layer` (of `layer_of`), just loaded from a file, predict normalized targets."""
    means, stds = statistics.means.ravel(), statistics.stds.ravel()
    for k, blob in enumerate(net.params[layer]):
        blob.data[...] = ((blob.data - (means if k else 0)).T / stds).T


def given(settings, num_classes):
    """The BoxStatistics by which the layer ProposalTarget normalizes, alike for all classes."""
    means, stds = (0.0,) * 4, (1.0,) * 4
    if settings.BBOX_NORMALIZE_TARGETS_PRECOMPUTED:
        means, stds = settings.BBOX_NORMALIZE_MEANS, settings.BBOX_NORMALIZE_STDS
    return BoxStatistics(*(np.tile(np.asarray(r, float), (num_classes, 1)) for r in (means, stds)))
