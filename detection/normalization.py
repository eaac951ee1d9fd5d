"""The normalization of bounding-box targets, and what it means for weights that are saved.

The net learns targets t' = (t - mean) / std, one mean and std for each class and coordinate
(`roidb.BoxStatistics`). What is saved predicts t itself: the normalization is folded into the layer
bbox_pred, whose prediction W x + b becomes (std W) x + (std b + mean) (py-faster-rcnn:
SolverWrapper.snapshot).
"""

import contextlib

import numpy as np

from .roidb import BoxStatistics

LAYER = "bbox_pred"


@contextlib.contextmanager
def folded(net, statistics):
    """While the context lasts, the net's bbox_pred predicts targets that are not normalized.

    Afterwards its parameters are what they were, bit by bit. A net without that layer, an RPN, is
    left alone, and so is any without `statistics` (None).
    """
    blobs = _parameters(net) if statistics is not None else []
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


def unfold(net, statistics):
    """Have a net's bbox_pred, just loaded from a file, predict normalized targets."""
    means, stds = statistics.means.ravel(), statistics.stds.ravel()
    for k, blob in enumerate(_parameters(net)):
        blob.data[...] = ((blob.data - (means if k else 0)).T / stds).T


def given(settings, num_classes):
    """The BoxStatistics by which the layer ProposalTarget normalizes, alike for all classes."""
    means, stds = (0.0,) * 4, (1.0,) * 4
    if settings.BBOX_NORMALIZE_TARGETS_PRECOMPUTED:
        means, stds = settings.BBOX_NORMALIZE_MEANS, settings.BBOX_NORMALIZE_STDS
    return BoxStatistics(*(np.tile(np.asarray(r, float), (num_classes, 1)) for r in (means, stds)))


def _parameters(net):
    return list(net.params[LAYER]) if LAYER in net.params else []
