import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe
from caffe import detector
from caffe.io import load_image, oversample, resize_image
from demitasse.engine.errors import DataError

NET = """
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
MEAN = np.array([0.1, 0.2, 0.3], np.float32)
OPTIONS = {"mean": MEAN, "raw_scale": 2, "input_scale": 0.5, "channel_swap": (2, 1, 0)}


@pytest.fixture
def files(tmp_path):
    model, weights = str(tmp_path / "deploy.prototxt"), str(tmp_path / "net.caffemodel")
    (tmp_path / "deploy.prototxt").write_text(NET)
    caffe.set_random_seed(3)
    caffe.Net(model, caffe.TEST).save(weights)
    return model, weights


def scores(net, crops):
    """What `net` says of crops (6, 6, 3), the preparation written out."""
    weight, bias = (blob.data for blob in net.params["ip"])
    blobs = [((crop[:, :, ::-1] * 2 - MEAN) * 0.5).transpose(2, 0, 1).ravel() for crop in crops]
    exp = np.exp(np.array(blobs) @ weight.T + bias)
    return exp / exp.sum(axis=1, keepdims=True)


def random_images(*shapes):
    rng = np.random.default_rng(0)
    return [rng.random(shape).astype(np.float32) for shape in shapes]


def test_predict_from_the_centre(files):
    net = caffe.Classifier(*files, image_dims=(8, 9), **OPTIONS)
    images = random_images((20, 11, 3), (6, 6, 3), (8, 9, 3))
    got = net.predict(images, oversample=False)
    crops = [resize_image(image, (8, 9))[1:7, 1:7] for image in images]
    np.testing.assert_allclose(got, scores(net, crops), atol=1e-5)


def test_predict_averages_ten_crops(files):
    net = caffe.Classifier(*files, image_dims=(8, 9), **OPTIONS)
    images = random_images((20, 11, 3), (6, 6, 3))
    got = net.predict(images)
    crops = oversample([resize_image(image, (8, 9)) for image in images], (6, 6))
    want = scores(net, crops).reshape(2, 10, 5).mean(axis=1)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_image_dims_default_to_the_input(files):
    net = caffe.Classifier(*files)
    assert tuple(net.image_dims) == (6, 6)
    assert net.predict(random_images((12, 7, 3)), oversample=False).shape == (1, 5)


def test_classifier_errors(files, tmp_path):
    with pytest.raises(DataError, match=r"at least the net's input size, \(6, 6\)"):
        caffe.Classifier(*files, image_dims=(5, 9))
    with pytest.raises(DataError, match="3 channel means"):
        caffe.Classifier(*files, mean=np.zeros(4))
    with pytest.raises(DataError, match="at least one image"):
        caffe.Classifier(*files).predict([])
    (tmp_path / "train.prototxt").write_text("""
        layer { name: "data" type: "DummyData" top: "data"
                dummy_data_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }""")
    with pytest.raises(DataError, match="deploy prototxt"):
        caffe.Classifier(str(tmp_path / "train.prototxt"), files[1])


# ---- Detector ------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    path = str(tmp_path / "photo.png")
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    return path


def test_detect_windows(files, photo):
    net = caffe.Detector(*files, **OPTIONS)
    windows = np.array(
        [[0, 0, 6, 6], [3, 4, 20, 15], [29, 39, 30, 40], [0, 0, 30, 40], [5, 5, 9, 9]]
    )
    detections = net.detect_windows(iter([(photo, windows[:4]), (photo, windows[4:])]))
    image = load_image(photo)
    crops = [resize_image(image[y:y2, x:x2], (6, 6)) for y, x, y2, x2 in windows]
    for detection, window, want in zip(detections, windows, scores(net, crops), strict=True):
        assert detection["filename"] == photo
        np.testing.assert_array_equal(detection["window"], window)
        np.testing.assert_allclose(detection["prediction"], want, atol=1e-5)
    assert net.detect_windows([]) == []


@pytest.mark.parametrize("window", [(0, 0, 31, 5), (3, 3, 3, 9), (-1, 0, 5, 5), (0, 9, 5, 4)])
def test_a_window_outside_of_the_image_is_named(files, photo, window):
    with pytest.raises(DataError, match=r"photo\.png.*inside 30 x 40"):
        caffe.Detector(*files).detect_windows([(photo, [window])])


def test_context_is_padded_with_the_mean_in_image_space(files):
    net = caffe.Detector(*files, context_pad=1, **OPTIONS)
    image = np.ones((30, 40, 3), np.float32)
    crop = net.crop(image, np.array((0, 0, 12, 12)))
    assert crop.shape == (6, 6, 3)
    mean_rgb = MEAN[::-1] / 2
    np.testing.assert_allclose(crop[0], np.tile(mean_rgb, (6, 1)), atol=1e-6)
    np.testing.assert_allclose(crop[:, 0], np.tile(mean_rgb, (6, 1)), atol=1e-6)
    np.testing.assert_allclose(crop[1:, 1:], 1, atol=1e-6)
    # The padding has no mean left once the net's preparation is done.
    prepared = net.transformer.preprocess("data", crop)
    np.testing.assert_allclose(prepared[:, 0], 0, atol=1e-6)
    plain = caffe.Detector(*files, context_pad=1).crop(image, np.array((0, 0, 12, 12)))
    np.testing.assert_allclose(plain[0], 0)


def test_context_needs_room(files):
    for pad in (3, -1):
        with pytest.raises(DataError, match=f"context_pad {pad}"):
            caffe.Detector(*files, context_pad=pad)


def context_crop_axis(first, last, pad, crop_size, size):
    """pycaffe's arithmetic for one axis, number by number."""
    scale = crop_size / (crop_size - 2.0 * pad)
    half = (last - first + 1) / 2.0
    centre = first + half
    low, high = round(centre - scale * half), round(centre + scale * half)
    zoom = crop_size / (high - low + 1.0)
    offset = round(max(0, -low) * zoom)
    low, high = min(max(low, 0), size), min(max(high, 0), size)
    length = round((high - low + 1) * zoom)
    if offset + length > crop_size:
        length = crop_size - offset
    return low, high, offset, length


