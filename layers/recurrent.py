"""The common part of LSTM and RNN: inputs, hidden state and parameters of a recurrent layer."""

import logging
import math

from ..engine.layer import Layer

log = logging.getLogger("demitasse.net")


class Recurrent(Layer):
    """A sequence to a sequence, through a hidden state (Caffe: RecurrentLayer).

    Bottoms:
        x (T, N, ...): T time steps of N independent streams.
        cont (T, N): 0 where a sequence begins, 1 where it continues; the state is multiplied by it.
        x_static (N, ...), optional: an input that is the same at all steps.
        with `expose_hidden`, one (1, N, D) for each state: its value before the first step.
    Tops: y (T, N, D); with `expose_hidden`, one (1, N, D) for each state: its value after the
    last step. No gradient passes through the exposed states, as in Caffe.

    Without `expose_hidden` the state after the last step of one forward pass is the state before
    the first step of the next.

    Parameters: input weights (G*D, I), bias (G*D,), static weights (G*D, S) if there is a static
    input, recurrent weights (G*D, D), then what a subclass adds in `add_output_params`. G is the
    number of gates.

    Caffe builds an inner net of all time steps. Here what does not depend on the state is one
    matrix product over all steps, and a subclass steps through time in two methods:

        run(cont, states, y) -> states after the last step
        run_backward(cont, y, dy), which writes the gradient of the gate inputs to `_gates.grad`
    """

    gates = 1
    states = ("h",)
    in_place = False
    no_force_backward = (1,)

    def __init__(self, param, *args, **kwargs):
        super().__init__(param, *args, **kwargs)
        self.exposed = len(self.states) if param.recurrent_param.expose_hidden else 0
        self.min_bottom = 2 + self.exposed
        self.max_bottom = self.min_bottom + 1
        self.num_top = 1 + self.exposed

    # ---- shapes

    def setup(self, bottom, top):
        p = self.param.recurrent_param
        if p.num_output < 1:
            raise self.error("recurrent_param.num_output of at least 1", p.num_output)
        self.width, self.debug_info = p.num_output, p.debug_info
        self.static = len(bottom) == self.max_bottom
        self._check_axes(bottom)
        self.inputs = bottom[0].count_from(2)
        rows = self.gates * self.width
        self.add_param((rows, self.inputs), p.weight_filler)
        self.add_param((rows,), p.bias_filler)
        if self.static:
            self.static_inputs = bottom[2].count_from(1)
            self.add_param((rows, self.static_inputs), p.weight_filler)
        self.recurrent_param = len(self.blobs)
        self.add_param((rows, self.width), p.weight_filler)
        self.add_output_params(p)
        self._gates = self._blob()  # (T, N, G*D): array for forward, grad for backward
        self._h_before = self._blob()  # (T, N, D): cont * h of the step before
        self._state = [self._blob() for _ in self.states]
        # What a resumed training run must find as it was.
        self.state_blobs = () if self.exposed else tuple(self._state)

    def add_output_params(self, p):
        """Parameters that follow the recurrent weights."""

    def _check_axes(self, bottom):
        x, cont = bottom[0].shape, bottom[1].shape
        if len(x) < 3 or x[0] < 1:
            raise self.error("bottom 0 of shape (steps, streams, ...), 1 step or more", f"{x}")
        if cont != x[:2]:
            raise self.error(f"bottom 1, cont, of shape {x[:2]} (steps, streams)", f"{cont}")
        if self.static and (len(bottom[2].shape) < 2 or bottom[2].shape[0] != x[1]):
            raise self.error(
                f"bottom 2, the static input, of shape ({x[1]}, ...)", f"{bottom[2].shape}"
            )

    def reshape(self, bottom, top):
        # NOTE: Caffe refuses another number of steps than at set-up; here any will do.
        self._check_axes(bottom)
        steps, streams = bottom[0].shape[:2]
        self._check_inputs(bottom[0], 2, self.inputs)
        if self.static:
            self._check_inputs(bottom[2], 1, self.static_inputs)
        state = (1, streams, self.width)
        for blob in bottom[2 + self.static :]:
            if blob.shape != state:
                raise self.error(f"hidden state bottoms of shape {state}", f"{blob.shape}")
        self._gates.reshape(steps, streams, self.gates * self.width)
        self._h_before.reshape(steps, streams, self.width)
        for blob in self._state:
            blob.reshape(*state)
        top[0].reshape(steps, streams, self.width)
        for blob in top[1:]:
            blob.reshape(*state)

    def _check_inputs(self, blob, axis, expected):
        if blob.count_from(axis) != expected:
            raise self.error(
                f"{expected} inputs from axis {axis} on, as when it was set up",
                f"{blob.count_from(axis)}, from bottom shape {blob.shape}",
            )

    # ---- forward

    def forward(self, bottom, top):
        self._input_gates(bottom)
        before = bottom[2 + self.static :] if self.exposed else self._state
        after = top[1:] if self.exposed else self._state
        cont = bottom[1].array[..., None]  # (T, N) -> (T, N, 1)
        states = self.run(cont, [b.array[0] for b in before], top[0].array)
        for blob, values in zip(after, states):
            blob.array[0] = values
        if self.debug_info:
            self._debug("Forward", "data", top[0].array)

    def _input_gates(self, bottom):
        """What the inputs contribute to the gates, for all steps at once."""
        matmul, gates = self.device.kernels.blas.matmul, self._gates.array
        flat = rows(gates, 2)  # (T, N, G*D) -> (T*N, G*D)
        matmul(rows(bottom[0].array, 2), self.blobs[0].array.T, flat)
        flat += self.blobs[1].array
        if self.static:
            gates += rows(bottom[2].array, 1) @ self.blobs[2].array.T

    # ---- backward

    def backward(self, top, propagate_down, bottom):
        self.refuse_gradient(propagate_down, 1, "the sequence indicators")
        cont = bottom[1].array[..., None]  # (T, N) -> (T, N, 1)
        self.run_backward(cont, top[0].array, top[0].grad)
        dgates = self._gates.grad
        flat = rows(dgates, 2)
        # NOTE: Caffe computes all of these whatever is asked for; here only what is.
        self._add_param_grad(0, flat, rows(bottom[0].array, 2))
        if self.param_propagate_down[1]:
            self.blobs[1].grad[...] += flat.sum(axis=0)
        self._add_param_grad(self.recurrent_param, flat, rows(self._h_before.array, 2))
        if propagate_down[0]:
            out = rows(bottom[0].grad, 2)
            self.device.kernels.blas.matmul(flat, self.blobs[0].array, out)
        if self.static:
            total = dgates.sum(axis=0)  # (T, N, G*D) -> (N, G*D)
            self._add_param_grad(2, total, rows(bottom[2].array, 1))
            if propagate_down[2]:
                out = rows(bottom[2].grad, 1)
                self.device.kernels.blas.matmul(total, self.blobs[2].array, out)
        first = 2 + self.static
        for blob, needed in zip(bottom[first:], propagate_down[first:]):
            if needed:
                blob.grad[...] = 0
        if self.debug_info:
            self._debug("Backward", "diff", dgates)

    def _add_param_grad(self, index, doutput, inputs):
        if self.param_propagate_down[index]:
            grad = self.blobs[index].grad
            self.device.kernels.blas.matmul(doutput.T, inputs, grad, add=True)

    def _debug(self, direction, kind, values):
        for t, step in enumerate(values):
            mean = float(abs(step).mean()) if step.size else 0.0
            log.info("    [%s] Layer %s, step %d %s: %g", direction, self.name, t + 1, kind, mean)


def rows(array, axis):
    """(a, b, ..., rest) as a matrix with the axes before `axis` as rows: (a*b*..., rest)."""
    # Not reshape(-1, ...), which cannot tell the rows of an empty array.
    return array.reshape(math.prod(array.shape[:axis]), math.prod(array.shape[axis:]))
