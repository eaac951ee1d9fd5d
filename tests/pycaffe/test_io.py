import functools
import pathlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import caffe.io as cio
from caffe.proto import caffe_pb2
from demitasse.engine.errors import DataError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "caffe_io"


# ---- messages ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_blobproto_round_trip(array):
    blob = cio.array_to_blobproto(array, diff=array * 2)
    for back, want in (
        (cio.blobproto_to_array(blob), array),
        (cio.blobproto_to_array(blob, return_diff=True), array * 2),
    ):
        assert back.dtype == np.float64
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, want)


def test_blobproto_of_the_old_form_and_doubles():
    blob = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    np.testing.assert_array_equal(cio.blobproto_to_array(blob), [[[[1, 2]], [[3, 4]]]])
    blob = caffe_pb2.BlobProto(shape={"dim": [2]}, double_data=[0.1, 0.2])
    np.testing.assert_array_equal(cio.blobproto_to_array(blob), [0.1, 0.2])


@pytest.mark.parametrize("dims", [[3], [2, 2], [10**12], [-2], [0]])
def test_blobproto_whose_shape_does_not_fit_its_data(dims):
    blob = caffe_pb2.BlobProto(shape={"dim": dims}, data=[1, 2])
    with pytest.raises(DataError, match=r"BlobProto data.*2 values"):
        cio.blobproto_to_array(blob)


def test_blobproto_vector_round_trip():
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((1, 0, 2))]
    for pack in (cio.arraylist_to_blobprotovector_str, cio.arraylist_to_blobprotovecor_str):
        back = cio.blobprotovector_str_to_arraylist(pack(arrays))
        assert len(back) == 2
        for a, b in zip(arrays, back):
            np.testing.assert_array_equal(a, b)
            assert a.shape == b.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_datum_round_trip(dtype):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    datum = cio.array_to_datum(array, label=7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 7)
    assert bool(datum.data) == (dtype == np.uint8)
    back = cio.datum_to_array(caffe_pb2.Datum.FromString(datum.SerializeToString()))
    np.testing.assert_array_equal(back, array)
    back[...] = 0  # it is the caller's own
    assert not cio.array_to_datum(array).HasField("label")


def test_encoded_datum_is_decoded():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    for pixels in (image, image[:, :, :1]):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        array = cio.datum_to_array(caffe_pb2.Datum(encoded=True, data=data))
        np.testing.assert_array_equal(array, pixels.transpose(2, 0, 1))


def test_wrong_arrays_and_datums():
    with pytest.raises(ValueError, match="channels, height, width"):
        cio.array_to_datum(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="diff of shape"):
        cio.array_to_blobproto(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(DataError, match="Datum"):
        cio.datum_to_array(caffe_pb2.Datum(channels=1, height=2, width=2, data=b"abc"))
    with pytest.raises(DataError, match="Datum"):
        cio.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"no image"))


# ---- images --------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    def write(name, pixels):
        path = str(tmp_path / name)
        assert cv2.imwrite(path, pixels)
        return path

    return write


def test_load_image_gives_rgb_in_0_to_1(write):
    bgr = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    image = cio.load_image(write("a.png", bgr))
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image, bgr[:, :, ::-1] / 255, atol=1e-7)
    grey = cio.load_image(write("a.png", bgr), color=False)
    luminance = (bgr[:, :, ::-1] / 255 * [0.2125, 0.7154, 0.0721]).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(grey, luminance, atol=1e-6)


def test_load_image_of_other_kinds(write, tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (4, 6), np.uint8)
    np.testing.assert_allclose(
        cio.load_image(write("grey.png", grey)), np.dstack([grey] * 3) / 255, atol=1e-7
    )
    one = cio.load_image(write("grey.png", grey), color=False)
    np.testing.assert_allclose(one, grey[:, :, np.newaxis] / 255, atol=1e-7)
    bgra = rng.integers(0, 256, (4, 6, 4), np.uint8)
    no_alpha = cio.load_image(write("alpha.png", bgra))
    np.testing.assert_allclose(no_alpha, bgra[:, :, 2::-1] / 255, atol=1e-7)
    deep = rng.integers(0, 65536, (4, 6, 3), np.uint16)
    np.testing.assert_allclose(
        cio.load_image(write("deep.png", deep)), deep[:, :, ::-1] / 65535, atol=1e-7
    )
    assert cio.load_image(pathlib.Path(write("ünï.png", bgra))).shape == (4, 6, 3)


def test_load_image_names_a_missing_or_broken_file(write, tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg"):
        cio.load_image(str(tmp_path / "gone.jpg"))
    whole = pathlib.Path(write("whole.png", np.zeros((50, 50, 3), np.uint8))).read_bytes()
    for name, data in {"empty.png": b"", "text.png": b"hello", "cut.png": whole[:40]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            cio.load_image(str(tmp_path / name))


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("order", [0, 1, 3])
def test_resize_as_scikit_image_does(index, order):
    """The numbers are those of scikit-image 0.26, `resize(..., mode="constant",
    anti_aliasing=False)` of the image scaled to [0, 1], as pycaffe calls it."""
    with np.load(GOLDEN / "resize.npz") as golden:
        image, want = golden[f"image{index}"], golden[f"order{order}_{index}"]
    resized = cio.resize_image(image, want.shape[:2], order)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, want, atol=2e-6)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 12)] * 4), st.sampled_from([1, 3, 2, 5]))
