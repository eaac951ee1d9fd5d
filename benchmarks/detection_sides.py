"""The sides of detection_iterations.py: our detectors, and PyTorch with the same arithmetic."""

import tempfile

import numpy as np
from detection_cases import (
    OUTPUTS,
    computed_layers,
    draw_noise,
    fill_detector,
    given_blobs,
    make_job,
    training_stage,
)
from ours import gradients_of
from torch_side import Torch, TorchChannelsLast

WAITS = 10
"""Iterations in a row over which waiting is averaged: more than images are read ahead."""


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
        fill_detector(self.net)

    def run(self):
        if self.case.mode == "train":
            self.solver.step(1)
        else:
            self._detect()

    def _detect(self):
        from demitasse.detection.test import class_detections, im_detect

        cfg = self.job.cfg
        return class_detections(*im_detect(self.net, self.image, cfg), cfg)

    def waited(self):
        """Seconds an iteration waits for images, the mean of WAITS in a row; None when testing.

        Between turns the reader gets ahead, so those of the turns would not do.
        """
        if self.case.mode != "train":
            return None
        begin = self.wait_seconds()
        for _ in range(WAITS):
            self.run()
        return (self.wait_seconds() - begin) / WAITS

    def wait_seconds(self):
        """How long the net has waited for images, in all; the training log's `waited`."""
        return sum(getattr(node.layer, "wait_seconds", 0.0) for node in self.net.nodes)

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
            return {n: self.net.blobs[n].data.copy() for n in OUTPUTS}
        self.net.backward()
        found = {"loss": np.array([loss])}
        for node in self.net.nodes:
            for name, top in zip(node.param.top, node.tops):
                if node.loss_weights and any(node.loss_weights):
                    found[name] = top.data.copy()
        return found | gradients_of(self.net.params)


SIDES = {"ours": Ours, "torch": Torch, "torch-nhwc": TorchChannelsLast}
