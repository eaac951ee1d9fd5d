"""RNN: a simple recurrent layer with an output transform."""

from ..engine.layer import register
from .recurrent import Recurrent, rows


@register("RNN")
class RNN(Recurrent):
    """A vanilla recurrent network (Caffe: RNNLayer); bottoms and tops as of `Recurrent`.

        h_t = tanh(W_xh x_t + b_h + W_static x_static + W_hh cont h_{t-1})
        o_t = tanh(W_ho h_t + b_o)

    The top is o. State: h. Parameters: W_xh (D, I), b_h (D,), W_static (D, S) if there is a
    static input, W_hh (D, D), W_ho (D, D), b_o (D,).
    """

    def add_output_params(self, p):
        self.output_param = len(self.blobs)
        self.add_param((self.width, self.width), p.weight_filler)
        self.add_param((self.width,), p.bias_filler)

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self._output = self._blob()  # (T, N, D): the grad of the output transform's result

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self._output.reshape(*top[0].shape)

    def run(self, cont, states, y):
        xp, h_all, h_before = self.device.xp, self._gates.array, self._h_before.array
        matmul, weights = self.device.kernels.blas.matmul, self.blobs[self.recurrent_param].array.T
        (h,) = states
        for t in range(len(y)):
            xp.multiply(h, cont[t], out=h_before[t])
            matmul(h_before[t], weights, h_all[t], add=True)
            h = xp.tanh(h_all[t], out=h_all[t])
        w_out, b_out = (b.array for b in self.blobs[self.output_param :])
        matmul(rows(h_all, 2), w_out.T, rows(y, 2))
        y += b_out
        xp.tanh(y, out=y)
        return (h,)

    def run_backward(self, cont, y, dy):
        h_all, dgates, doutput = self._gates.array, self._gates.grad, self._output.grad
        doutput[...] = dy * (1 - y * y)
        flat = rows(doutput, 2)
        self._add_param_grad(self.output_param, flat, rows(h_all, 2))
        if self.param_propagate_down[self.output_param + 1]:
            self.blobs[self.output_param + 1].grad[...] += flat.sum(axis=0)
        # (T*N, D): what reaches h through the outputs; the part through time is added below.
        matmul = self.device.kernels.blas.matmul
        matmul(flat, self.blobs[self.output_param].array, rows(dgates, 2))
        weights = self.blobs[self.recurrent_param].array
        dh = 0
        for t in reversed(range(len(dy))):
            dgates[t] += dh
            dgates[t] *= 1 - h_all[t] * h_all[t]
            dh = (dgates[t] @ weights) * cont[t]
