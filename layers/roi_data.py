"""RoIData: batches of images and their regions, from whatever prepares them."""

from collections.abc import Callable
from dataclasses import dataclass

from ..engine.errors import LayerError
from ..engine.layer import register
from .param_str import parse_param_str
from .prefetch import Prefetcher, PrefetchingLayer

RPN_TOPS = ("data", "im_info", "gt_boxes")
FAST_RCNN_TOPS = (
    "data", "rois", "labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights",
)  # fmt: skip
_SYNONYMS = {"bbox_loss_weights": "bbox_inside_weights"}  # Fast R-CNN's name: py-faster-rcnn's
_SIDE = 224  # of the images in a net that has no source yet


@dataclass(frozen=True)
class RoIDataSettings:
    """Where a net's batches come from.

    Attributes:
        load: the function of a batch number k that gives {blob name: array}, and depends on k
            alone (detection: RoiBatches.load). None for a net that is only looked at.
        depth: how many batches are read ahead.
        threads: how many threads read.
    """

    load: Callable | None = None
    depth: int = 3
    threads: int = 1


@register("RoIData")
class RoIData(PrefetchingLayer):
    """Images with what is to be learnt from them (py-faster-rcnn: RoIDataLayer).

    Tops, by their names in any order, or if they have other names in this order:

    * for an RPN: data (N, 3, H, W); im_info (N, 3) = height, width, scale; gt_boxes (G, 5) or
      (N, G, 5) = x1, y1, x2, y2, class;
    * for given RoIs: data; rois (R, 5) = image, x1, y1, x2, y2; labels (R,); and optionally
      bbox_targets, bbox_inside_weights, bbox_outside_weights (R, 4 * num_classes).

    `python_param { param_str: "'num_classes': 21" }` is needed for bbox_targets.

    The batches come from the net's context (`RoIDataSettings`): pass k has batch k, or that of
    its shard. A net without any has shapes to look at, and cannot run forward.

    """

    min_top = 1
    max_top = len(FAST_RCNN_TOPS)

    def setup(self, bottom, top):
        text = self.param.python_param.param_str
        params = parse_param_str(text, self._where(), ("num_classes",))
        self.num_classes = params.get("num_classes")
        self.names = self._names()
        for blob, name in zip(top, self.names):
            blob.reshape(*self._first_shape(name))
        settings = self.context.get(RoIDataSettings)
        if settings.load is not None:
            reader = _reader(settings.load, self.names, self.num_classes, self._where())
            self.prefetcher = Prefetcher(
                self.context.shard.reader(lambda: reader), settings.depth, settings.threads
            )

    def _names(self):
        # What each top holds.
        names = [_SYNONYMS.get(name, name) for name in self.param.top]
        if set(names) <= {*RPN_TOPS, *FAST_RCNN_TOPS}:
            return names
        for tops in (RPN_TOPS, FAST_RCNN_TOPS, FAST_RCNN_TOPS[:5]):
            if len(tops) == len(names):
                return list(tops)
        raise self.error(
            f"tops called {', '.join(RPN_TOPS)}, or of {', '.join(FAST_RCNN_TOPS)}",
            f"{', '.join(self.param.top)}",
        )

    def _first_shape(self, name):
        # NOTE: py-faster-rcnn begins with the largest image that its config allows.
        if not name.startswith("bbox"):
            return {
                "data": (1, 3, _SIDE, _SIDE), "im_info": (1, 3), "gt_boxes": (1, 5),
                "rois": (1, 5), "labels": (1,),
            }[name]  # fmt: skip
        if self.num_classes is None:
            raise self.error(
                "num_classes", "none", """Write python_param { param_str: "'num_classes': 21" }."""
            )
        return 1, 4 * self.num_classes

    def forward(self, bottom, top):
        if self.prefetcher is None:
            raise self.error(
                "images to train on", "none",
                "Train with tools/train_net.py, or give the net RoIDataSettings(load=...) in its "
                "context (instead of py-faster-rcnn's layer.set_roidb).",
            )  # fmt: skip
        super().forward(bottom, top)

    def seek(self, pass_index):
        if self.prefetcher is not None:
            super().seek(pass_index)

    @property
    def wait_seconds(self):
        """How long `forward` has waited for batches, in all."""
        return 0.0 if self.prefetcher is None else self.prefetcher.wait_seconds


def _reader(load, names, num_classes, where):
    """`load` with its blobs in the order of `names`, checked."""

    def read(k):
        blobs = load(k)
        missing = [name for name in names if name not in blobs]
        if missing:
            raise LayerError(
                where, f"batches with {', '.join(missing)}", f"only {', '.join(blobs)}",
                "TRAIN.HAS_RPN and TRAIN.BBOX_REG say which there are.",
            )  # fmt: skip
        if "bbox_targets" in names and blobs["bbox_targets"].shape[1] != 4 * num_classes:
            found = blobs["bbox_targets"].shape[1] // 4
            raise LayerError(where, f"num_classes {found}, as the images have", num_classes)
        return [blobs[name] for name in names]

    return read


RoIDataLayer = RoIData  # as py-faster-rcnn's prototxt files call it
