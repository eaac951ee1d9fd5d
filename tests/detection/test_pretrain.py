"""Pretraining on crops: what crops show, how the net begins, and that it learns."""

import dataclasses

import numpy as np
import pytest
from tiny_net import CFG, make_dataset, net_param

from caffe.proto import caffe_pb2
from demitasse.detection import config, crops, pretrain
from demitasse.detection.crops import CropBatches
from demitasse.detection.datasets import Record
from demitasse.engine import caffemodel
from demitasse.engine.context import Context
from demitasse.engine.errors import DataError, NetError
from demitasse.engine.net import Net

SETTINGS = {"ITERS": 40, "CROP_SIZES": [16, 32], "BATCH_SIZE": 16, "BASE_LR": 0.01}
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


def test_batches_of_all_sizes_have_as_many_pixels():
    batches = CropBatches(make_dataset(), CFG, seed=1)
    assert [batches.load(k)[0].shape for k in (0, 1, 2)] == [
        (16, 3, 16, 16), (4, 3, 32, 32), (16, 3, 16, 16),
    ]  # fmt: skip


def test_crops_show_what_their_labels_say():
    """Objects of class 1 are light, those of class 2 dark; 110 is subtracted."""
    dataset = make_dataset(count=20)
    alone = [record for record in dataset.records if len(record.boxes) == 1]
    batches = CropBatches(dataclasses.replace(dataset, records=alone), CFG, seed=2)
    loaded = [batches.load(k) for k in (0, 2, 4)]
    assert set(np.concatenate([labels for _, labels in loaded])) == {0, 1, 2}
    for crops_, labels in loaded:
        for crop, label in zip(crops_, labels):
            if label:
                assert (1 if crop[:, 6:10, 6:10].mean() > 0 else 2) == label


def test_background_windows_hardly_touch_objects():
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 5, 60, 40], [80, 10, 110, 50]], np.float32)
    for _ in range(50):
        window = crops.background_window((100, 200, 3), boxes, rng)
        x, y, side = window
        assert side / 2 <= x <= 200 - side / 2 and side / 2 <= y <= 100 - side / 2
        for x1, y1, x2, y2 in boxes:
            width = min(x + side / 2, x2 + 1) - max(x - side / 2, x1)
            height = min(y + side / 2, y2 + 1) - max(y - side / 2, y1)
            assert max(0, width) * max(0, height) <= 0.1 * side**2 + 1e-3
    everywhere = np.array([[0, 0, 199, 99]], np.float32)
    assert crops.background_window((100, 200, 3), everywhere, rng) is None


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
    assert CropBatches(mixed, CFG, 1).load(0)[0].shape == (16, 3, 16, 16)
    with pytest.raises(DataError, match="can be read"):
        CropBatches(dataclasses.replace(good, records=missing), CFG, 1).load(0)


def test_a_data_set_without_objects_is_refused():
    empty = Record("empty", 20, 20, np.zeros((0, 4)), np.zeros(0, int), path="x.png")
    with pytest.raises(DataError, match="objects"):
        CropBatches(dataclasses.replace(make_dataset(), records=[empty]), CFG, 1)


def test_the_crop_net_has_what_regions_stand_on_and_no_more():
    net = pretrain.crop_net(net_param(), classes=3)
    learnt = [layer.name for layer in net.layer if layer.type in ("Convolution", "InnerProduct")]
    assert learnt == ["conv1", "conv2", "conv3", "crop_score"]
    assert all(not layer.include for layer in net.layer)
    del net.layer[:]
    with pytest.raises(NetError, match="ROIPooling"):
        pretrain.crop_net(net, classes=3)


def test_outputs_are_normalized_layer_by_layer():
    net = Net(pretrain.crop_net(net_param(), 3), caffe_pb2.TRAIN, context=Context(1))
    net.blobs["data"].reshape(32, 3, 16, 16)
    net.blobs["label"].reshape(32)
    net.blobs["data"].data[...] = CropBatches(make_dataset(), CFG, 1).load(0)[0].repeat(2, axis=0)
    pretrain.normalize_outputs(net)
    for i, node in enumerate(net.nodes):
        net.forward(i, i)
        if node.type == "Convolution":
            y = node.tops[0].data
            np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-4)
            std = y.std(axis=(0, 2, 3))
            assert (np.isclose(std, 1, atol=1e-3) | (std == 0)).all()


def test_it_learns_and_repeats(tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        losses = Losses()
        path = pretrain.pretrain(net_param(), make_dataset(), CFG, 3, str(tmp_path / name), losses)
        runs.append((losses.values, {n: b for n, _, b in caffemodel.read_weights(path)}))
    values = runs[0][0]
    assert len(values) == 40 and values == runs[1][0]
    assert np.mean([v["accuracy"] for v in values[-10:]]) > 0.85
    assert {"conv1", "conv2", "conv3"} <= runs[0][1].keys()
    for name, blobs in runs[0][1].items():
        for a, b in zip(blobs, runs[1][1][name]):
            np.testing.assert_array_equal(a.data, b.data)
