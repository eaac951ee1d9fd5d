"""Parameter: a learned array as a blob."""

from ..engine.layer import Layer, register


@register("Parameter")
class Parameter(Layer):
    """A top that is this layer's one parameter, learned like any other (Caffe: ParameterLayer)."""

    num_bottom = 0
    num_top = 1

    def setup(self, bottom, top):
        self.add_param(self.param.parameter_param.shape.dim)

    def reshape(self, bottom, top):
        top[0].reshape_like(self.blobs[0])

    def forward(self, bottom, top):
        top[0].share_data(self.blobs[0])

    def backward(self, top, propagate_down, bottom):
        # NOTE: Caffe shares the gradient as well, so a second backward pass (iter_size) overwrites
        # the first; here it accumulates as in every other layer.
        if self.param_propagate_down[0]:
            self.blobs[0].grad[...] += top[0].grad
