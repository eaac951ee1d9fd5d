"""PyTorch, as a side of a comparison of nets or detectors: it computes a case's Workload."""

import numpy as np
from cases import DECAY, MOMENTUM, RATE, sample
from ours import not_installed


class Torch:
    """PyTorch, eager: a forward pass, gradients too, or a step of SGD."""

    name = "PyTorch NCHW"
    channels_last = False

    @staticmethod
    def missing():
        return not_installed("torch")

    def __init__(self, case, threads):
        import torch
        from torch_net import TorchNet

        torch.set_num_threads(threads)
        self.torch = torch
        self.backward, training = case.mode in ("backward", "train"), case.mode == "train"
        work = case.workload()
        self.compared = [] if self.backward else work.compared
        self.net = TorchNet(
            work.net, work.arrays, training, self.backward, self.channels_last, self.compared
        )
        self.blobs = {name: self._tensor(values) for name, values in work.inputs.items()}
        self.optimizer = None
        if training:
            groups = self.net.parameter_groups(RATE, DECAY)
            self.optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)

    def _tensor(self, values):
        tensor = self.torch.from_numpy(values)
        if values.ndim == 4 and self.channels_last:
            return tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor

    def run(self):
        if self.backward:
            self._gradients()
        else:
            self._forward()
        if self.optimizer:
            self.optimizer.step()

    def _forward(self):
        with self.torch.inference_mode():
            return self.net.run(**self.blobs)

    def _gradients(self):
        self.net.zero_grad(set_to_none=True)
        loss, losses = self.net.losses(**self.blobs)
        loss.backward()
        return {**losses, "loss": loss}

    def results(self):
        if not self.backward:
            blobs = self._forward()
            return {name: blobs[name].contiguous().numpy().copy() for name in self.compared}
        losses = self._gradients()
        found = {name: np.array([float(loss.detach())]) for name, loss in losses.items()}
        for (name, k), weight in zip(self.net.names, self.net.weights):
            if weight.grad is not None:
                found[f"gradient of {name} {k}"] = sample(weight.grad.contiguous().numpy())
        return found


class TorchChannelsLast(Torch):
    """PyTorch with images and weights in channels_last."""

    name = "PyTorch NHWC"
    channels_last = True
