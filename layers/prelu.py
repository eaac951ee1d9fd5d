"""PReLU: a ReLU whose negative slopes are learned (He et al. 2015)."""

from ..engine.layer import Layer, register
from ..engine.proto import caffe_pb2


@register("PReLU")
class PReLU(Layer):
    """y = x where x > 0, slope * x elsewhere (Caffe: PReLULayer).

    Bottom and top (N, C, ...). Parameter: a slope for each channel (C,), or one for all of shape
    () with `channel_shared`; filled with 0.25 unless `filler` says otherwise.
    dx = dy where x > 0, slope * dy elsewhere; dslope = sum of dy * min(x, 0).
    """

    num_bottom = num_top = 1

    def setup(self, bottom, top):
        self._check(bottom)
        p = self.param.prelu_param
        filler = p.filler if p.HasField("filler") else None
        self.add_param(
            () if p.channel_shared else bottom[0].shape[1:2],
            filler or caffe_pb2.FillerParameter(type="constant", value=0.25),
        )
        self.kept = self._blob()

    def _check(self, bottom):
        if len(bottom[0].shape) < 2:
            raise self.error("a bottom (N, C, ...) of at least 2 axes", f"{bottom[0].shape}")

    def reshape(self, bottom, top):
        self._check(bottom)
        slopes = self.blobs[0]
        n, c = bottom[0].shape[:2]
        inner = bottom[0].count_from(2)
        self.view = (n, c, inner) if slopes.shape else (n * c, 1, inner)
        if slopes.shape and slopes.count != c:
            raise self.error(
                f"{slopes.count} channels, as when it was set up", f"bottom {bottom[0].shape}"
            )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom, top):
        x = bottom[0].array
        if top[0] is bottom[0] and self.needs_backward:
            self.kept.reshape_like(bottom[0])
            self.device.kernels.copies.copy(x, self.kept.array)
        self.device.kernels.channelwise.relu(
            x.reshape(self.view), self.blobs[0].array.reshape(-1), top[0].array.reshape(self.view)
        )

    def backward(self, top, propagate_down, bottom):
        kernels = self.device.kernels.channelwise
        x = (self.kept if top[0] is bottom[0] else bottom[0]).array.reshape(self.view)
        dy = top[0].grad.reshape(self.view)
        slopes = self.blobs[0]
        # The slopes first: in place, dx overwrites dy.
        if self.param_propagate_down[0]:
            total = kernels.slope_sums(x, dy)
            slopes.grad[...] += total.reshape(slopes.shape).astype(slopes.dtype)
        if propagate_down[0]:
            dx = bottom[0].grad.reshape(self.view)
            kernels.relu_backward(x, dy, slopes.array.reshape(-1), dx)
