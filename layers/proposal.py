"""Proposal: the region proposal network's scores and deltas -> regions of interest."""

from dataclasses import dataclass, replace

import numpy as np

from ..boxes.nms import nms
from ..boxes.transform import bbox_transform_inv, clip_boxes, sizes
from ..engine.layer import register
from ..engine.phase import TRAIN
from .box_layer import AnchorGrid, BoxLayer


@dataclass(frozen=True)
class ProposalLimits:
    """How many proposals are kept, and which; py-faster-rcnn's names and defaults in training.

    Attributes:
        RPN_NMS_THRESH: overlap above which the better of two proposals suppresses the other.
        RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N: how many of the best proposals of an image are left
            before and after suppression; 0 or below for all.
        RPN_MIN_SIZE: the least width and height, in pixels of the image before it was resized.
    """

    RPN_NMS_THRESH: float = 0.7
    RPN_PRE_NMS_TOP_N: int = 12000
    RPN_POST_NMS_TOP_N: int = 2000
    RPN_MIN_SIZE: float = 16


@dataclass(frozen=True)
class ProposalSettings:
    """The limits of each phase."""

    train: ProposalLimits = ProposalLimits()
    test: ProposalLimits = ProposalLimits(RPN_PRE_NMS_TOP_N=6000, RPN_POST_NMS_TOP_N=300)


LIMITS = ("RPN_NMS_THRESH", "RPN_PRE_NMS_TOP_N", "RPN_POST_NMS_TOP_N", "RPN_MIN_SIZE")


@register("Proposal")
class Proposal(BoxLayer):
    """Regions of interest from the RPN's outputs (Faster R-CNN, sections 3.1 and 3.3).

    Bottoms: rpn_cls_prob (N, 2A, H, W), background then foreground of all anchors; rpn_bbox_pred
    (N, 4A, H, W); im_info (N, 3).
    Tops: rois (R, 5), image index, x1, y1, x2, y2 in the resized image, image by image, the best
    first; optionally their scores (R, 1). There is no gradient.

    `param_str` has feat_stride, and optionally scales, ratios, and any of the limits, which then
    count instead of those in the settings.
    """

    num_bottom = 3
    min_top, max_top = 1, 2
    no_force_backward = (0, 1, 2)
    synchronisations = 1  # for the number of proposals
    # Set by whoever asks `settle` after a pass. On a GPU the tops of one image then have room for
    # as many as there may be, and rows of zeros behind the last: nobody waits for their number.
    counts_later = False
    _unsettled = None

    def setup(self, bottom, top):
        self.report = self._blob()
        params = self.read_params("feat_stride", "scales", "ratios", *LIMITS)
        self.grid = AnchorGrid(self, params)
        settings = self.context.get(ProposalSettings)
        limits = settings.train if self.phase == TRAIN else settings.test
        self.limits = replace(limits, **{k: params[k] for k in LIMITS if k in params})
        # How many there are is known after each forward pass; at least one.
        _reshape_tops(top, 1)

    def reshape(self, bottom, top):
        self.grid.check_channels(self, bottom[0], "rpn_cls_prob", 2)
        self.grid.check_channels(self, bottom[1], "rpn_bbox_pred", 4)
        (images, _, *size), (others, _, *other_size) = bottom[0].shape, bottom[1].shape
        if images < 1 or (images, size) != (others, other_size):
            raise self.error(
                "rpn_cls_prob and rpn_bbox_pred of as many images, at least 1, and maps of one "
                "size", f"shapes {bottom[0].shape} and {bottom[1].shape}",
            )  # fmt: skip

    def forward(self, bottom, top):
        info = self.read_im_info(bottom[2], bottom[0].shape[0])
        run = self._forward_on_host if self.device.is_host else self._forward_on_device
        run(bottom, top, info)

    def _forward_on_host(self, bottom, top, info):
        images, _, height, width = bottom[0].shape
        self._check_finite(bottom, [_not_finite(b) for b in bottom[:2]])
        anchors = self.grid.at(height, width)
        found = [
            propose(
                anchors, _by_position(bottom[0].data[i, self.grid.count :], 1)[:, 0],
                _by_position(bottom[1].data[i], 4), info[i], self.limits,
            )
            for i in range(images)
        ]  # fmt: skip
        index = np.repeat(np.arange(images), [len(scores) for _, scores in found])
        _reshape_tops(top, len(index))
        top[0].data[:, 0] = index
        top[0].data[:, 1:] = np.concatenate([boxes for boxes, _ in found])
        for blob in top[1:]:
            blob.data[:, 0] = np.concatenate([scores for _, scores in found])

    def _forward_on_device(self, bottom, top, info):
        kernels, limits = self.device.kernels.proposals, self.limits
        images, _, height, width = bottom[0].shape
        counts = [
            n if n > 0 else None for n in (limits.RPN_PRE_NMS_TOP_N, limits.RPN_POST_NMS_TOP_N)
        ]
        limits = limits.RPN_NMS_THRESH, *counts, limits.RPN_MIN_SIZE
        later = self.counts_later and images == 1
        # Room for as many as there may be; the first rows of it are then the tops.
        _reshape_tops(top, images * kernels.most_rows(self.grid.count * height * width, limits))
        for blob in top if later else ():
            blob.array.fill(0)
        report = kernels.propose(
            bottom[0].array, bottom[1].array, self.grid.on_device(self.device), self.grid.stride,
            info, limits, top[0].array, top[1].array if len(top) > 1 else None,
        )  # fmt: skip
        if later:
            self.report.reshape(report.size)
            self.report.array[...] = report
            self._unsettled = bottom, top
            return
        report = self.device.to_host(report).tolist()
        self._check_finite(bottom, report[:2])
        _reshape_tops(top, sum(max(n, 1) for n in report[3::2]))

    @property
    def is_unsettled(self):
        """Whether the number of proposals is not known yet; it comes with the blob `report`."""
        return self._unsettled is not None

    def settle(self):
        """After a pass with `counts_later`: how many rows the tops have, and how many count.

        Raises: LayerError if the bottoms were not finite.
        """
        (bottom, top), self._unsettled = self._unsettled, None
        report = self.report.host_data.astype(int).tolist()
        self._check_finite(bottom, report[:2])
        return top[0].shape[0], max(report[3], 1)

    def _check_finite(self, bottom, bad):
        for name, blob, count in zip(("rpn_cls_prob", "rpn_bbox_pred"), bottom, bad):
            if count:
                raise self.error(
                    f"finite numbers in {name}", f"{count} of {blob.count} that are not",
                    "The training has diverged, or the weights or the image hold such numbers: "
                    "look at them, or train with a lower base_lr.",
                )  # fmt: skip