@st.composite
def windows(draw):
    sizes = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    sides = []
    for size in sizes:
        first = draw(st.integers(0, size - 1))
        sides.append((first, draw(st.integers(first + 1, size))))
    return sizes, (sides[0][0], sides[1][0], sides[0][1], sides[1][1])


@settings(deadline=None, max_examples=200)
@given(windows(), st.sampled_from([(1, 6), (16, 227), (3, 9), (4, 9)]))
def test_context_crop_equals_pycaffes_formula(case, pads):
    sizes, window = case
    box, offset, size = detector.context_crop(window, *pads, sizes)
    for axis in range(2):
        low, high, start, length = context_crop_axis(
            window[axis], window[axis + 2], *pads, sizes[axis]
        )
        assert (box[axis], box[axis + 2], offset[axis]) == (low, high, start)
        assert size[axis] == max(1, length)
        assert 0 <= offset[axis] < offset[axis] + size[axis] <= pads[1]
        assert low < high


def test_selective_search_finds_the_things_in_an_image(files, tmp_path):
    image = np.full((60, 80, 3), 30, np.uint8)
    image[10:40, 20:60] = (200, 50, 120)
    path = str(tmp_path / "box.png")
    cv2.imwrite(path, image)
    found = detector.selective_search(path)
    assert found.shape[1] == 4
    assert np.abs(found - (10, 20, 40, 60)).max(axis=1).min() <= 2
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= (60, 80)).all()
    assert (found[:, :2] < found[:, 2:]).all()
    np.testing.assert_array_equal(found, detector.selective_search(path))
    detections = caffe.Detector(*files).detect_selective_search([path])
    assert len(detections) == len(found)
