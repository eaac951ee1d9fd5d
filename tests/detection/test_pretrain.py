"""Pretraining on crops: what crops show, how the net begins, and that it learns."""

import copy
import dataclasses
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_net import CFG, make_dataset, net_param
from tiny_run import assert_same, make_job, weights_of

from caffe.proto import caffe_pb2
from demitasse.boxes.overlaps import bbox_overlaps
from demitasse.boxes.transform import bbox_transform_inv
from demitasse.detection import config, crops, initialization, pretrain
from demitasse.detection.crops import CropBatches
from demitasse.detection.datasets import Record
from demitasse.detection.loss_log import LossLog, read_log
from demitasse.detection.snapshots import Snapshots
from demitasse.detection.train import Interrupted
from demitasse.engine import caffemodel
from demitasse.engine.context import Context
from demitasse.engine.device import CPU
from demitasse.engine.errors import DataError, NetError
from demitasse.engine.net import Net

SETTINGS = {
    "ITERS": 40, "CROP_SIZES": [16, 24], "MOSAIC_SIZE": 50, "BATCH_SIZE": 2, "BASE_LR": 0.003,
}  # fmt: skip
CFG = config.merge(CFG, {"PRETRAIN": SETTINGS})


class Losses:
    """What `pretrain` tells of its iterations."""

    def __init__(self):
        self.values = []

    def add(self, iteration, values):
        assert iteration == len(self.values) + 1
        self.values.append(values)


def test_a_batch_is_a_pure_function_of_seed_and_number():
    batches = CropBatches(make_dataset(), CFG, seed=5)
    first = [batches.load(k) for k in (0, 1, 2)]
    again = CropBatches(make_dataset(), CFG, seed=5)
    for k in (2, 0, 1):
        for a, b in zip(first[k], again.load(k)):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0][0], CropBatches(make_dataset(), CFG, seed=6).load(0)[0])
    assert not np.array_equal(first[0][0], first[2][0])


def test_mosaics_are_full_of_crops():
    batches = CropBatches(make_dataset(), CFG, seed=1, stride=8)
    for k, size, a_row in ((0, 16, 3), (1, 24, 2), (2, 16, 3)):
        mosaics, places, labels, *_ = batches.load(k)
        assert mosaics.shape == (2, 3, 48, 48)
        assert places.shape == (2 * a_row**2, 5) and labels.shape == (2 * a_row**2,)
        covered = np.zeros((2, 48, 48), int)
        for n, x1, y1, x2, y2 in places.astype(int):
            assert x2 - x1 == y2 - y1 == size - 1 - 4  # half a stride less than the crop
            covered[n, y1 : y1 + size, x1 : x1 + size] += 1
        assert (covered == 1).all()


def test_crops_show_what_their_labels_say():
    """Objects of class 1 are light, those of class 2 dark; 110 is subtracted."""
    dataset = make_dataset(count=20)
    alone = [record for record in dataset.records if len(record.boxes) == 1]
    batches = CropBatches(dataclasses.replace(dataset, records=alone), CFG, seed=2)
    seen = set()
    for k in (0, 1, 2, 3, 4):
        mosaics, places, labels, *_ = batches.load(k)
        size = (16, 24)[k % 2]
        for (n, x, y, *_), label in zip(places.astype(int), labels):
            middle = mosaics[n, :, y + size // 2 - 2 :, x + size // 2 - 2 :][:, :4, :4].mean()
            seen.add(label)
            if label:
                assert (1 if middle > 0 else 2) == label
            else:
                assert abs(middle) < 25
    assert seen == {0, 1, 2}


@settings(deadline=None)
@given(st.floats(1, 300), st.floats(1, 300), st.integers(8, 64), st.integers(0, 1 << 30))
def test_the_place_in_a_crop_leads_back_to_the_box(width, height, size, seed):
    box = np.array([10, 20, 10 + width - 1, 20 + height - 1], np.float32)
    x, y, side = crops.window_around(box, size, np.random.default_rng(seed))
    place = crops.place_in(x, y, side, box)
    square = np.array([[x - side / 2, y - side / 2, x + side / 2 - 1, y + side / 2 - 1]])
    if place is None:
        assert bbox_overlaps(square, box[None].astype(float)).item() < 0.4 + 1e-3
        return
    deltas = place * (0.1, 0.1, 0.2, 0.2)
    back = bbox_transform_inv(square, deltas[None])[0] - (0, 0, 1, 1)  # as py-faster-rcnn's, it
    np.testing.assert_allclose(back, box, atol=1e-2)  # ends a pixel further


@given(st.floats(1, 300), st.floats(1, 300), st.integers(8, 64), st.integers(0, 1 << 30))
def test_windows_lie_on_their_object_and_are_not_zoomed_far(width, height, size, seed):
    box = np.array([10, 20, 10 + width - 1, 20 + height - 1], np.float32)
    x, y, side = crops.window_around(box, size, np.random.default_rng(seed))
    assert size / 1.5 - 1e-3 <= side <= size * 1.5 + 1e-3
    longer = max(width, height)
    for centre, first, extent in ((x, 10, width), (y, 20, height)):
        middle = first + (extent - 1) / 2
        assert abs(centre - middle) <= max(0.12 * side, (1.4 * longer - side) / 3) + 1


def test_background_windows_hardly_touch_objects():
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 5, 60, 40], [80, 10, 110, 50]], np.float32)
    for _ in range(50):
        window = crops.background_window((100, 200, 3), boxes, 32, rng)
        x, y, side = window
        assert side / 2 <= x <= 200 - side / 2 and side / 2 <= y <= 100 - side / 2
        for x1, y1, x2, y2 in boxes:
            width = min(x + side / 2, x2 + 1) - max(x - side / 2, x1)
            height = min(y + side / 2, y2 + 1) - max(y - side / 2, y1)
            assert max(0, width) * max(0, height) <= 0.1 * side**2 + 1e-3
    everywhere = np.array([[0, 0, 199, 99]], np.float32)
    assert crops.background_window((100, 200, 3), everywhere, 32, rng) is None