ProposalLayer = Proposal
"""py-faster-rcnn's name, in `rpn.proposal_layer`."""


def _reshape_tops(top, count):
    top[0].reshape(count, 5)
    for scores in top[1:]:
        scores.reshape(count, 1)


def _not_finite(blob):
    return blob.count - np.count_nonzero(np.isfinite(blob.data))


def _by_position(maps, per_anchor):
    # (A * K, H, W) -> (H, W, A * K) -> (H * W * A, K)
    return maps.transpose(1, 2, 0).reshape(-1, per_anchor)


def propose(anchors, scores, deltas, im_info, limits):
    """The best boxes (R, 4) of an image, R >= 1, and their scores (R,), in descending order.

    Args:
        anchors: (N, 4). scores: (N,). deltas: (N, 4), whose dtype counts.
        im_info: height and width that the boxes are clipped to; scale.
        limits: `ProposalLimits`.
    """
    height, width, scale = im_info
    # 1. Apply the deltas to the anchors, and clip. A size beyond all floats becomes the image's.
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = clip_boxes(bbox_transform_inv(anchors, deltas), (height, width))
        # 2. Leave out what is too small.
        widths, heights = sizes(boxes)
        least = limits.RPN_MIN_SIZE * scale
        large = np.flatnonzero((widths >= least) & (heights >= least))
    # 3. The best before suppression, in order. NOTE: equal scores keep the order of anchors.
    order = large[np.argsort(-scores[large], kind="stable")]
    if limits.RPN_PRE_NMS_TOP_N > 0:
        order = order[: limits.RPN_PRE_NMS_TOP_N]
    # 4. Suppress, and take the best of what is left.
    most = limits.RPN_POST_NMS_TOP_N if limits.RPN_POST_NMS_TOP_N > 0 else None
    dets = np.concatenate([boxes[order], scores[order, None]], axis=1)
    order = order[nms(dets, limits.RPN_NMS_THRESH, most)]
    if not len(order):
        # NOTE: py-faster-rcnn gives no RoI then, and fails later on. The whole image is one.
        return np.array([[0, 0, max(width - 1, 0), max(height - 1, 0)]], boxes.dtype), np.zeros(1)
    return boxes[order], scores[order]
