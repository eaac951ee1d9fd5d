"""Whole networks on a GPU beside PyTorch: python -m benchmarks.gpu_networks [--math tf32] [--save]

VGG16, ZF and ResNet-50 at their own image sizes, forward (TEST) and one training step (forward,
backward, update by SGD with momentum and weight decay), at batch 1 and 16 (forward) or 16 and 32
(training). Both sides have the same weights and inputs in one process and take turns; PyTorch is
eager, with cudnn.benchmark, as NCHW and as channels_last. Scores of forward passes are compared.
"""

import sys

import numpy as np

from . import gpu_common as common

NAMES = ("demitasse", "torch NCHW", "torch NHWC")
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "float16": 5e-2, "bfloat16": 2e-1}
CASES = [
    (network, mode, batch)
    for network in ("vgg16", "zf", "resnet50")
    for mode, batches in (("forward", (1, 16)), ("train", (16, 32)))
    for batch in batches
]


def measure(o, report, torch):
    """Print the table."""
    report()
    report(common.heads("", NAMES))
    for network, mode, batch in CASES:
        label = f"{network} {mode}, batch {batch}"
        if o.only.lower() in label.lower():
            common.attempt(
                report, label,
                lambda a=(network, mode, batch), label=label: line(o, report, torch, label, *a),
            )  # fmt: skip


def line(o, report, torch, label, network, mode, batch):
    """Compare and time one network."""
    import cupy
    from cases import Case

    case = Case(network, mode, batch, keep="minimal" if mode == "forward" else None)
    ours = Ours(case)
    sides = {NAMES[0]: ours.run}
    if torch:
        for name, last in zip(NAMES[1:], (False, True)):
            peer = Peer(torch, case, last, o.math)
            sides[name] = peer.run
            if mode == "forward":
                error = difference(ours.result(), peer.result())
                if not error <= TOLERANCE[o.math]:
                    report(f"{label:44}  {name} differs by {error:.1e} of the largest")
    report(f"{label:44}" + common.cells(common.take_turns(sides, 2 * o.seconds), NAMES))
    del sides, ours
    cupy.get_default_memory_pool().free_all_blocks()
    if torch:
        torch.cuda.empty_cache()


def difference(a, b):
    """Relative to the largest element."""
    return abs(a - b).max() / max(abs(b).max(), 1e-30)


class Ours:
    """A `caffe.Net` or a solver on the GPU."""

    def __init__(self, case):
        from ours import Demitasse

        self.side, self.case = Demitasse(case, 1), case
        self.run = self.side.run

    def result(self):
        """The scores."""
        (scores, *_) = self.side.results().values()
        return np.array(scores, np.float64)


class Peer:
    """The same in PyTorch."""

    def __init__(self, torch, case, last, math):
        from cases import (
            DECAY,
            MOMENTUM,
            RATE,
            compared_blobs,
            inputs,
            net_parameter,
            weight_arrays,
        )
        from torch_net import TorchNet

        self.torch, self.mode, self.math = torch, case.mode, math
        param = net_parameter(case)
        training = case.mode == "train"
        self.names = compared_blobs(param, case)
        self.net = TorchNet(
            param,
            weight_arrays(param, training, "float32"),
            training,
            training,
            last,
            self.names,
            "cuda",
        )
        layout = torch.channels_last if last else torch.contiguous_format
        self.blobs = {}
        for name, values in inputs(param).items():
            tensor = torch.from_numpy(values).cuda()
            tensor = tensor.long() if name == "label" else tensor.contiguous(memory_format=layout)
            self.blobs[name] = tensor
        if training:
            self.optimizer = torch.optim.SGD(
                self.net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
            )
            self.scaler = torch.amp.GradScaler("cuda", enabled=math == "float16")

    def run(self):
        """One pass of the mode; nothing waits for the GPU."""
        if self.mode == "forward":
            with self.torch.inference_mode(), common.autocast(self.torch, self.math):
                return self.net.run(**self.blobs)
        self.optimizer.zero_grad(set_to_none=True)
        with common.autocast(self.torch, self.math):
            loss = self.net.loss(**self.blobs)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return None

    def result(self):
        """The scores."""
        return self.run()[self.names[0]].double().cpu().numpy()


if __name__ == "__main__":
    sys.exit(common.main("gpu_networks", __doc__, measure))