@pytest.mark.parametrize("side", [8, 16, 64])
def test_a_cut_is_the_square_that_was_asked_for(side):
    image = np.zeros((100, 120, 3), np.uint8)
    image[50 - side // 2 : 50 + side // 2, 60 - side // 2 : 60 + side // 2] = 200
    inner = crops.cut(image, 60, 50, side, 16)
    assert inner.shape == (16, 16, 3) and inner[2:-2, 2:-2].min() > 190
    assert crops.cut(image, 60, 50, 2 * side, 16).mean() == pytest.approx(50, rel=0.2)


def test_images_that_cannot_be_read_are_passed_over():
    good = make_dataset()
    missing = [dataclasses.replace(r, draw=None, path="nowhere.png") for r in good.records[:3]]
    mixed = dataclasses.replace(good, records=missing + good.records[3:])
    assert CropBatches(mixed, CFG, 1).load(0)[0].shape == (2, 3, 48, 48)
    with pytest.raises(DataError, match="can be read"):
        CropBatches(dataclasses.replace(good, records=missing), CFG, 1).load(0)


def test_a_data_set_without_objects_is_refused():
    empty = Record("empty", 20, 20, np.zeros((0, 4)), np.zeros(0, int), path="x.png")
    with pytest.raises(DataError, match="objects"):
        CropBatches(dataclasses.replace(make_dataset(), records=[empty]), CFG, 1)


def test_the_crop_net_has_what_regions_stand_on_and_no_more():
    net = pretrain.crop_net(net_param(), classes=3)
    learnt = [layer.name for layer in net.layer if layer.type in ("Convolution", "InnerProduct")]
    assert learnt == ["conv1", "conv2", "conv3", "crop_score", "box_pred"]
    assert all(not layer.include for layer in net.layer)
    del net.layer[:]
    with pytest.raises(NetError, match="ROIPooling"):
        pretrain.crop_net(net, classes=3)


def test_convolutions_begin_by_passing_on_what_they_get():
    net = Net(pretrain.crop_net(net_param(), 3), caffe_pb2.TRAIN, context=Context(1))
    for name, values in zip(pretrain._INPUTS, CropBatches(make_dataset(), CFG, 1).load(0)):
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
    initialization.begin_as_shortcuts(net)
    passed = []
    for i, node in enumerate(net.nodes):
        before = [blob.data.copy() for blob in node.bottoms]
        net.forward(i, i)
        if node.type != "Convolution":
            continue
        x, y = before[0], node.tops[0].data
        if x.shape[1] == 3:
            np.testing.assert_allclose(y.std(axis=(0, 2, 3)), 1, atol=1e-3)
            continue
        step = x.shape[2] // y.shape[2]
        x = x[:, :, ::step, ::step]
        for k in range(y.shape[1]):
            of_input = x[:, k % x.shape[1]].ravel()
            if of_input.std() > 0:
                passed.append(np.corrcoef(of_input, y[:, k].ravel())[0, 1])
    assert len(passed) > 8 and min(passed) > 0.6 and max(passed) < 0.99


def test_groups_pass_on_their_own_inputs():
    weight = np.zeros((6, 2, 3, 3), np.float32)  # 3 groups of 2 inputs and 2 outputs
    initialization._mix_with_identity(weight, np.ones(6, np.float32))
    passed_on = np.argwhere(weight > 0)
    np.testing.assert_array_equal(passed_on, [[k, k % 2, 1, 1] for k in range(6)])


def test_it_learns_and_repeats(tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        losses = Losses()
        snapshots = Snapshots(tmp_path / name / "snapshots" / "pretrain", 0)
        snapshots.prepare()
        path = pretrain.pretrain(
            net_param(), make_dataset(), CFG, str(tmp_path / name), losses, snapshots
        )
        assert not snapshots.folder.parent.exists()
        kept = ("loss", "box_loss", "accuracy", "lr")
        values = [{k: v[k] for k in kept} for v in losses.values]
        runs.append((values, {n: b for n, _, b in caffemodel.read_weights(path)}))
    values = runs[0][0]
    assert len(values) == 40 and values == runs[1][0]
    assert np.mean([v["accuracy"] for v in values[-10:]]) > 0.8
    first, last = (np.mean([v["box_loss"] for v in part]) for part in (values[:5], values[-5:]))
    assert last < 0.7 * first
    assert {"conv1", "conv2", "conv3"} <= runs[0][1].keys()
    for name, blobs in runs[0][1].items():
        for a, b in zip(blobs, runs[1][1][name]):
            np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize("end", ["a kill", "Ctrl-C"])
def test_a_resumed_pretraining_ends_as_an_uninterrupted_one(end, tmp_path, monkeypatch):
    cfg = config.merge(CFG, {"PRETRAIN": {"ITERS": 8}})  # a snapshot every 3
    whole = make_job(tmp_path / "whole", "end2end", cfg=cfg).begin([1])[0].path
    add = LossLog.add

    def ending(self, k, values):
        add(self, k, values)
        if k == 5 and end == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        elif k == 5:
            raise MemoryError

    place = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(LossLog, "add", ending)
        with pytest.raises(Interrupted if end == "Ctrl-C" else MemoryError):
            make_job(place, "end2end", cfg=cfg).begin([1])
    last = 5 if end == "Ctrl-C" else 3
    states = list((place / "run/snapshots/pretrain").glob("*.solverstate"))
    assert [path.stem for path in states] == [f"snapshot_iter_{last}"]
    job = make_job(place, "end2end", resume=True, cfg=cfg)
    assert_same(weights_of(job.begin([1])[0].path), weights_of(whole))
    logged = [entry["iteration"] for entry in read_log(place / "run/losses.jsonl")]
    assert logged == list(range(1, 9)) and not (place / "run/snapshots").exists()


def test_a_job_pretrains_on_its_device_with_layers_beside_its_definition(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFFE_ALLOW_PYTHON_LAYERS", "layers_beside_tiny")
    job = make_job(tmp_path, "end2end", cfg=config.merge(CFG, {"PRETRAIN": {"ITERS": 1}}))
    folder = tmp_path / "tiny"
    (folder / "layers_beside_tiny.py").write_text(DOUBLE)
    path = folder / "faster_rcnn.prototxt"
    doubled = """layer { name: "double" type: "Python" bottom: "conv1" top: "doubled"
      python_param { module: "layers_beside_tiny" layer: "Double" } }
    layer { name: "relu1" type: "ReLU" bottom: "doubled" top: "doubled" }
    """
    text = path.read_text().replace(
        'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }', doubled
    ).replace('name: "conv2" type: "Convolution" bottom: "conv1"',
              'name: "conv2" type: "Convolution" bottom: "doubled"')  # fmt: skip
    path.write_text(text)
    job.device = copy.copy(CPU)
    nets = []
    monkeypatch.setattr(pretrain, "begin_as_shortcuts", nets.append)
    (source,) = job.begin([5])
    assert source.path.endswith(pretrain.WEIGHTS)
    assert nets[0].device is job.device and "double" in [node.name for node in nets[0].nodes]


DOUBLE = """
import caffe


class Double(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff
"""


def test_earlier_features_are_scored_too():
    net = pretrain.crop_net(net_param(), classes=3)
    pools = {
        layer.bottom[0]: layer.roi_pooling_param.spatial_scale
        for layer in net.layer
        if layer.type == "ROIPooling"
    }
    assert list(pools)[-1] == "conv3" and pools["conv3"] == 0.125
    assert pretrain.stride_of(net) == 8
    losses = [layer.name for layer in net.layer if layer.type == "SoftmaxWithLoss"]
    assert len(losses) == len(pools)


def test_whitened_weights_see_all_directions_alike():
    """Responses to patches of smooth images are as they are of the weights to white noise."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 3, 40, 40)).astype(np.float32)
    images = images.cumsum(axis=2).cumsum(axis=3)  # neighbours become alike
    images += rng.standard_normal(images.shape) * np.abs(images).max() * 0.1
    weight = rng.standard_normal((200, 3, 3, 3)).astype(np.float32)
    made = initialization.whitened(weight, images)
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    patches = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    patches = patches - patches.mean(axis=0)
    spread = [np.std(patches @ w.reshape(200, 27).T, axis=0) for w in (weight, made)]
    uneven = [s / np.linalg.norm(weight.reshape(200, 27), axis=1) for s in spread]
    assert np.std(uneven[1]) / np.mean(uneven[1]) < 0.5 * np.std(uneven[0]) / np.mean(uneven[0])
