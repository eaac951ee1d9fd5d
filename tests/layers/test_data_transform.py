import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import DataError
from demitasse.engine.proto import caffe_pb2
from demitasse.layers import data_transform
from demitasse.layers.data_transform import DataTransformer, image_pixels, parse_datum


def transformer(text="", train=False):
    param = text_format.Parse(text, caffe_pb2.TransformationParameter())
    return DataTransformer(param, train, "layer 'd'")


def run(t, pixels, seed=0):
    out = np.empty(t.output_shape(pixels, "image"), np.float32)
    t(pixels, out, np.random.default_rng(seed), "image")
    return out


def by_loops(pixels, mean, scale, crop, corner, mirror):
    """Caffe's transformation, one pixel at a time. `mean` is a function of (c, h, w)."""
    channels, height, width = pixels.shape
    height, width = (crop, crop) if crop else (height, width)
    out = np.empty((channels, height, width), np.float32)
    for c, h, w in np.ndindex(channels, height, width):
        source = (c, corner[0] + h, corner[1] + w)
        value = (np.float32(pixels[source]) - np.float32(mean(*source))) * np.float32(scale)
        out[c, h, width - 1 - w if mirror else w] = value
    return out


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(3, 8), st.integers(3, 8)),
    crop=st.integers(0, 3),
    mean=st.sampled_from(["none", "one", "channels", "file"]),
    mirror=st.booleans(),
    train=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=80)
def test_equals_the_loops(shape, crop, mean, mirror, train, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    t = transformer(f"crop_size: {crop} scale: 0.37 mirror: {str(mirror).lower()}", train)
    t.mean_image = rng.random(shape, np.float32) if mean == "file" else None
    values = {"one": [11.5], "channels": [3.5 * c for c in range(shape[0])]}.get(mean)
    t.mean_values = np.array(values, np.float32) if values else None
    # The draws that the transformer makes, in its order: mirror, top, left.
    draws = np.random.default_rng(seed)
    flipped = bool(mirror and draws.integers(2))
    corner = ((shape[1] - crop) // 2, (shape[2] - crop) // 2) if crop else (0, 0)
    if crop and train:
        corner = tuple(draws.integers(side - crop + 1) for side in shape[1:])

    def mean_at(c, h, w):
        if mean == "file":
            return t.mean_image[c, h, w]
        return values[c % len(values)] if values else 0

    expected = by_loops(pixels, mean_at, 0.37, crop, corner, flipped)
    np.testing.assert_allclose(run(t, pixels, seed), expected, rtol=1e-6, atol=1e-5)


def test_random_crops_reach_every_corner_and_both_mirrors():
    pixels = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    t = transformer("crop_size: 3 mirror: true", train=True)
    seen = {run(t, pixels, seed).tobytes() for seed in range(200)}
    assert len(seen) == 2 * 3 * 2  # 2 tops, 3 lefts, 2 mirrors


def test_mirror_acts_in_the_test_phase_too():
    pixels = np.arange(3, dtype=np.uint8).reshape(1, 1, 3)
    t = transformer("mirror: true")
    seen = {tuple(run(t, pixels, seed).ravel()) for seed in range(30)}
    assert seen == {(0, 1, 2), (2, 1, 0)}


def test_images_of_opencv():
    image = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    assert (image_pixels(image, "x")[2] == image[:, :, 2]).all()
    assert image_pixels(image[:, :, 0], "x").shape == (1, 4, 5)
    for bad in (image.astype(np.uint16), image[None], image[:0], image.astype(np.float64)):
        with pytest.raises(DataError, match="8 bits"):
            image_pixels(bad, "x")


def test_raw_datums():
    t = transformer()
    raw = caffe_pb2.Datum(channels=2, height=1, width=2, data=bytes([0, 255, 7, 128]))
    assert t.datum(raw, "x").tolist() == [[[0, 255]], [[7, 128]]]
    floats = caffe_pb2.Datum(channels=1, height=1, width=2, float_data=[0.5, -3])
    assert t.datum(floats, "x").tolist() == [[[0.5, -3]]]


@pytest.mark.parametrize("force", ["", "force_color: true", "force_gray: true"])
@pytest.mark.parametrize("colour", [True, False])
def test_encoded_datums(force, colour):
    image = np.random.default_rng(1).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    image = image if colour else image[:, :, 0]
    data = cv2.imencode(".png", image)[1].tobytes()
    pixels = transformer(force).datum(caffe_pb2.Datum(data=data, encoded=True), "x")
    if "color" in force or (colour and not force):
        expected = image if colour else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    else:
        expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if colour else image
    np.testing.assert_allclose(pixels, image_pixels(expected, "x"), atol=1)  # grey is rounded


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": 10**9, "height": 10**9, "width": 10**9, "data": b"x"},
        {"channels": 3, "height": 2, "width": 2, "data": b"x" * 11},
        {"channels": 3, "height": 2, "width": 2, "float_data": [1.0] * 13},
        {"channels": 3, "height": 2, "width": 2},
        {"channels": 0, "height": 2, "width": 2, "data": b"x"},
        {"channels": -1, "height": -2, "width": 2, "data": b"1234"},
        {"encoded": True, "data": b"not an image"},
        {"encoded": True},
    ],
)
def test_impossible_datums(fields):
    with pytest.raises(DataError, match="record 7"):
        transformer().datum(caffe_pb2.Datum(**fields), "record 7")


def test_truncated_records():
    value = caffe_pb2.Datum(channels=1, height=1, width=2, data=b"ab").SerializeToString()
    with pytest.raises(DataError, match=r"record 7: expected a serialized Datum"):
        parse_datum(value[:-1], "record 7")


@pytest.mark.parametrize(
    "text, message",
    [
        ('mean_file: "m" mean_value: 3', "mean_file or mean_value"),
        ("crop_size: 5", "at least crop_size 5"),
        ("mean_value: 1 mean_value: 2", "each of 3 channels"),
    ],
)
def test_bad_parameters(text, message):
    with pytest.raises(DataError, match=message):
        run(transformer(text), np.zeros((3, 4, 6), np.uint8))


def test_force_both_colours():
    with pytest.raises(DataError, match="force_color or force_gray"):
        transformer("force_color: true force_gray: true").datum(
            caffe_pb2.Datum(encoded=True, data=b"x"), "x"
        )


def test_image_of_another_size_than_the_batch_or_the_mean():
    t = transformer()
    with pytest.raises(DataError, match="batch_size 1"):
        t(np.zeros((1, 4, 4), np.uint8), np.empty((1, 4, 5), np.float32), None, "image")
    t.mean_image = np.zeros((1, 4, 5), np.float32)
    with pytest.raises(DataError, match="mean file's shape"):
        run(t, np.zeros((1, 4, 4), np.uint8))


def test_mean_file(tmp_path):
    mean = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(mean.SerializeToString())
    t = transformer(f'mean_file: "{path}"')
    assert run(t, np.full((2, 1, 2), 5, np.uint8)).tolist() == [[[4, 3]], [[2, 1]]]
    mean.num = 2
    mean.data.extend([0] * 4)
    path.write_bytes(mean.SerializeToString())
    with pytest.raises(DataError, match="mean image of shape"):
        transformer(f'mean_file: "{path}"')


def test_fields_without_effect_are_told(caplog):
    p = caffe_pb2.DataParameter(scale=0.5, batch_size=1)
    data_transform.warn_ignored(p, ("scale", "mirror"), "layer 'd'")
    assert "scale in DataParameter has no effect" in caplog.text
