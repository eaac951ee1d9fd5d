"""One update of a net's parameters (Caffe: SGDSolver::ApplyUpdate)."""

import logging

import numpy as np

from ..engine.blob import Blob
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

    def update(self, iteration):
        """Update the parameters from their gradients, which are left as what was subtracted.

        In this order, as in Caffe: clip the gradients summed over iter_size, divide by it, add
        the regularisation, apply the rule.
        """
        rate = self._next_rate(iteration)
        scales = (self._clip_scale(), 1 / self.param.iter_size)
        learnable = self.net.learnable
        with np.errstate(all="ignore"):  # the solver tells of a loss that is not finite
            for i, parameter in enumerate(learnable):
                history = self.history[i :: len(learnable)]
                local_rate = rate * parameter.lr_mult
                self._update_one(parameter, history, scales, local_rate, iteration)

    def _update_one(self, parameter, history, scales, rate, iteration):
        if rate == 0 and self.rule.resting and not history[0].has_data:
            return  # a frozen parameter takes neither time nor memory
        p, blob = self.param, parameter.blob
        decay = p.weight_decay * parameter.decay_mult, p.regularization_type == "L1"
        updates.update(
            self.rule, self.net.device, blob.array, blob.grad, [h.array for h in history],
            scales, decay, self.rule.constants(rate, iteration),
        )  # fmt: skip

    def _next_rate(self, iteration):
        p = self.param
        rate = self.learning_rate(iteration)
        step = rates.current_step(p, iteration, self.current_step)
        if p.lr_policy == "multistep" and step != self.current_step:
            log.info("MultiStep Status: Iteration %d, step = %d", iteration, step)
        self.current_step = step
        if p.display and iteration % p.display == 0:
            log.info("Iteration %d, lr = %g", iteration, rate)
        return rate

    def _clip_scale(self):
        """The factor of all gradients that clip_gradients asks for."""
        limit = self.param.clip_gradients
        if limit < 0:
            return 1.0
        grads = [p.blob.grad for p in self.net.learnable if p.blob.has_grad]
        scale, norm = updates.clip_scale(grads, limit)
        if scale != 1:
            log.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm, limit, scale,
            )  # fmt: skip
        return scale
