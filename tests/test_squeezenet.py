"""A pretrained SqueezeNet gives the classes and probabilities that Caffe gave (needs ../shared)."""

import json
from pathlib import Path

import numpy as np
import pytest

import caffe
from demitasse import prototxt

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MODEL = DATA / "squeezenet"

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="no ../shared/data/squeezenet")


def prepare(path):
    """The centre square of an image, 227x227, as the model expects it: (3, 227, 227) BGR."""
    import cv2

    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    square = cv2.resize(square, (227, 227), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return (square - np.array([104, 117, 123], np.float32)).transpose(2, 0, 1)


@pytest.mark.parametrize("definition", ["published", "ours"])
def test_top5(definition):
    expected = json.loads((MODEL / "squeezenet_v1.0_top5.json").read_text())
    path = {
        "published": MODEL / "squeezenet_v1.0_deploy.prototxt",
        "ours": prototxt.path("squeezenet"),
    }[definition]
    net = caffe.Net(path, caffe.TEST)
    report = net.copy_from(MODEL / "squeezenet_v1.0.caffemodel")
    assert len(report.copied) == 26 and not report.missing and not report.skipped
    assert expected
    for name, top5 in expected.items():
        net.blobs["data"].data[0] = prepare(DATA / "demo" / name)
        scores = net.forward()["prob"].reshape(-1)
        order = np.argsort(-scores, kind="stable")[:5]
        assert list(order) == [c for c, _ in top5], name
        np.testing.assert_allclose(scores[order], [p for _, p in top5], rtol=0, atol=1e-4)
