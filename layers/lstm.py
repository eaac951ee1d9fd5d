"""LSTM: a long short-term memory over a sequence."""

from ..engine.layer import register
from .lstm_unit import activate, step, step_backward
from .recurrent import Recurrent


@register("LSTM")
class LSTM(Recurrent):
    """A layer of LSTM cells (Caffe: LSTMLayer); bottoms and tops as of `Recurrent`.

        i, f, o = sigmoid(...), g = tanh(W_xc x_t + b_c + W_static x_static + W_hc cont h_{t-1})
        c_t = cont * f * c_{t-1} + i * g;  h_t = o * tanh(c_t)

    States: h, c. Parameters: W_xc (4D, I), b_c (4D,), W_static (4D, S) if there is a static
    input, W_hc (4D, D); gates in the order i, f, o, g.
    Source: Zaremba and Sutskever, "Learning to Execute", 2014.
    """

    gates = 4
    states = ("h", "c")

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self._c = self._blob()

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        steps, streams = bottom[0].shape[:2]
        self._c.reshape(steps + 1, streams, self.width)

    def run(self, cont, states, y):
        xp, acts, h_before, c = (
            self.device.xp, self._gates.array, self._h_before.array, self._c.array
        )  # fmt: skip
        matmul, weights = self.device.kernels.blas.matmul, self.blobs[self.recurrent_param].array.T
        h, c[0] = states
        for t in range(len(y)):
            xp.multiply(h, cont[t], out=h_before[t])
            matmul(h_before[t], weights, acts[t], add=True)
            activate(xp, acts[t], acts[t])
            step(xp, c[t], acts[t], cont[t], c[t + 1], y[t])
            h = y[t]
        return h, c[-1]

    def run_backward(self, cont, y, dy):
        acts, dgates, c = self._gates.array, self._gates.grad, self._c.array
        weights = self.blobs[self.recurrent_param].array
        dh = dc = 0
        for t in reversed(range(len(dy))):
            dc = step_backward(
                self.device.xp, c[t], acts[t], cont[t], c[t + 1], dc, dy[t] + dh, dgates[t]
            )
            dh = (dgates[t] @ weights) * cont[t]
