"""What the loss layers share: labels, ignored ones, and what a sum of losses is divided by."""

import numpy as np

from ..engine.layer import Layer
from ..engine.proto import caffe_pb2
from .softmax import softmax

FULL, VALID, BATCH_SIZE, NONE = (
    caffe_pb2.LossParameter.NormalizationMode.Value(name)
    for name in ("FULL", "VALID", "BATCH_SIZE", "NONE")
)


def normalization(loss_param, default):
    """The normalization mode that a LossParameter asks for.

    `normalization` counts before the legacy `normalize`, where true means VALID and false
    BATCH_SIZE; `default` is the layer's when neither is given.
    """
    if loss_param.HasField("normalization"):
        return loss_param.normalization
    if loss_param.HasField("normalize"):
        return VALID if loss_param.normalize else BATCH_SIZE
    return default


def divisor(mode, batch, full, valid):
    """What to divide a summed loss by, at least 1.

    Args:
        mode: FULL, VALID, BATCH_SIZE or NONE. batch: items in the batch. full: all predictions.
        valid: predictions whose label is not ignored.
    """
    return max(1, {FULL: full, VALID: valid, BATCH_SIZE: batch, NONE: 1}[mode])


def divisor_of(layer, mode, batch, full, ignored):
    """`divisor` of which `ignored`, booleans or None, says what counts; it stays on the device."""
    if mode == VALID and ignored is not None and not layer.device.is_host:
        return layer.device.xp.maximum(full - ignored.sum(), 1).astype(layer.dtype)
    valid = full - int(ignored.sum()) if mode == VALID and ignored is not None else full
    return divisor(mode, batch, full, valid)


def ignore_label(param):
    """The label to pass over, of a parameter message that may have one; None without."""
    return param.ignore_label if param.HasField("ignore_label") else None


def class_indices(layer, labels, classes, ignored_label=None):
    """Labels, stored as floats, as indices of classes.

    Fractions are cut off, as Caffe does, which also decides what equals `ignored_label`.

    Args:
        layer: which layer asks, for errors.
        labels: array of any shape. classes: their number. ignored_label: a label that may be
            anything, or None.

    Returns:
        `(indices, ignored)`: integers of the labels' shape, 0 where ignored, and a boolean array
        of the ignored ones, or None if there can be none (on the CPU: if there are none).

    Raises:
        LayerError: for a label outside 0 to classes - 1, NaN included.
    """
    xp = layer.device.xp
    whole = xp.trunc(labels)
    # NOTE: Caffe reads foreign memory for a label out of range; here it is an error. The
    # comparison is negated so that NaN counts as wrong.
    wrong = ~((whole >= 0) & (whole < classes))
    ignored = None
    if ignored_label is not None:
        ignored = whole == ignored_label
        wrong &= ~ignored
    except_for = f" (or {ignored_label}, which is ignored)" if ignored_label is not None else ""
    layer.check(
        wrong, f"labels from 0 to {classes - 1} for {classes} classes{except_for}",
        lambda: _first_wrong(labels, wrong),
        "Correct the labels or the number of classes; `ignore_label` passes over one value.",
    )  # fmt: skip
    if layer.device.is_host:
        if ignored is None or not ignored.any():
            return whole.astype(xp.intp), None
    else:  # where the check has not stopped a wrong label yet
        whole = xp.where(wrong, 0, whole)
    if ignored is not None:
        whole = xp.where(ignored, 0, whole)
    return whole.astype(xp.intp), ignored


def _first_wrong(labels, wrong):
    index = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"label {float(labels[index]):g} at index {index}"


class LossLayer(Layer):
    """Base of losses: bottom 0 is predicted, bottom 1 the label or target -> top 0, a scalar."""

    num_bottom = 2
    num_top = 1
    is_loss = True
    auto_top = True
    in_place = False
    no_force_backward = (1,)

    def reshape(self, bottom, top):
        first = [b.shape[:1] for b in bottom[:2]]
        if not first[0] or first[0] != first[1]:
            raise self.error(
                "a first dimension, equal for bottoms 0 and 1",
                f"shapes {bottom[0].shape} and {bottom[1].shape}",
            )  # fmt: skip
        top[0].reshape()

    def check_counts_equal(self, bottom, indices):
        """Raise unless the bottoms of the given indices have as many elements as bottom 0."""
        for k in indices:
            if bottom[k].count != bottom[0].count:
                raise self.error(
                    f"as many elements in bottom {k} as in bottom 0",
                    f"shapes {bottom[k].shape} and {bottom[0].shape}",
                )  # fmt: skip

    def check_one_label(self, bottom):
        """Raise unless bottom 1 has one label for each item of bottom 0."""
        if bottom[1].count != bottom[0].shape[0]:
            raise self.error(
                f"one label for each of the {bottom[0].shape[0]} items of bottom 0",
                f"labels of shape {bottom[1].shape}",
            )  # fmt: skip


class SoftmaxLossLayer(LossLayer):
    """Base of losses on the softmax of bottom 0, with one label for each prediction.

    Bottoms: scores (A..., C, B...), labels with A*B elements -> the loss and, if there is a
    second top, the probabilities in the scores' shape.
    """

    num_top = None
    min_top = 1
    max_top = 2

    def setup(self, bottom, top):
        self.ignored_label = ignore_label(self.param.loss_param)
        self.normalization = normalization(self.param.loss_param, VALID)
        self.prob = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        scores = bottom[0]
        self.axis = self.axis_of(scores, self.given_axis)
        outer, inner = scores.count_from(0, self.axis), scores.count_from(self.axis + 1)
        if bottom[1].count != outer * inner:
            raise self.error(
                f"{outer * inner} labels, one for each prediction of shape {scores.shape} with "
                f"classes along axis {self.axis}",
                f"{bottom[1].count}, of shape {bottom[1].shape}",
                "For scores (N, C, H, W) and axis 1 there are N*H*W labels.",
            )  # fmt: skip
        self.shape = outer, scores.shape[self.axis], inner
        self.prob.reshape_like(scores)
        if len(top) > 1:
            top[1].reshape_like(scores)
            top[1].share_data(self.prob)

    def forward_softmax(self, bottom):
        """Probabilities as (outer, C, inner); sets `indices`, `ignored` and `divisor`."""
        outer, classes, inner = self.shape
        softmax(self.device, bottom[0].array, self.axis, self.prob.array)
        labels = bottom[1].array
        self.indices, self.ignored = class_indices(self, labels, classes, self.ignored_label)
        self.indices = self.indices.reshape(outer, inner)
        if self.ignored is not None:
            self.ignored = self.ignored.reshape(outer, inner)
        self.divisor = divisor_of(self, self.normalization, outer, outer * inner, self.ignored)
        return self.prob.array.reshape(self.shape)
