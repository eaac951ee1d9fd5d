"""Alternating training: the four stages, what they share, and going on after a kill."""

import dataclasses
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import py_faster_rcnn
import pytest
import tiny_net
import tiny_run
from tiny_run import ITERS, assert_same, make_job, weights_of

import caffe
from demitasse.detection import alt_opt, bundle, final, networks, train
from demitasse.detection.config import merge
from demitasse.detection.job import Job
from demitasse.detection.loss_log import read_log
from demitasse.detection.proposals import load_proposals
from demitasse.detection.run_folder import Run
from demitasse.engine import weights as weight_files

SHARED = {"conv1", "conv2", "conv3"}
RPN = {"rpn_conv/3x3", "rpn_cls_score", "rpn_bbox_pred"}
HEAD = {"fc6", "cls_score", "bbox_pred"}
STAGES = ["stage1_rpn", "stage1_fast_rcnn", "stage2_rpn", "stage2_fast_rcnn"]
STEPS = [
    "stage1_rpn", "stage1_proposals", "stage1_fast_rcnn", "stage2_rpn", "stage2_proposals",
    "stage2_fast_rcnn", "final",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of an uninterrupted run, and its detector."""
    job = make_job(tmp_path_factory.mktemp("finished"))
    return job.run.folder, alt_opt.train(job, ITERS)


@pytest.fixture(scope="module")
def stages(finished):
    """{stage name: weights} of that run."""
    return stage_weights(finished[0])


def stage_weights(folder):
    return {name: weights_of(folder / f"{name}_final.caffemodel") for name in STAGES}


def only(weights, names):
    return {name: weights[name] for name in names}


# ---- the stages


def test_state_lists_the_steps_and_their_files(finished):
    state = json.loads((finished[0] / "state.json").read_text())
    assert list(state["steps"]) == STEPS
    for result in state["steps"].values():
        for name in result.values():
            assert (finished[0] / name).is_file()
    assert not (finished[0] / "snapshots").exists()


def test_each_stage_trains_for_its_iterations(finished):
    logged = [(e["stage"], e["iteration"]) for e in read_log(finished[0] / "losses.jsonl")]
    assert logged == [(name, k + 1) for name, n in zip(STAGES, ITERS) for k in range(n)]


def test_shared_convolutions_are_learnt_in_stage_two_and_then_stay(stages):
    first, second = stages["stage1_rpn"], stages["stage1_fast_rcnn"]
    for name in SHARED:
        assert (first[name][0] != second[name][0]).any()
    for later in ("stage2_rpn", "stage2_fast_rcnn"):
        assert_same(only(stages[later], SHARED), only(second, SHARED))


def test_what_each_task_has_alone_goes_on_learning(stages):
    for earlier, later, names in (
        ("stage1_rpn", "stage2_rpn", RPN),
        ("stage1_fast_rcnn", "stage2_fast_rcnn", HEAD),
    ):
        for name in names:
            assert (stages[earlier][name][0] != stages[later][name][0]).any()


def test_later_stages_begin_with_what_the_earlier_ones_of_their_task_learnt(tmp_path):
    job = make_job(tmp_path)
    alt_opt.train(job, [3, 3, 0, 0])
    weights = stage_weights(job.run.folder)
    assert_same(only(weights["stage2_rpn"], RPN), only(weights["stage1_rpn"], RPN))
    assert_same(only(weights["stage2_rpn"], SHARED), only(weights["stage1_fast_rcnn"], SHARED))
    for name in HEAD:  # normalized by other statistics in between, so equal up to rounding
        for a, b in zip(weights["stage2_fast_rcnn"][name], weights["stage1_fast_rcnn"][name]):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_detector_has_the_last_weights_of_each_part(finished, stages):
    files = bundle.load(finished[1])
    found = weights_of(files.weights)
    assert_same(only(found, SHARED | HEAD), only(stages["stage2_fast_rcnn"], SHARED | HEAD))
    assert_same(only(found, RPN), only(stages["stage2_rpn"], RPN))
    assert set(found) - {n for n, b in found.items() if not b} == SHARED | RPN | HEAD
    assert files.classes == tiny_net.CLASSES


def test_plain_caffe_opens_the_detector(finished):
    files = bundle.load(finished[1])
    net = caffe.Net(files.prototxt, files.weights, caffe.TEST)
    net.blobs["data"].reshape(1, 3, 48, 64)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(0, 40, (1, 3, 48, 64))
    net.blobs["im_info"].data[...] = 48, 64, 1
    found = net.forward()
    assert found["cls_prob"].shape == (len(net.blobs["rois"].data), 3)
    assert found["bbox_pred"].shape == (len(net.blobs["rois"].data), 12)


def test_proposals_are_those_of_the_rpn_of_that_stage(finished):
    folder = finished[0]
    found = load_proposals(folder / "stage2_proposals.npz")
    assert set(found) == {record.name for record in tiny_net.make_dataset().records}
    for boxes in found.values():
        assert 0 < len(boxes) <= tiny_net.CFG.TRAIN.RPN_POST_NMS_TOP_N
        assert (boxes[:, :4] >= 0).all() and (boxes[:, 2] < 64).all() and (boxes[:, 3] < 48).all()
    first = load_proposals(folder / "stage1_proposals.npz")
    assert any(found[k].shape != first[k].shape or (found[k] != first[k]).any() for k in found)


# ---- going on


def test_killed_in_every_stage_and_resumed_it_ends_with_the_same_weights(finished, tmp_path):
    deaths = [
        ("log", "stage1_rpn", 4), ("proposals", "stage1_proposals", 0),
        ("forward", "stage1_fast_rcnn", 5), ("snapshot", "stage2_rpn", 3),
        ("log", "stage2_fast_rcnn", 7), ("weights", "stage2_fast_rcnn", 0),
    ]  # fmt: skip
    for death in deaths:
        assert run_program(tmp_path, *map(str, death)) == -9, death
    assert run_program(tmp_path) == 0
    name = Path(finished[1]).with_suffix(".caffemodel").name
    assert_same(weights_of(tmp_path / "run" / name), weights_of(finished[0] / name))
    logged = [(e["stage"], e["iteration"]) for e in read_log(tmp_path / "run" / "losses.jsonl")]
    assert len(logged) == len(set(logged)) == sum(ITERS)


def run_program(folder, *death):
    """The exit status of tiny_run.py as a process of its own."""
    program = [sys.executable, tiny_run.__file__, str(folder), *death]
    process = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert process.returncode in (0, -9), process.stderr
    return process.returncode


def test_a_finished_run_does_nothing_again(finished, monkeypatch):
    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("demitasse.detection.job.train", never)
    job = make_job(finished[0].parent, resume=True)
    assert Path(alt_opt.train(job, ITERS)) == Path(finished[1])


# ---- beginnings


def test_given_weights_begin_both_first_stages(finished, tmp_path):
    given = str(finished[0] / "stage2_fast_rcnn_final.caffemodel")
    job = make_job(tmp_path, weights=given)
    alt_opt.train(job, 0)
    for name in ("stage1_rpn", "stage1_fast_rcnn"):
        found = weights_of(job.run.path(f"{name}_final.caffemodel"))
        assert_same(only(found, SHARED), only(weights_of(given), SHARED))


def test_pretraining_is_a_step_of_the_run_that_gives_the_first_weights(
    finished, tmp_path, monkeypatch
):
    calls = []

    def pretrain(net_param, dataset, cfg, folder, log, snapshots, net_folder, device):
        large = len(net_param.layer) > 20
        calls.append((net_param.name, dataset.name, cfg.RNG_SEED, large, net_folder))
        log.add(1, {"loss": 2.5})
        net = job.open(job.network.test)
        net.params["conv1"][0].data[...] = 0.125
        path = f"{folder}/pretrained.caffemodel"
        weight_files.save(net, path)
        return path

    module = types.SimpleNamespace(pretrain=pretrain)
    monkeypatch.setitem(sys.modules, "demitasse.detection.pretrain", module)
    cfg = merge(tiny_net.CFG, {"PRETRAIN": {"ITERS": 3}})
    job = make_job(tmp_path, cfg=cfg)
    alt_opt.train(job, [0, 1, 0, 0])
    beside = str(tmp_path / "tiny")
    assert calls == [("tiny", "tiny_train", tiny_net.CFG.RNG_SEED, True, beside)]
    assert job.run.steps["pretrain"] == {"weights": "pretrained.caffemodel"}
    found = weights_of(job.run.path("stage1_rpn_final.caffemodel"))
    assert (found["conv1"][0] == 0.125).all()
    assert read_log(job.run.path("losses.jsonl"))[0]["stage"] == "pretrain"
    alt_opt.train(make_job(tmp_path, resume=True, cfg=cfg), [0, 1, 0, 0])
    other = make_job(tmp_path / "without", cfg=cfg)
    alt_opt.train(other, 0)  # nothing is trained at all
    given = make_job(tmp_path / "given", cfg=cfg, weights=job.run.path("pretrained.caffemodel"))
    alt_opt.train(given, 0)
    assert len(calls) == 1


# ---- validation and the end


def test_validation_measures_recall_of_rpns_and_precision_of_detectors(finished, tmp_path):
    options = {"val_dataset": tiny_net.make_dataset("val", 4), "eval_interval": 4}
    job = make_job(tmp_path, **options)
    detector = alt_opt.train(job, ITERS)
    found = {
        (e["stage"], e["iteration"], key): e[key]
        for e in read_log(job.run.path("losses.jsonl"))
        for key in ("recall", "mAP")
        if key in e
    }
    assert sorted(found) == sorted(
        [(f"stage{s}_rpn", k, "recall") for s in (1, 2) for k in (4, 5)]
        + [(f"stage{s}_fast_rcnn", k, "mAP") for s in (1, 2) for k in (4, 8)]
    )
    assert all(0 <= value <= 1 for value in found.values())
    name = Path(detector).with_suffix(".caffemodel").name
    assert_same(weights_of(job.run.path(name)), weights_of(finished[0] / name))


def test_a_run_that_was_stopped_goes_on_with_other_images_to_validate_on(tmp_path):
    """Their proposals are steps of their own: those to train on may be there without them."""
    job = make_job(tmp_path)
    rpn1, fast1 = job.network.training[:2]
    alt_opt._propose(job, "stage1_proposals", job.train(rpn1, [], 1))
    assert list(job.run.steps) == ["stage1_rpn", "stage1_proposals"]
    for name in ("one", "two"):
        val = dataclasses.replace(tiny_net.make_dataset(name, 2), name=name)
        again = make_job(tmp_path, resume=True, val_dataset=val, eval_interval=1)
        found = alt_opt._propose(again, "stage1_proposals", again.train(rpn1, [], 1))
        assert set(found["val_proposals"]()) == {record.name for record in val.records}
    again.train(fast1, [], 1, **found)
    assert "mAP" in read_log(again.run.path("losses.jsonl"))[-1]


def test_the_test_writes_its_results_and_is_a_step(finished, tmp_path):
    dataset = tiny_net.make_dataset("test", 4)
    job = make_job(finished[0].parent, resume=True)
    table = final.test(job, finished[1], dataset)
    assert "mean AP" in table and all(name in table for name in tiny_net.CLASSES[1:])
    for name in ("average_precision.txt", "detections.json", "sheet.png", "loss.png"):
        assert (finished[0] / name).stat().st_size > 0
    assert 0 <= job.run.steps["test on tiny_test"]["numbers"]["mAP"] <= 1
    (finished[0] / "sheet.png").unlink()
    assert final.test(job, finished[1], dataset) == table
    assert not (finished[0] / "sheet.png").exists()  # it was not done a second time
    other = final.test(job, finished[1], tiny_net.make_dataset("other", 2))
    assert "on tiny_other" in other != table
    again = make_job(finished[0].parent, resume=True)
    assert final.test(again, finished[1], dataset) == table


def test_wrong_numbers_of_iterations(tmp_path):
    with pytest.raises(train.SolverError, match="one number, or 4"):
        alt_opt.train(make_job(tmp_path), [1, 2])


# ---- py-faster-rcnn's files


def test_py_faster_rcnns_files_train_as_they_are(tmp_path):
    """Its ten files, which say themselves what is frozen, with fewer channels to be quick."""
    folder = py_faster_rcnn.write(tmp_path, "ZF")
    for path in folder.rglob("*.p*t*"):
        if path.is_file():
            narrow = re.sub(r"num_output: (96|256|384|4096)\b", "num_output: 8", path.read_text())
            path.write_text(narrow.replace(f"dim: {256 * 36}", f"dim: {8 * 36}"))
    network = networks.find(folder, "alt_opt")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = Run.open(tmp_path / "run", {})
    cfg = merge(tiny_net.CFG, {"ANCHOR_SCALES": None, "ANCHOR_RATIOS": None})
    job = Job(network, tiny_net.make_dataset(), cfg, run)
    detector = alt_opt.train(job, 2)
    weights = stage_weights(run.folder)
    convolutions = {f"conv{k}" for k in range(1, 6)}
    for later in ("stage2_rpn", "stage2_fast_rcnn"):
        same = only(weights["stage1_fast_rcnn"], convolutions)
        assert_same(only(weights[later], convolutions), same)
    rpn = {"rpn_conv1", "rpn_cls_score", "rpn_bbox_pred"}
    found = weights_of(Path(detector).with_suffix(".caffemodel"))
    assert_same(only(found, rpn), only(weights["stage2_rpn"], rpn))
    head = {"fc6", "fc7", "cls_score", "bbox_pred"}
    assert_same(only(found, head), only(weights["stage2_fast_rcnn"], head))
    assert found["cls_score"][0].shape == (3, 8)
    assert {path: path.read_bytes() for path in before} == before
