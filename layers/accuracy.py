"""Accuracy: how often the label is among the highest scores."""

from ..engine.layer import Layer, register
from .loss import class_indices, ignore_label


def is_in_top(xp, scores, indices, top_k):
    """Whether the label's score is among the `top_k` highest; ties count against it.

    Args:
        scores: (outer, C, inner). indices: (outer, inner), labels.

    Returns:
        Booleans (outer, inner).
    """
    own = xp.take_along_axis(scores, indices[:, None, :], axis=1)
    # NOTE: Caffe counts scores >= own, which takes NaN for correct; here NaN is wrong.
    not_below = ~(scores < own)
    return not_below.sum(axis=1) <= top_k


def count_by_class(xp, indices, which, classes):
    """How often each class is among the `indices` of which `which` is true: (classes,)."""
    counts = xp.zeros(classes, xp.int32)
    xp.add.at(counts, indices.reshape(-1), which.reshape(-1).astype(xp.int32))
    return counts


@register("Accuracy")
class Accuracy(Layer):
    """The share of labels among the `accuracy_param.top_k` highest scores (Caffe: AccuracyLayer).

    Bottoms: scores (A..., C, B...), classes along `axis`, and A*B labels -> a scalar and, if
    there is a second top, (C,) the share for each class. Labels equal to `ignore_label` do not
    count. A class, or a batch, without labels has accuracy 0. There is no gradient.
    """

    num_bottom = 2
    min_top = 1
    max_top = 2
    in_place = False

    def setup(self, bottom, top):
        p = self.param.accuracy_param
        self.top_k, self.given_axis = p.top_k, p.axis
        self.ignored_label = ignore_label(p)

    def reshape(self, bottom, top):
        scores = bottom[0]
        axis = self.axis_of(scores, self.given_axis)
        classes = scores.shape[axis]
        outer, inner = scores.count_from(0, axis), scores.count_from(axis + 1)
        if bottom[1].count != outer * inner:
            raise self.error(
                f"{outer * inner} labels, one for each prediction of shape {scores.shape} with "
                f"classes along axis {axis}",
                f"{bottom[1].count}, of shape {bottom[1].shape}",
            )  # fmt: skip
        if not 1 <= self.top_k <= classes:
            raise self.error(
                f"accuracy_param.top_k from 1 to the number of classes, {classes}", self.top_k
            )
        self.shape = outer, classes, inner
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(classes)

    def forward(self, bottom, top):
        xp, (outer, classes, inner) = self.device.xp, self.shape
        indices, ignored = class_indices(self, bottom[1].array, classes, self.ignored_label)
        indices = indices.reshape(outer, inner)
        hit = is_in_top(xp, bottom[0].array.reshape(self.shape), indices, self.top_k)
        counted = xp.ones(hit.shape, bool) if ignored is None else ~ignored.reshape(outer, inner)
        hit &= counted
        top[0].array[...] = hit.sum() / xp.maximum(1, counted.sum())
        if len(top) > 1:
            hits, labels = (count_by_class(xp, indices, which, classes) for which in (hit, counted))
            top[1].array[...] = hits / xp.maximum(1, labels)

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 0, "an accuracy cannot be differentiated")
        self.refuse_gradient(propagate_down, 1, "the labels")
