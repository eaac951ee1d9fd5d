"""ROIPooling: the maximum over the bins of each region of interest."""

from ..engine.layer import Layer, register


@register("ROIPooling")
class ROIPooling(Layer):
    """Features (N, C, H, W) and RoIs (R, 5) -> (R, C, pooled_h, pooled_w) (fast-rcnn's layer).

    A RoI is (image index, x1, y1, x2, y2) in image coordinates, ends included, which
    `spatial_scale` takes to the features'. No gradient reaches the RoIs.
    """

    num_bottom, num_top = 2, 1
    in_place = False
    no_force_backward = (1,)

    def setup(self, bottom, top):
        p = self.param.roi_pooling_param
        if p.pooled_h < 1 or p.pooled_w < 1:
            raise self.error(
                "roi_pooling_param.pooled_h and pooled_w of at least 1",
                f"{p.pooled_h} and {p.pooled_w}",
            )  # fmt: skip
        self.pooled = (p.pooled_h, p.pooled_w)
        self.spatial_scale = p.spatial_scale
        self.argmax = None

    def reshape(self, bottom, top):
        features, rois = bottom[0].shape, bottom[1].shape
        if len(features) != 4:
            raise self.error("features (N, C, H, W) as bottom 0", f"shape {features}")
        if bottom[1].count_from(1) != 5 or not rois:
            raise self.error(
                "RoIs (R, 5) as bottom 1: image index, x1, y1, x2, y2", f"shape {rois}"
            )
        top[0].reshape(rois[0], features[1], *self.pooled)

    def forward(self, bottom, top):
        x = bottom[0].array
        rois = bottom[1].array.reshape(-1, 5)
        self._check_rois(rois, len(x))
        if not self.needs_backward:
            self.argmax = None
        elif self.argmax is None or self.argmax.shape != top[0].shape:
            self.argmax = self.device.xp.empty(top[0].shape, "int32")
        self.device.kernels.roi_pooling.forward(
            x, rois, self.spatial_scale, top[0].array, self.argmax
        )

    def _check_rois(self, rois, images):
        xp = self.device.xp
        good = xp.isfinite(rois).all(axis=1) & (rois[:, 0] >= 0) & (rois[:, 0] < images)
        self.check(
            ~good, f"finite RoIs with an image index in [0, {images})",
            lambda: f"RoI {good.argmin()}: {rois[good.argmin()].tolist()}",
            "Did the training diverge?",
        )  # fmt: skip

    def backward(self, top, propagate_down, bottom):
        if propagate_down[1]:
            bottom[1].grad[...] = 0
        if propagate_down[0]:
            rois = bottom[1].array.reshape(-1, 5)
            self.device.kernels.roi_pooling.backward(
                top[0].grad, self.argmax, rois, self.spatial_scale, bottom[0].grad
            )
