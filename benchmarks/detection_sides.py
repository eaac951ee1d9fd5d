"""The sides of detection_iterations.py: ours, and PyTorch with the same arithmetic."""

import tempfile

import numpy as np
from cases import DECAY, MOMENTUM, RATE, sample
from detection_cases import (
    computed_layers,
    draw_noise,
    fill_weights,
    given_blobs,
    make_job,
    training_stage,
)
from ours import not_installed


class Ours:
    """The solver of tools/train_net.py, or the net and the steps of tools/test_net.py."""

    name = "demitasse"

    @staticmethod
    def missing():
        return ""

    def __init__(self, case, threads):
        from demitasse.detection import finite
        from demitasse.detection.train import make_solver

        self.case = case
        self.folder = tempfile.TemporaryDirectory()
        self.job = make_job(case, self.folder.name)
        if case.mode == "train":
            stage = training_stage(case, self.job)
            self.param = stage.net_param
            self.solver = make_solver(stage, f"{self.folder.name}/snapshot")
            self.solver.on_forward.append(finite.check_loss)
            self.net = self.solver.net
        else:
            self.param = self.job.read(self.job.network.test)
            self.net = self.job.open(self.job.network.test)
            self.image = draw_noise(0, case.height, case.width)
        fill_weights(self.net)

    def run(self):
        if self.case.mode == "train":
            self.solver.step(1)
        else:
            self._detect()

    def _detect(self):
        from demitasse.detection.test import class_detections, im_detect

        cfg = self.job.cfg
        return class_detections(*im_detect(self.net, self.image, cfg), cfg)

    def results(self):
        """The numbers of the first pass; what it was given is written to the case's file."""
        layers = computed_layers(self.param, self.net.phase)
        if self.case.mode == "train":
            self.net.clear_param_diffs()
            loss = self.net.forward()
        else:
            self._detect()
        blobs = {name: self.net.blobs[name].data.copy() for name in given_blobs(layers)}
        np.savez(self.case.given, **blobs)
        if self.case.mode == "test":
            return {n: self.net.blobs[n].data.copy() for n in ("cls_prob", "bbox_pred")}
        self.net.backward()
        found = {"loss": np.array([loss])}
        for node in self.net.nodes:
            for name, top in zip(node.param.top, node.tops):
                if node.loss_weights and any(node.loss_weights):
                    found[name] = top.data.copy()
        for name, blobs in self.net.params.items():
            for k, blob in enumerate(blobs):
                if blob.has_grad:
                    found[f"gradient of {name} {k}"] = sample(blob.diff)
        return found


class TorchDetector:
    """PyTorch, eager: convolutions, RPN, RoI pooling, region head; losses, gradients, SGD."""

    name = "PyTorch NCHW"
    channels_last = False

    @staticmethod
    def missing():
        return not_installed("torch")

    def __init__(self, case, threads):
        import torch
        from detection_torch import DetectorNet

        torch.set_num_threads(threads)
        self.torch, self.training = torch, case.mode == "train"
        param, arrays = self._parts(case)
        self.net = DetectorNet(param, arrays, self.training, self.channels_last)
        with np.load(case.given) as file:
            self.blobs = {name: self._tensor(file[name]) for name in file.files}
        if self.training:
            self.optimizer = torch.optim.SGD(
                self.net.groups(param, RATE, DECAY), lr=RATE, momentum=MOMENTUM
            )

    def _parts(self, case):
        """The layers to compute, and {layer name: arrays of weights}."""
        from demitasse.engine.net import Net
        from demitasse.engine.phase import TEST, TRAIN

        with tempfile.TemporaryDirectory() as folder:
            job = make_job(case, folder)
            if self.training:
                param = training_stage(case, job).net_param
            else:
                param = job.read(job.network.test)
        phase = TRAIN if self.training else TEST
        net = Net(param, phase, stages=("rpn", "fast_rcnn"))
        fill_weights(net)
        arrays = {name: [blob.data for blob in blobs] for name, blobs in net.params.items()}
        return computed_layers(param, phase), arrays

    def _tensor(self, values):
        tensor = self.torch.from_numpy(values)
        if values.ndim == 4 and self.channels_last:
            return tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor

    def run(self):
        if self.training:
            self._gradients()
            self.optimizer.step()
        else:
            with self.torch.inference_mode():
                self.net.run(**self.blobs)

    def _gradients(self):
        self.net.zero_grad(set_to_none=True)
        loss, parts = self.net.losses(**self.blobs)
        loss.backward()
        return {"loss": loss, **parts}

    def results(self):
        if not self.training:
            with self.torch.inference_mode():
                blobs = self.net.run(**self.blobs)
            return {name: blobs[name].numpy().copy() for name in ("cls_prob", "bbox_pred")}
        found = {
            name: np.array([float(value.detach())]) for name, value in self._gradients().items()
        }
        for (name, k), weight in zip(self.net.names, self.net.weights):
            if weight.grad is not None:
                found[f"gradient of {name} {k}"] = sample(weight.grad.contiguous().numpy())
        return found


class TorchDetectorChannelsLast(TorchDetector):
    """PyTorch with images and weights in channels_last."""

    name = "PyTorch NHWC"
    channels_last = True


SIDES = {"ours": Ours, "torch": TorchDetector, "torch-nhwc": TorchDetectorChannelsLast}
