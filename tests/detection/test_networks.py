"""Finding the files of a network: ours, a copy of ours, py-faster-rcnn's."""

import os
import shutil

import py_faster_rcnn
import pytest

from demitasse import prototxt
from demitasse.detection import networks
from demitasse.engine.errors import DataError, ModelFileError

JOINT = ("rpn", "fast_rcnn")


@pytest.mark.parametrize("name", ["VGG16", "vgg16", "ZF", "VGG_CNN_M_1024", "CaffeNet"])
def test_built_in_in_any_case(name):
    network = networks.find(name, "end2end")
    assert network.name == name.lower() and network.freezes
    (stage,) = network.training
    path = prototxt.path(name.lower(), "faster_rcnn.prototxt")
    assert stage.net == networks.Definition(path, JOINT) == network.test
    assert stage.solver == prototxt.path(name.lower(), "end2end_solver.prototxt")
    assert network.rpn_test == networks.Definition(path, ("rpn",))


def test_methods():
    found = {method: networks.find("squeezenet", method) for method in networks.METHODS}
    stages = {
        method: [(s.name, s.kind, s.net.stages) for s in network.training]
        for method, network in found.items()
    }
    assert stages == {
        "alt_opt": [
            ("stage1_rpn", "rpn", ("rpn",)), ("stage1_fast_rcnn", "fast_rcnn", ("fast_rcnn",)),
            ("stage2_rpn", "rpn", ("rpn",)), ("stage2_fast_rcnn", "fast_rcnn", ("fast_rcnn",)),
        ],
        "end2end": [("end2end", "end2end", JOINT)],
        "fast_rcnn": [("fast_rcnn", "fast_rcnn", ("fast_rcnn",))],
        "rpn": [("rpn", "rpn", ("rpn",))],
    }  # fmt: skip
    assert {method: network.test.stages for method, network in found.items()} == {
        "alt_opt": JOINT, "end2end": JOINT, "fast_rcnn": ("fast_rcnn",), "rpn": ("rpn",),
    }  # fmt: skip
    assert found["fast_rcnn"].rpn_test is None


def test_a_copy_of_ours(tmp_path):
    folder = tmp_path / "vgg16"
    shutil.copytree(prototxt.FOLDER / "vgg16", folder)
    for given in (folder, folder / "faster_rcnn.prototxt"):
        network = networks.find(given, "alt_opt")
        assert network.frozen == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
        assert all(os.path.dirname(s.solver) == str(folder) for s in network.training)
    (folder / "rpn_solver.prototxt").unlink()
    with pytest.raises(ModelFileError, match=r"the solver file of rpn.*no such file.*there are:"):
        networks.find(folder, "rpn")


def test_py_faster_rcnns_files(tmp_path):
    folder = py_faster_rcnn.write(tmp_path, "VGG16")
    for given in (folder, folder / "faster_rcnn_alt_opt"):
        network = networks.find(given, "alt_opt")
        assert [s.name for s in network.training] == list(networks.METHODS["alt_opt"])
        assert [os.path.basename(s.net.path) for s in network.training] == [
            "stage1_rpn_train.pt", "stage1_fast_rcnn_train.pt",
            "stage2_rpn_train.pt", "stage2_fast_rcnn_train.pt",
        ]  # fmt: skip
        assert [os.path.basename(s.solver) for s in network.training] == [
            "stage1_rpn_solver60k80k.pt", "stage1_fast_rcnn_solver30k40k.pt",
            "stage2_rpn_solver60k80k.pt", "stage2_fast_rcnn_solver30k40k.pt",
        ]  # fmt: skip
        assert os.path.basename(network.test.path) == "faster_rcnn_test.pt"
        assert os.path.basename(network.rpn_test.path) == "rpn_test.pt"
        assert not network.freezes and network.frozen == () and network.test.stages == ()
    (rpn,) = networks.find(folder, "rpn").training
    assert (rpn.name, os.path.basename(rpn.net.path)) == ("rpn", "stage1_rpn_train.pt")
    for method, inner in (("end2end", "faster_rcnn_end2end"), ("fast_rcnn", "fast_rcnn")):
        network = networks.find(folder, method)
        (stage,) = network.training
        assert (stage.name, stage.kind) == (method, method)
        assert stage.net.path == str(folder / inner / "train.prototxt")
        assert stage.solver == str(folder / inner / "solver.prototxt")
        assert network.test.path == str(folder / inner / "test.prototxt")


def test_py_faster_rcnns_files_that_are_missing(tmp_path):
    folder = py_faster_rcnn.write(tmp_path, "ZF") / "faster_rcnn_alt_opt"
    (folder / "stage2_rpn_solver60k80k.pt").unlink()
    with pytest.raises(ModelFileError, match=r"stage2_rpn_solver\*\.pt, found none"):
        networks.find(folder, "alt_opt")
    (folder / "rpn_test.pt").unlink()
    with pytest.raises(ModelFileError, match=r"rpn_test\.pt: expected the RPN for use"):
        networks.find(folder, "rpn")


def test_unknown_names(tmp_path):
    with pytest.raises(ModelFileError, match=r"caffenet, squeezenet.*'VGG17'.*'vgg16'"):
        networks.find("VGG17", "alt_opt")
    with pytest.raises(ModelFileError, match=r"'alt_opts'.*'alt_opt'"):
        networks.find("vgg16", "alt_opts")
    with pytest.raises(ModelFileError, match="the net to train, found no such file"):
        networks.find(tmp_path, "end2end")


def test_imagenet_weights(tmp_path):
    with pytest.raises(DataError, match=r"imagenet_models.VGG16\.v2\.caffemodel, found no such"):
        networks.pretrained("VGG16", tmp_path)
    file = tmp_path / "imagenet_models" / "squeezenet_v1.0.caffemodel"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert networks.pretrained("SqueezeNet", tmp_path) == str(file)
    for folder in (tmp_path / "squeezenet", tmp_path / "SqueezeNet" / "faster_rcnn_end2end"):
        assert networks.pretrained(folder, tmp_path) == str(file)
    with pytest.raises(DataError, match=r"the path of a \.caffemodel"):
        networks.pretrained("resnet", tmp_path)
    for name in networks.names():
        with pytest.raises(DataError, match="imagenet_models"):
            networks.pretrained(name, tmp_path / "nowhere")
