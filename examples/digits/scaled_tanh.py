"""A layer of one's own, in the way of pycaffe: LeNet's scaled tanh (LeCun et al. 1998, App. A)."""

import json

import numpy as np

import caffe


class ScaledTanh(caffe.Layer):
    """y = scale * tanh(slope * x); both numbers come from the prototxt's `param_str`."""

    def setup(self, bottom, top):
        params = json.loads(self.param_str)
        self.scale, self.slope = params["scale"], params["slope"]

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.scale * np.tanh(self.slope * bottom[0].data)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            tanh = top[0].data / self.scale
            bottom[0].diff[...] = top[0].diff * self.scale * self.slope * (1 - tanh**2)
