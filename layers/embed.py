"""Embed: a table of vectors, looked up by index."""

from ..engine.layer import Layer, register


@register("Embed")
class Embed(Layer):
    """y[i] = weight[x[i]] + bias: an InnerProduct of one-hot vectors (Caffe: EmbedLayer).

    Bottom: indices in [0, input_dim), of any shape S. Top: S + (num_output,). Parameters: weight
    (input_dim, num_output), bias (num_output,) unless `bias_term: false`. Indices have no
    gradient; an index out of range is an error (in Caffe it reads foreign memory).
    """

    num_bottom = num_top = 1
    in_place = False

    def setup(self, bottom, top):
        p = self.param.embed_param
        if p.num_output < 1 or p.input_dim < 1:
            raise self.error(
                "embed_param.num_output and input_dim of at least 1",
                f"{p.num_output} and {p.input_dim}",
            )
        self.inputs, self.num_output = p.input_dim, p.num_output
        self.add_param((self.inputs, self.num_output), p.weight_filler)
        if p.bias_term:
            self.add_param((self.num_output,), p.bias_filler)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape, self.num_output)

    def _indices(self, bottom):
        index = bottom[0].array.astype("int64").reshape(-1)
        wrong = (index < 0) | (index >= self.inputs)
        self.check(
            wrong, f"indices in [0, {self.inputs - 1}]",
            lambda: f"{index.min()} to {index.max()}",
            "input_dim is the number of different indices.",
        )  # fmt: skip
        return index if self.device.is_host else index.clip(0, self.inputs - 1)

    def forward(self, bottom, top):
        index = self._indices(bottom)
        y = top[0].array.reshape(index.size, self.num_output)
        y[...] = self.blobs[0].array[index]
        if len(self.blobs) > 1:
            y += self.blobs[1].array

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 0, "the indices")
        dy = top[0].grad.reshape(bottom[0].count, self.num_output)
        if self.param_propagate_down[0]:
            self.device.kernels.scatter.add_rows(dy, self._indices(bottom), self.blobs[0].grad)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            self.blobs[1].grad[...] += dy.sum(axis=0)
