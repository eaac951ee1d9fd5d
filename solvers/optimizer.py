"""One update of a net's parameters (Caffe: SGDSolver::ApplyUpdate)."""

import logging
import math

import numpy as np

from ..engine.blob import Blob
from ..engine.errors import OutOfMemoryError
from . import learning_rate as rates
from . import updates

log = logging.getLogger("demitasse.solver")


class Optimizer:
    """Applies an update rule to all parameters of a net.

    Attributes:
        rule: the `updates.Rule`.
        history: Blobs of what the rule remembers: one for each parameter, then, for rules with
            two histories, a second one for each. Caffe's files have the same order.
        current_step: how many steps down the learning rate has gone.
    """

    def __init__(self, rule, net):
        self.rule = rule
        self.param = rule.param  # SolverParameter
        self.net = net
        self.history = [
            Blob(p.blob.shape, net.dtype, net.device)
            for _ in range(rule.histories)
            for p in net.learnable
        ]
        self.current_step = 0

    def learning_rate(self, iteration):
        """The learning rate of an iteration, the next one or the one that is running."""
        rates.check_policy(self.param)
        step = rates.current_step(self.param, iteration, self.current_step)
        return rates.learning_rate(self.param, iteration, step)

    def update(self, iteration, loss_scale=1.0, skip=False):
        """Update the parameters from their gradients, which are left as what was subtracted.

        In this order, as in Caffe: clip the gradients summed over iter_size, divide by it, add
        the regularisation, apply the rule.

        Args:
            loss_scale: how many times as large as they are meant to be the gradients are.
            skip: change nothing if the gradients are not finite.

        Returns: the factor that clips and the norm of all gradients as they are, an array of two
            on the net's device; None where neither was asked for.
        """
        rate = self._next_rate(iteration)
        clipping = self._clipping(iteration, loss_scale, skip)
        clip = 1.0 if clipping is None else clipping
        if clipping is not None and self.net.device.is_host:
            clip = float(clipping[0])
            if math.isnan(clip):
                return clipping
        scales = (clip, 1 / (self.param.iter_size * loss_scale))
        learnable = self.net.learnable
        with np.errstate(all="ignore"):  # the solver tells of a loss that is not finite
            for i, parameter in enumerate(learnable):
                history = self.history[i :: len(learnable)]
                local_rate = rate * parameter.lr_mult
                self._update_one(parameter, history, scales, local_rate, iteration)
        return clipping

    def _update_one(self, parameter, history, scales, rate, iteration):
        if rate == 0 and self.rule.resting and not history[0].has_data:
            return  # a frozen parameter takes neither time nor memory
        p, blob = self.param, parameter.blob
        decay = p.weight_decay * parameter.decay_mult, p.regularization_type == "L1"
        try:
            updates.update(
                self.rule, self.net.device, blob.array, blob.grad, [h.array for h in history],
                scales, decay, self.rule.constants(rate, iteration),
            )  # fmt: skip
        except MemoryError as error:
            layer = self.net.nodes[parameter.layer].name
            raise OutOfMemoryError.at(f"the update of layer {layer!r}", error) from error

    def _next_rate(self, iteration):
        p = self.param
        rate = self.learning_rate(iteration)
        step = rates.current_step(p, iteration, self.current_step)
        if p.lr_policy == "multistep" and step != self.current_step:
            log.info("MultiStep Status: Iteration %d, step = %d", iteration, step)
        self.current_step = step
        if self._shown(iteration):
            log.info("Iteration %d, lr = %g", iteration, rate)
        return rate

    def _clipping(self, iteration, loss_scale, skip):
        """The factor of all gradients that clip_gradients asks for, NaN for no update, and norm."""
        clips, device = self.param.clip_gradients >= 0, self.net.device
        grads = [p.blob.grad for p in self.net.learnable if p.blob.has_grad]
        if not grads or not (clips or skip):
            return None
        limit = self.param.clip_gradients * loss_scale if clips else math.inf
        if device.is_host:
            clipping = updates.clip_factor(grads, limit, skip)
        else:
            clipping = device.kernels.update.clip_factor(grads, limit, skip=skip)
        if clips and (device.is_host or self._shown(iteration)):
            scale, norm = device.to_host(clipping).tolist()
            self._tell_of_clipping(scale, norm / loss_scale)
        return clipping

    def _tell_of_clipping(self, scale, norm):
        if scale < 1:
            log.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm, self.param.clip_gradients, scale,
            )  # fmt: skip

    def _shown(self, iteration):
        return self.param.display and iteration % self.param.display == 0
