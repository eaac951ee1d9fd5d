"""A trained detector's three files: written together, read together, opened by plain pycaffe."""

import numpy as np
import pytest
import yaml

import caffe
from demitasse import prototxt
from demitasse.detection import adapt, bundle, config
from demitasse.engine import weights as weight_files
from demitasse.engine.errors import ModelFileError, NetError
from demitasse.engine.net import Net
from demitasse.engine.phase import TEST, TRAIN
from demitasse.engine.prototxt import read_net

CLASSES = ("__background__", "yes", "2007", "Blutplättchen")
CFG = config.merge(
    config.Config(),
    {
        "ANCHOR_SCALES": [1, 2],
        "TEST": {"RPN_POST_NMS_TOP_N": 7, "RPN_MIN_SIZE": 4, "SCALES": [96], "MAX_SIZE": 128},
    },
)
JOINT = ("rpn", "fast_rcnn")


@pytest.fixture(scope="module")
def trained():
    """An adapted definition, and a net with its weights."""
    param = read_net(prototxt.path("squeezenet", "faster_rcnn.prototxt"))
    param, _ = adapt.adapt_net(param, CLASSES, CFG.ANCHOR_SCALES)
    return param, Net(param, TRAIN, stages=JOINT)


def files(folder):
    return sorted(p.name for p in folder.rglob("*"))


def test_round_trip(trained, tmp_path):
    param, net = trained
    path = bundle.save(tmp_path / "new" / "cells_final", net, param, CLASSES, CFG)
    names = [f"cells_final.{ending}" for ending in ("caffemodel", "prototxt", "yml")]
    assert files(tmp_path / "new") == names
    assert path == str(tmp_path / "new" / "cells_final.prototxt")
    for given in (path, path.removesuffix(".prototxt"), path.replace(".prototxt", ".yml")):
        assert bundle.exists(given)
        found = bundle.load(given)
        assert found.prototxt == path and found.weights == path.replace(".prototxt", ".caffemodel")
        assert (found.classes, found.cfg) == (CLASSES, CFG)
    definition, weights, classes, _ = bundle.load(path)
    net = caffe.Net(definition, weights, caffe.TEST)
    assert net.params["fire9/squeeze1x1"][0].data.any()
    for name, blobs in net.params.items():
        for blob, original in zip(blobs, trained[1].params[name]):
            assert np.array_equal(blob.data, original.data), name
    net.blobs["im_info"].data[...] = [96, 128, 1]
    net.forward()
    assert net.blobs["data"].shape == (1, 3, 96, 128)
    assert 1 <= len(net.blobs["rois"].data) <= 7
    assert net.blobs["cls_prob"].data.shape[1] == len(classes)


def test_the_proposals_alone(trained, tmp_path):
    param, _ = trained
    net = Net(param, TRAIN, stages=("rpn",))
    path = bundle.save(tmp_path / "rpn", net, param, CLASSES, CFG, stages=("rpn",))
    assert caffe.Net(*bundle.load(path)[:2], caffe.TEST).outputs == ["rois", "scores"]


def test_all_or_none(trained, tmp_path, monkeypatch):
    param, net = trained

    def fail(net, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    stem = tmp_path / "cells"
    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "save", fail)
        with pytest.raises(ModelFileError, match="No space left on device"):
            bundle.save(stem, net, param, CLASSES, CFG)
    assert files(tmp_path) == []
    bundle.save(stem, net, param, CLASSES, CFG)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "save", fail)
        with pytest.raises(ModelFileError):
            bundle.save(stem, net, param, CLASSES, CFG)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_does_not_fit_together(trained, tmp_path):
    param, net = trained
    with pytest.raises(NetError, match=r"layer 'cls_score': expected 3 scores.*found 4"):
        bundle.save(tmp_path / "x", net, param, CLASSES[:3], CFG)
    with pytest.raises(NetError, match=r"no bbox_pred, cls_score, fc10"):
        bundle.save(tmp_path / "x", Net(param, TEST, stages=("rpn",)), param, CLASSES, CFG)
    for classes in (("cat", "dog", "cow", "owl"), ("__background__", "a", "a", "b"), CLASSES[:1]):
        with pytest.raises(ModelFileError, match="the first of them __background__"):
            bundle.save(tmp_path / "x", net, param, classes, CFG)
    assert files(tmp_path) == []


def test_missing_files(trained, tmp_path):
    param, net = trained
    path = bundle.save(tmp_path / "x", net, param, CLASSES, CFG)
    (tmp_path / "x.yml").unlink()
    assert not bundle.exists(path)
    with pytest.raises(ModelFileError, match=r"no .*x\.yml\. The three files"):
        bundle.load(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1, 2]", "a mapping with classes"),
        ("classes: [__background__, [1]]\nconfig: {}", "different class names"),
        ("classes: [__background__, a]\nconfig: {TRAIN: {SCALE: 3}}", "'SCALE'.*SCALES"),
        ("{", "expected YAML"),
        ("!!python/object/apply:os.system ['true']", "expected YAML"),
        ("classes: [__background__, a]\nconfig: 3", "a mapping of keys"),
    ],
)
def test_a_yml_that_is_none(tmp_path, text, message):
    for ending in ("caffemodel", "prototxt"):
        (tmp_path / f"x.{ending}").write_bytes(b"")
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(ModelFileError, match=message):
        bundle.load(tmp_path / "x")


def test_the_yml_is_plain(trained, tmp_path):
    param, net = trained
    bundle.save(tmp_path / "x", net, param, CLASSES, CFG)
    content = yaml.safe_load((tmp_path / "x.yml").read_text(encoding="utf-8"))
    assert content["classes"] == list(CLASSES)
    assert content["config"]["TEST"]["RPN_POST_NMS_TOP_N"] == 7
