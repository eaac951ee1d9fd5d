"""One stage of training: weights in, weights out, what it writes, and what stops it."""

import dataclasses
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_net
from tiny_run import assert_same, weights_of

from caffe.proto import caffe_pb2
from demitasse.detection import adapt, finite, minibatch, normalization, roidb, train
from demitasse.detection.config import merge
from demitasse.detection.loss_log import read_log
from demitasse.detection.roidb import BoxStatistics
from demitasse.engine import weights as weight_files
from demitasse.engine.errors import NetError, SolverError
from demitasse.engine.net import Net
from demitasse.engine.prototxt import parse_text

SOLVER = """base_lr: 0.001 lr_policy: "fixed" max_iter: 8 momentum: 0.9 weight_decay: 0.0005
snapshot_after_train: false """


def make_stage(folder, kind="fast_rcnn", name="stage", solver="", frozen=(), **changes):
    """A stage of the tiny net on six images."""
    dataset = tiny_net.make_dataset()
    has_rpn = kind != "fast_rcnn"
    cfg = merge(tiny_net.CFG, {"TRAIN": {"HAS_RPN": has_rpn}})
    entries = roidb.make_roidb(dataset, True, None if has_rpn else random_proposals(dataset))
    statistics = normalization.given(cfg.TRAIN, 3)
    if not has_rpn:
        entries = roidb.filter_roidb(entries, cfg)
        statistics = roidb.add_bbox_regression_targets(entries, cfg, 3)
    param, _ = adapt.adapt_net(tiny_net.net_param(), 3, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS)
    stage = train.Stage(
        name=name, net_param=adapt.freeze(param, frozen),
        net_stages=("rpn", "fast_rcnn") if kind == "end2end" else (kind,), net_folder=None,
        solver_param=parse_text(SOLVER, caffe_pb2.SolverParameter), cfg=cfg,
        batches=minibatch.RoiBatches(entries, cfg, 3, seed=5), statistics=statistics,
        seed=5, folder=str(folder),
    )  # fmt: skip
    stage.solver_param.MergeFrom(parse_text(solver, caffe_pb2.SolverParameter))
    return dataclasses.replace(stage, **changes)