def test_resize_gives_the_size_asked_for_and_no_new_extremes(sizes, channels):
    image = np.random.default_rng(0).random((*sizes[:2], channels))
    resized = cio.resize_image(image, sizes[2:])
    assert resized.shape == (*sizes[2:], channels)
    assert resized.min() >= np.float32(image.min())
    assert resized.max() <= np.float32(image.max())
    constant = cio.resize_image(np.full_like(image, 3.5), sizes[2:])
    np.testing.assert_allclose(constant, 3.5, rtol=1e-6)


def test_resize_with_other_channels_keeps_corners_and_integers_are_not_rounded():
    image = np.arange(12).reshape(2, 3, 2)
    resized = cio.resize_image(image, (3, 5))
    np.testing.assert_allclose(resized[::2, ::4], image[:, ::2])
    np.testing.assert_allclose(resized[1, 0], image[:, 0].mean(axis=0))


@pytest.mark.parametrize(
    "image, dims",
    [((3, 4), (2, 2)), ((3, 0, 3), (2, 2)), ((3, 4, 3), (0, 2)), ((3, 4, 3), (2, 2, 2))],
)
def test_resize_errors(image, dims):
    with pytest.raises(DataError, match="resize_image"):
        cio.resize_image(np.zeros(image), dims)


def test_oversample_crops_corners_centre_and_mirrors():
    images = np.random.default_rng(0).random((2, 7, 8, 3))
    crops = cio.oversample(images, (4, 5))
    assert crops.shape == (20, 4, 5, 3)
    assert crops.dtype == np.float32
    for i, image in enumerate(images):
        places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
        for k, (y, x) in enumerate(places):
            window = image[y : y + 4, x : x + 5].astype(np.float32)
            np.testing.assert_array_equal(crops[10 * i + k], window)
            np.testing.assert_array_equal(crops[10 * i + 5 + k], window[:, ::-1])


@pytest.mark.parametrize("dims", [(8, 5), (4, 9), (0, 3)])
def test_oversample_refuses_crops_that_do_not_fit(dims):
    with pytest.raises(DataError, match=r"within \(7, 8\)"):
        cio.oversample(np.zeros((1, 7, 8, 3)), dims)
    with pytest.raises(DataError, match="one shape"):
        cio.oversample([np.zeros((7, 8, 3)), np.zeros((8, 7, 3))], (4, 4))


# ---- Transformer ---------------------------------------------------------------------------


@pytest.fixture
def transformer():
    transformer = cio.Transformer({"data": (10, 3, 4, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (1, 2, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
    transformer.set_input_scale("data", 0.017)
    return transformer


def test_preprocess_step_by_step_and_back(transformer):
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    kept = image.copy()
    blob = transformer.preprocess("data", image)
    assert blob.dtype == np.float32
    for k, (source, mean) in enumerate(zip((1, 2, 0), (104, 117, 123))):
        want = (image[:, :, source] * 255 - mean) * 0.017
        np.testing.assert_allclose(blob[k], want, atol=1e-5)
    np.testing.assert_allclose(transformer.deprocess("data", blob[np.newaxis]), image, atol=1e-5)
    np.testing.assert_array_equal(image, kept)


def test_preprocess_resizes_and_sets_nothing_by_itself():
    transformer = cio.Transformer({"data": [1, 3, 4, 5]})
    image = np.random.default_rng(0).random((9, 7, 3))
    np.testing.assert_array_equal(
        transformer.preprocess("data", image), cio.resize_image(image.astype(np.float32), (4, 5))
    )


def test_one_channel_goes_there_and_back():
    transformer = cio.Transformer({"data": (1, 1, 4, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", np.full((4, 5), 0.5))
    image = np.random.default_rng(0).random((4, 5, 1)).astype(np.float32)
    blob = transformer.preprocess("data", image)
    assert blob.shape == (1, 4, 5)
    np.testing.assert_allclose(transformer.deprocess("data", blob), image, atol=1e-6)


def test_mean_image():
    transformer = cio.Transformer({"data": (1, 3, 4, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    mean = np.random.default_rng(0).random((3, 4, 5))
    transformer.set_mean("data", mean)
    blob = transformer.preprocess("data", np.ones((4, 5, 3)))
    np.testing.assert_allclose(blob, 1 - mean, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.set_raw_scale("dta", 2), "Did you mean 'data'"),
        (lambda t: t.preprocess("x", np.zeros((4, 5, 3))), "an input of the net"),
        (lambda t: t.set_transpose("data", (1, 0)), "axes 0 to 2"),
        (lambda t: t.set_transpose("data", (1, 1, 2)), "axes 0 to 2"),
        (lambda t: t.set_channel_swap("data", (1, 0)), "channels 0 to 2"),
        (lambda t: t.set_mean("data", np.zeros(4)), "3 channel means"),
        (lambda t: t.set_mean("data", np.zeros((3, 5, 5))), r"shape \(3, 4, 5\) or \(3,\)"),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 4, 5))), r"\(1, 3, 4, 5\)"),
        (lambda t: t.preprocess("data", np.zeros((4, 5))), "3 axes"),
        (lambda t: t.preprocess("data", np.zeros((4, 5, 4))), "3 channels in the first axis"),
        (lambda t: t.deprocess("data", np.zeros((4, 4, 5))), "3 channels in the first axis"),
    ],
)
def test_transformer_errors(transformer, call, message):
    with pytest.raises(DataError, match=message):
        call(transformer)


def test_deprocess_undoes_every_order():
    swaps = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    for swap in swaps:
        transformer = cio.Transformer({"data": (1, 3, 4, 5)})
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_channel_swap("data", swap)
        there_and_back = functools.reduce(
            lambda x, step: step("data", x), (transformer.preprocess, transformer.deprocess), image
        )
        np.testing.assert_array_equal(there_and_back, image)
