"""The end of a training run: the detector's files, and the test of it."""

import os
from pathlib import Path

from . import bundle, report
from .opening import open_net
from .train import weights_name


def final_stem(job):
    """The name of a run's detector, without an ending: vgg16_faster_rcnn_final, for example, or
    with a folder models/pascal_voc/ZF ZF_faster_rcnn_final."""
    kind = {"fast_rcnn": "fast_rcnn", "rpn": "rpn"}.get(job.network.method, "faster_rcnn")
    return f"{os.path.basename(os.path.abspath(job.network.name))}_{kind}_final"


def finished(job):
    """The path of the detector's prototxt if the run has made it, else None."""
    step = job.run.steps.get("final")
    return None if step is None else job.run.path(step["detector"])


def remove_stage_weights(job):
    """Remove the weights of a finished run's stages: the detector has all that is needed of them.

    Pretrained weights stay, for other runs to begin with.
    """
    for stage in job.network.training:
        if stage.name in job.run.steps:
            Path(job.run.path(weights_name(stage.name))).unlink(missing_ok=True)


def save_detector(job, net, stem):
    """Write a detector's three files to the run's folder (see bundle.py)."""
    test = job.network.test
    bundle.save(job.run.path(stem), net, job.read(test), job.dataset.classes, job.cfg, test.stages)


def test(job, detector, dataset, proposals=None):
    """Test a run's detector on a data set, as a step of the run; returns the table as text.

    Detectors are measured by average precision, RPNs by the recall of their proposals.

    Args:
        detector: the path of its prototxt.
        proposals: a function that gives {record name: (R, 5)}, for Fast R-CNN.
    """

    def work():
        definition, weights, _, cfg = bundle.load(detector)
        folder = str(job.run.folder)
        if job.network.method == "rpn":
            net = open_net(definition, weights, cfg, stages=("rpn",), device=job.device)
            numbers, text = report.recall_and_report(net, dataset, cfg, folder)
        else:
            net = open_net(definition, weights, cfg, device=job.device)
            given = None if proposals is None else proposals()
            numbers, text = report.test_and_report(net, dataset, cfg, folder, given)
        return {"numbers": numbers, "text": text}

    # Not from the file: another data set may have been tested on since.
    return job.run.step(f"test on {dataset.name}", work)["text"]
