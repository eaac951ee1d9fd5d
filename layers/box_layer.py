"""The base of the detector's layers: what they are told of the images of a batch, and anchors."""

import numpy as np

from ..boxes.anchors import RATIOS, SCALES, generate_anchors, shift_anchors
from ..boxes.transform import areas
from ..engine.layer import Layer
from .param_str import parse_param_str


class BoxLayer(Layer):
    """A layer whose tops are made of boxes, and are constants to those that learn from them."""

    in_place = False

    def read_params(self, *known):
        """The values of the keys `known` in `python_param { param_str }`, as far as given."""
        return parse_param_str(self.param.python_param.param_str, self._where(), known)

    def read_im_info(self, blob, images):
        """(N, 3) of height, width and scale of each image: the blob's values, checked.

        Height and width are those of the resized image, without padding; the scale is what it was
        resized by.
        """
        if blob.shape[:1] != (images,) or blob.count != 3 * images:
            raise self.error(
                f"im_info ({images}, 3): height, width and scale of each image",
                f"shape {blob.shape}",
            )  # fmt: skip
        info = blob.host_data.reshape(images, 3)
        if not (np.isfinite(info).all() and (info >= 0).all()):
            raise self.error("heights, widths and scales of at least 0 in im_info", info.tolist())
        return info

    def read_gt_boxes(self, blob):
        """The objects of each image: a list of (G, 5) arrays x1, y1, x2, y2, class, unpadded.

        The blob is (G, 5) for one image, or (N, G, 5) for N. Rows of class 0 are padding.
        """
        if len(blob.shape) not in (2, 3) or blob.shape[-1] != 5 or 0 in blob.shape[:-2]:
            raise self.error(
                "gt_boxes (G, 5), or (N, G, 5) for N images: x1, y1, x2, y2, class",
                f"shape {blob.shape}",
            )  # fmt: skip
        images = blob.host_data if len(blob.shape) == 3 else blob.host_data[None]
        objects = [boxes[boxes[:, 4] != 0] for boxes in images]
        for i, boxes in enumerate(objects):
            x1, y1, x2, y2, label = boxes.T
            bad = ~(np.isfinite(boxes).all(axis=1) & (x2 >= x1) & (y2 >= y1) & (label > 0))
            if bad.any():
                raise self.error(
                    "gt_boxes that end where they begin or later, of a class above 0",
                    f"{boxes[bad][0].tolist()} in image {i}", "Correct the annotations.",
                )  # fmt: skip
        return objects

    def gt_boxes_on_device(self, blob):
        """(N, G, 5), the blob's array, with the padding that `read_gt_boxes` leaves out."""
        return blob.array if len(blob.shape) == 3 else blob.array.reshape(1, *blob.shape)

    def backward(self, top, propagate_down, bottom):
        # py-faster-rcnn's nets have a gradient asked for, because some bottom learns.
        for blob, wanted in zip(bottom, propagate_down):
            if wanted:
                blob.grad[...] = 0


class AnchorGrid:
    """The anchors of a layer's `feat_stride`, `scales` and `ratios` on maps of any size.

    Args: `params`, from `parse_param_str`.
    """

    def __init__(self, layer, params):
        if "feat_stride" not in params:
            raise layer.error(
                "feat_stride in python_param { param_str }", "none",
                "Give the pixels between two positions of the map: 16 for VGG16.",
            )  # fmt: skip
        self.stride = params["feat_stride"]
        self.scales = params.get("scales", SCALES)
        ratios = params.get("ratios", RATIOS)
        self.anchors = generate_anchors(scales=self.scales, ratios=ratios)
        if not (areas(self.anchors) > 0).all():
            raise layer.error(
                "scales and ratios in param_str that leave anchors both width and height",
                f"scales {self.scales}, ratios {ratios}",
            )  # fmt: skip
        self.count = len(self.anchors)
        self._size = self._shifted = self._on_device = None

    def check_channels(self, layer, blob, name, per_anchor):
        """Raise unless the blob is (N, per_anchor * A, H, W)."""
        channels = per_anchor * self.count
        if len(blob.shape) != 4 or blob.shape[1] != channels:
            raise layer.error(
                f"{name} (N, {channels}, H, W), {per_anchor} channels for each of {self.count} "
                "anchors", f"shape {blob.shape}",
                f"Set num_output of the layer that makes it to {channels}, or the scales and "
                "ratios in param_str to those that the net was made for.",
            )  # fmt: skip

    def at(self, height, width):
        """The anchors of a map: (H * W * A, 4), see `shift_anchors`."""
        if self._size != (height, width):
            self._size = (height, width)
            self._shifted = shift_anchors(self.anchors, height, width, self.stride)
        return self._shifted

    def on_device(self, device):
        """The anchors of the first position, (A, 4) float64, which kernels shift themselves."""
        if self._on_device is None:
            self._on_device = device.to_device(self.anchors)
        return self._on_device

    def any_inside(self, height, width, limits):
        """Whether any anchor of a map lies within `limits`, see `anchor_target.inside_limits`."""
        low, right, bottom = limits
        fits = []
        for axis, (count, end) in enumerate(((width, right), (height, bottom))):
            shifts = np.arange(count)[:, None] * self.stride
            first, last = self.anchors[:, axis] + shifts, self.anchors[:, axis + 2] + shifts
            fits.append(((first >= low) & (last < end)).any(axis=0))  # (A,)
        return bool((fits[0] & fits[1]).any())
