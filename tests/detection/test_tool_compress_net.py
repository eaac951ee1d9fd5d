"""The command line that makes a trained detector smaller."""

import os

import numpy as np
import pytest
import tiny_net

from demitasse.detection import Detector, bundle
from demitasse.engine.prototxt import read_net
from demitasse.tools import compress_net

pytestmark = pytest.mark.usefixtures("tool_folder")


def test_a_detector_is_compressed_and_opened_again(tiny_path, capsys):
    assert compress_net.main(["--net", tiny_path, "--rank", "fc6", "24", "--out", "small"]) == 0
    printed = capsys.readouterr().out
    assert "fc6: 24 x 144, rank 24: relative error 0.0000" in printed
    assert "Wrote small.prototxt, small.caffemodel, small.yml\n" in printed
    image = tiny_net.make_record(0).read()
    expected, found = (Detector(p).detect(image, 0.01) for p in (tiny_path, "small.prototxt"))
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        assert a.label == b.label and a.score == pytest.approx(b.score, abs=1e-4)
        assert a.box == pytest.approx(b.box, abs=0.01)
    assert compress_net.main(["--net", tiny_path, "--rank", "fc6", "5"]) == 0
    printed = capsys.readouterr().out
    assert "3,456 -> 840 weights" in printed and "2,616 weights saved (75.7%" in printed
    path = tiny_path.replace("final.prototxt", "final_svd_fc6_5.prototxt")
    assert {"fc6_L", "fc6_U"} < {layer.name for layer in read_net(path).layer}
    assert os.path.getsize(path.replace("prototxt", "caffemodel")) < os.path.getsize(
        tiny_path.replace("prototxt", "caffemodel")
    )
    assert Detector(path).detect(image, 0.01)


def test_weights_of_a_definition_of_ones_own(tiny_path, tmp_path, capsys):
    """Fast R-CNN's way: two definitions and a weights file."""
    model = bundle.load(tiny_path)
    assert compress_net.main(["--net", tiny_path, "--rank", "fc6", "6", "--out", "a"]) == 0
    plain = tmp_path / "plain.prototxt"
    with open(tiny_path) as file:
        plain.write_text(file.read())
    words = ["--def", str(plain), "--net", model.weights, "--def-svd", "a.prototxt", "--out", "b"]
    assert compress_net.main(words) == 0
    assert not os.path.exists("b.yml") and os.path.exists("b.prototxt")
    assert "Wrote b.prototxt, b.caffemodel\n" in capsys.readouterr().out
    a, b = (caffemodel_layer(f"{name}.caffemodel", "fc6_L") for name in "ab")
    np.testing.assert_array_equal(a, b)
    assert compress_net.main(["--net", tiny_path, "--rank", "fc6"]) == 1
    assert compress_net.main(["--net", tiny_path]) == 1  # there is no fc7
    assert "'fc7'" in capsys.readouterr().err


def caffemodel_layer(path, name):
    from demitasse.engine import caffemodel

    layers = {n: blobs for n, _, blobs in caffemodel.read_weights(path)}
    return np.array(layers[name][0].data)