def random_proposals(dataset):
    """Boxes that are objects moved a little, and some anywhere."""
    rng, found = np.random.default_rng(0), {}
    for record in dataset.records:
        moved = np.repeat(record.boxes, 4, 0) + rng.uniform(-4, 4, (4 * len(record.boxes), 4))
        corners = rng.uniform(0, 30, (10, 2))
        anywhere = np.hstack([corners, corners + rng.uniform(5, 17, (10, 2))])
        found[record.name] = np.clip(np.concatenate([moved, anywhere]), 0, 47).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders and final weights of a stage of each kind."""
    found = {}
    for kind in ("rpn", "fast_rcnn", "end2end"):
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = folder, weights_of(folder / train.train(make_stage(folder, kind)))
    return found


# ---- what comes out


@pytest.mark.parametrize("kind", ["rpn", "fast_rcnn", "end2end"])
def test_the_same_seed_gives_the_same_weights_and_another_one_others(kind, trained, tmp_path):
    again = weights_of(tmp_path / train.train(make_stage(tmp_path, kind)))
    assert_same(again, trained[kind][1])
    other = weights_of(tmp_path / train.train(make_stage(tmp_path, kind, "other", seed=6)))
    assert any((a != b).any() for n in other for a, b in zip(other[n], again[n]))


def test_training_lowers_the_loss(tmp_path):
    stage = make_stage(tmp_path, "fast_rcnn", solver="max_iter: 150")
    train.train(stage)
    losses = [entry["loss"] for entry in read_log(tmp_path / "losses.jsonl")]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])


def test_frozen_layers_keep_their_weights(tmp_path):
    frozen = ("conv1", "conv2")
    start = weights_of(tmp_path / train.train(make_stage(tmp_path, solver="max_iter: 0")))
    sources = [train.Source(str(tmp_path / "stage_final.caffemodel"))]
    stage = make_stage(tmp_path, name="frozen", frozen=frozen, sources=sources)
    end = weights_of(tmp_path / train.train(stage))
    for name in start:
        changed = any((a != b).any() for a, b in zip(start[name], end[name]))
        assert changed == (name in ("conv3", "fc6", "cls_score", "bbox_pred")), name


# ---- initial weights


def test_weights_of_another_number_of_classes_are_left_out_and_named(trained, tmp_path, caplog):
    path = str(trained["fast_rcnn"][0] / "stage_final.caffemodel")
    stage = make_stage(tmp_path, sources=[train.Source(path, strict=True)])
    stage.net_param, _ = adapt.adapt_net(stage.net_param, 5)
    stage.statistics = BoxStatistics(np.zeros((5, 4)), np.ones((5, 4)))
    solver = train.make_solver(stage, str(tmp_path / "s"))
    with caplog.at_level(logging.INFO):
        train.load_sources(solver.net, stage)
    np.testing.assert_array_equal(
        solver.net.params["conv1"][0].data, trained["fast_rcnn"][1]["conv1"][0]
    )
    assert "of another shape in the file, so begun anew: bbox_pred, cls_score" in caplog.text


def test_weights_that_fit_nowhere_are_an_error(tmp_path):
    net = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
    net += """layer { name: "other" type: "InnerProduct" bottom: "x" top: "y"
              inner_product_param { num_output: 2 } }"""
    path = str(tmp_path / "other.caffemodel")
    weight_files.save(Net(parse_text(net, caffe_pb2.NetParameter), caffe_pb2.TEST), path)
    with pytest.raises(SolverError, match="Are they of another network"):
        train.train(make_stage(tmp_path, sources=[train.Source(path, strict=True)]))


def test_a_source_gives_only_the_layers_that_are_wanted(trained, tmp_path):
    path = str(trained["end2end"][0] / "stage_final.caffemodel")
    source = train.Source(path, lambda name: name.startswith("conv"))
    stage = make_stage(tmp_path, "rpn", sources=[source])
    solver = train.make_solver(stage, str(tmp_path / "s"))
    train.load_sources(solver.net, stage)
    given = trained["end2end"][1]
    same = {
        name for name, blobs in solver.net.params.items() if (blobs[0].data == given[name][0]).all()
    }
    assert same == {"conv1", "conv2", "conv3"}


# ---- normalization


@pytest.mark.parametrize("name", ["bbox_pred", "my_box"])
def test_saved_weights_predict_boxes_that_are_not_normalized(name, tmp_path):
    """Whatever the layer is called that has the top bbox_pred."""
    stage = make_stage(tmp_path, solver="max_iter: 0")
    layer_named(stage, "bbox_pred").name = name
    solver = train.make_solver(stage, str(tmp_path / "s"))
    weights, biases = (blob.data.copy() for blob in solver.net.params[name])
    saved = weights_of(tmp_path / train.train(stage))
    means, stds = stage.statistics.means.ravel(), stage.statistics.stds.ravel()
    assert (stds != 1).any() and (means != 0).any()
    x = np.random.default_rng(1).standard_normal(weights.shape[1])
    np.testing.assert_allclose(
        saved[name][0] @ x + saved[name][1], (weights @ x + biases) * stds + means,
        rtol=1e-4, atol=1e-7,
    )  # fmt: skip
    # And they are normalized again where training goes on from them.
    again = dataclasses.replace(stage, sources=[train.Source(str(tmp_path / stage.weights))])
    net = train.make_solver(again, str(tmp_path / "s")).net
    train.load_sources(net, again)
    np.testing.assert_allclose(net.params[name][0].data, weights, rtol=1e-5, atol=1e-8)


def layer_named(stage, name):
    """The LayerParameter of that name."""
    return next(layer for layer in stage.net_param.layer if layer.name == name)


def test_normalized_targets_need_a_layer_that_undoes_it(tmp_path):
    stage = make_stage(tmp_path)
    layer_named(stage, "bbox_pred").inner_product_param.bias_term = False
    with pytest.raises(NetError, match=r"normalized.*found bbox_pred without biases"):
        train.train(stage)
    stage = make_stage(tmp_path)
    stage.net_param.layer.remove(layer_named(stage, "loss_bbox"))
    stage.net_param.layer.remove(layer_named(stage, "bbox_pred"))
    with pytest.raises(NetError, match=r"net 'tiny'.*predicts the boxes.*found none.*bbox_pred"):
        train.train(stage)
    assert not (tmp_path / "snapshots").exists()
    plain = normalization.given(tiny_net.CFG.TRAIN, 3)  # means 0 and deviations 1: nothing to undo
    assert dataclasses.replace(stage, statistics=plain).box_layer is None


def test_folding_ends_with_the_very_weights_that_there_were(tmp_path):
    stage = make_stage(tmp_path)
    net = train.make_solver(stage, str(tmp_path / "s")).net
    before = [blob.data.copy() for blob in net.params["bbox_pred"]]
    folded = normalization.folded(net, stage.statistics, stage.box_layer)
    with pytest.raises(ZeroDivisionError), folded:
        assert (net.params["bbox_pred"][0].data != before[0]).any()
        raise ZeroDivisionError
    for blob, values in zip(net.params["bbox_pred"], before):
        np.testing.assert_array_equal(blob.data, values)


def test_loading_saved_weights_normalizes_them_again(trained, tmp_path):
    path = str(trained["fast_rcnn"][0] / "stage_final.caffemodel")
    stage = make_stage(tmp_path, sources=[train.Source(path)])
    net = train.make_solver(stage, str(tmp_path / "s")).net
    train.load_sources(net, stage)
    with normalization.folded(net, stage.statistics, stage.box_layer):
        for blob, values in zip(net.params["bbox_pred"], trained["fast_rcnn"][1]["bbox_pred"]):
            np.testing.assert_allclose(blob.data, values, rtol=1e-5, atol=1e-8)


def test_joint_training_normalizes_by_what_the_config_gives():
    settings = dataclasses.replace(tiny_net.CFG.TRAIN, BBOX_NORMALIZE_TARGETS_PRECOMPUTED=True)
    statistics = normalization.given(settings, 3)
    np.testing.assert_array_equal(statistics.stds, [[0.1, 0.1, 0.2, 0.2]] * 3)
    plain = normalization.given(tiny_net.CFG.TRAIN, 3)
    assert (plain.stds == 1).all() and (plain.means == 0).all()


# ---- going on


class Killed(BaseException):
    """Raised where a test has a run end."""


def die_at(monkeypatch, iteration):
    """Have a run end, without any clearing up of its own, after an iteration."""
    add = train.LossLog.add

    def dying(self, k, values):
        add(self, k, values)
        if k == iteration:
            raise Killed

    monkeypatch.setattr(train.LossLog, "add", dying)


@pytest.mark.parametrize("iteration", [2, 5, 7])
def test_a_resumed_stage_ends_as_an_uninterrupted_one(iteration, trained, tmp_path, monkeypatch):
    stage = make_stage(tmp_path, "end2end")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, iteration)
        train.train(stage)
    snapshots = tmp_path / "snapshots" / "stage"
    names = {path.name for path in snapshots.iterdir()}
    last = iteration // 3 * 3  # SNAPSHOT_ITERS is 3; the log is written before the snapshot
    kinds = ("caffemodel", "solverstate")
    assert names == ({f"snapshot_iter_{last}.{kind}" for kind in kinds} if last else set())
    (snapshots / "snapshot_iter_9.caffemodel.new").write_text("half a file")
    assert_same(weights_of(tmp_path / train.train(stage)), trained["end2end"][1])
    assert not snapshots.exists()
    logged = [entry["iteration"] for entry in read_log(tmp_path / "losses.jsonl")]
    assert logged == list(range(1, 9))


def test_ctrl_c_stops_after_a_snapshot(trained, tmp_path, monkeypatch):
    stage = make_stage(tmp_path, "rpn")
    with monkeypatch.context() as patch:
        add = train.LossLog.add

        def pressing(self, k, values):
            add(self, k, values)
            if k == 4:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(train.LossLog, "add", pressing)
        with pytest.raises(train.Interrupted, match="after 4 of 8"):
            train.train(stage)
    assert (tmp_path / "snapshots/stage/snapshot_iter_4.solverstate").exists()
    assert_same(weights_of(tmp_path / train.train(stage)), trained["rpn"][1])


# ---- what is written down


def test_the_log_has_each_iteration_with_its_losses(trained):
    folder = trained["end2end"][0]
    entries = read_log(folder / "losses.jsonl")
    assert [e["iteration"] for e in entries] == list(range(1, 9))
    for entry in entries:
        parts = ("rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox")
        assert entry["stage"] == "stage"
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in parts), rel=1e-5)
        assert entry["lr"] == pytest.approx(0.001)
        assert entry["waited"] >= 0 and 0 < entry["seconds"] < 60


def test_parts_of_the_loss_are_means_over_the_passes_of_an_iteration(tmp_path):
    train.train(make_stage(tmp_path, "end2end", solver="iter_size: 3 max_iter: 2"))
    for entry in read_log(tmp_path / "losses.jsonl"):
        parts = ("rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox")
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in parts), rel=1e-5)


def test_tensorboard_finds_the_same_numbers(trained):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401 (the writer's own format)

    folder = trained["rpn"][0]
    (path,) = (folder / "tensorboard" / "stage").glob("events.out.tfevents.*")
    found, data, at = {}, path.read_bytes(), 0
    while at < len(data):  # length (8 bytes), its check sum (4), the event, its check sum (4)
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
    for entry in read_log(folder / "losses.jsonl"):
        assert found[entry["iteration"], "stage/loss"] == pytest.approx(entry["loss"])


def test_validation_runs_at_its_interval_and_sees_what_would_be_saved(trained, tmp_path):
    seen = []

    def validate(solver):
        seen.append((solver.iter, [b.data.copy() for b in solver.net.params["bbox_pred"]]))
        return {"mAP": 0.25}

    stage = make_stage(tmp_path, eval_interval=3, validate=validate)
    end = weights_of(tmp_path / train.train(stage))
    assert [k for k, _ in seen] == [3, 6, 8]
    for values, saved in zip(seen[-1][1], end["bbox_pred"]):
        np.testing.assert_array_equal(values, saved)
    assert_same(end, trained["fast_rcnn"][1])  # looking changes nothing
    found = [e["iteration"] for e in read_log(tmp_path / "losses.jsonl") if "mAP" in e]
    assert found == [3, 6, 8]


# ---- going bad


def test_a_loss_that_is_not_finite_stops_with_the_first_bad_blob(tmp_path):
    stage = make_stage(tmp_path)
    load = stage.batches.load

    class Bad:
        """Batch 4 has an image with a pixel that is not a number."""

        def load(self, k):
            blobs = load(k)
            if k == 4:
                blobs["data"][0, 1, 20:30, 20:30] = np.nan
            return blobs

    stage.batches = Bad()
    expected = r"iteration 4: .*the first to go bad is blob 'data', top 0 of layer 'data'"
    with pytest.raises(SolverError, match=expected):
        train.train(stage)
    assert not (tmp_path / stage.weights).exists()
    assert (tmp_path / "snapshots/stage/snapshot_iter_3.solverstate").exists()


def test_a_learning_rate_that_diverges_names_a_parameter_or_a_blob(tmp_path):
    for kind in ("fast_rcnn", "end2end"):  # where it is the layer Proposal that notices
        with pytest.raises(SolverError, match=r"iteration \d+: expected .*finite.*first to go bad"):
            train.train(make_stage(tmp_path, kind, kind, "base_lr: 1e12 max_iter: 50"))


def test_the_first_bad_thing_in_the_order_of_computing(tmp_path):
    net = train.make_solver(make_stage(tmp_path), str(tmp_path / "s")).net
    net.forward()
    net.backward()
    assert finite.first_bad(net) is None
    net.params["fc6"][1].diff[3] = np.inf
    expected = "the first to go bad is the gradient of parameter 1 of layer 'fc6' (InnerProduct)"
    assert finite.first_bad(net) == expected
    net.blobs["fc6"].data[0, 0] = np.nan
    assert "blob 'fc6', top 0 of layer 'fc6' (InnerProduct)" in finite.first_bad(net)
    net.params["conv3"][0].data[0, 0, 0, 0] = -np.inf
    assert "parameter 0 of layer 'conv3' (Convolution)" in finite.first_bad(net)
    net.blobs["conv2"].data[0, 0] = np.nan
    assert "blob 'conv2', top 0 of layer 'conv2'" in finite.first_bad(net)


def test_bad_weights_are_not_saved(tmp_path, monkeypatch):
    def spoil(solver, loss):
        solver.net.params["fc6"][0].data[0, 0] = np.nan

    monkeypatch.setattr(train.finite, "check_loss", spoil)
    with pytest.raises(SolverError, match=r"parameter 0 of layer 'conv1' .* is not"):
        train.train(make_stage(tmp_path, solver="max_iter: 2"))
    assert not list(Path(tmp_path).glob("*.caffemodel"))
