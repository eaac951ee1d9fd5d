"""Training in one stage: end to end, Fast R-CNN on given proposals, an RPN."""

import math
from pathlib import Path

import pytest
import tiny_net
from test_train import random_proposals
from tiny_run import assert_same, make_job, weights_of

from demitasse.detection import bundle, end2end, final
from demitasse.detection.config import merge
from demitasse.detection.loss_log import read_log
from demitasse.detection.opening import open_net
from demitasse.detection.test import test_net as detect_all
from demitasse.engine.errors import DataError

JOINT = merge(tiny_net.CFG, {"TRAIN": {"BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True}})


def proposals_of(split, count):
    return lambda: random_proposals(tiny_net.make_dataset(split, count))


def detector_weights(path):
    return weights_of(Path(path).with_suffix(".caffemodel"))


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A job that has been trained end to end, and its detector."""
    job = make_job(tmp_path_factory.mktemp("joint"), "end2end", cfg=JOINT)
    return job, end2end.train(job)


def test_the_detector_detects(joint):
    job, path = joint
    files = bundle.load(path)
    assert files.classes == tiny_net.CLASSES
    net = open_net(files.prototxt, files.weights, files.cfg)
    dataset = tiny_net.make_dataset("test", 3)
    found = detect_all(net, dataset, files.cfg, thresh=0.0)
    assert sum(len(boxes) for boxes in found[1]) > 0
    table = final.test(job, path, dataset)
    assert "mean AP" in table


def test_boxes_are_not_normalized_in_the_detector(joint):
    job, path = joint
    trained = weights_of(job.run.path("end2end_final.caffemodel"))
    found = detector_weights(path)
    learnt = [name for name, blobs in found.items() if blobs]
    assert_same({n: found[n] for n in learnt}, {n: trained[n] for n in learnt})
    # The targets are divided by 0.1, 0.1, 0.2, 0.2, so weights of the widths' are folded by more.
    weights = trained["bbox_pred"][0].reshape(3, 4, -1)
    assert abs(weights[:, 2:]).mean() > 1.5 * abs(weights[:, :2]).mean()


def test_the_same_seed_gives_the_same_detector(joint, tmp_path):
    again = end2end.train(make_job(tmp_path, "end2end", cfg=JOINT))
    assert_same(detector_weights(again), detector_weights(joint[1]))
    other = end2end.train(make_job(tmp_path / "b", "end2end", cfg=merge(JOINT, {"RNG_SEED": 8})))
    assert any(
        (a != b).any()
        for name, blobs in detector_weights(other).items()
        for a, b in zip(blobs, detector_weights(joint[1])[name])
    )


def test_both_losses_are_learnt_from(joint):
    entries = read_log(joint[0].run.path("losses.jsonl"))
    assert len(entries) == 8
    for entry in entries:
        parts = [entry[k] for k in ("rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox")]
        assert math.isclose(entry["loss"], sum(parts), rel_tol=1e-5)


def test_iterations_of_the_command_line_come_before_those_of_the_config(tmp_path):
    cfg = merge(JOINT, {"SOLVER": {"END2END_ITERS": 2}})
    for iters, expected in ((None, 2), ([3], 3), (0, 0)):
        job = make_job(tmp_path / str(iters), "end2end", cfg=cfg)
        end2end.train(job, iters)
        log = Path(job.run.path("losses.jsonl"))
        assert (len(read_log(log)) if log.exists() else 0) == expected


def test_two_images_a_batch(tmp_path):
    cfg = merge(JOINT, {"TRAIN": {"IMS_PER_BATCH": 2}})
    end2end.train(make_job(tmp_path, "end2end", cfg=cfg), 2)
    assert len(read_log(tmp_path / "run" / "losses.jsonl")) == 2


def test_fast_rcnn_learns_from_given_proposals_and_is_tested_with_them(tmp_path):
    job = make_job(tmp_path, "fast_rcnn")
    with pytest.raises(DataError, match="proposals of image"):
        end2end.train(job, proposals=proposals_of("other", 3))
    path = end2end.train(job, proposals=proposals_of("train", 6))
    files = bundle.load(path)
    assert Path(path).name == "tiny_fast_rcnn_final.prototxt"
    assert open_net(files.prototxt, files.weights, files.cfg).inputs == ["data", "rois"]
    table = final.test(job, path, tiny_net.make_dataset("test", 3), proposals_of("test", 3))
    assert "mean AP" in table


def test_fast_rcnn_is_validated_with_proposals(tmp_path):
    val = tiny_net.make_dataset("val", 3)
    job = make_job(tmp_path, "fast_rcnn", val_dataset=val, eval_interval=4)
    end2end.train(job, None, proposals_of("train", 6), proposals_of("val", 3))
    found = [e["iteration"] for e in read_log(job.run.path("losses.jsonl")) if "mAP" in e]
    assert found == [4, 8]


def test_an_rpn_alone(tmp_path):
    path = end2end.train(make_job(tmp_path, "rpn"))
    files = bundle.load(path)
    net = open_net(files.prototxt, files.weights, files.cfg, stages=("rpn",))
    assert set(net.outputs) >= {"rois", "scores"}
