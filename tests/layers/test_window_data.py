import cv2
import numpy as np
import pytest
from data_nets import TRAIN, batches, check_resumes, make_net
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import DataError, DemitasseError
from demitasse.layers.window_data import place_window, split_windows
from demitasse.layers.window_file import read_window_file

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def image(tmp_path, monkeypatch):
    """a.png and windows.txt with a foreground window (label 3) and a background one."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    cv2.imwrite("a.png", image)
    write_windows("3 0.8 10 5 29 24", "7 0.2 30 10 49 29", "5 0.4 0 0 9 9")
    return image


def write_windows(*windows, path="a.png"):
    with open("windows.txt", "w") as f:
        f.write(f"# 0\n{path}\n3\n{HEIGHT}\n{WIDTH}\n{len(windows)}\n")
        f.write("\n".join(windows) + "\n")


def layer(more="", transform="crop_size: 10", batch_size=4):
    return (
        f'type: "WindowData" window_data_param {{ source: "windows.txt" batch_size: {batch_size} '
        f"bg_threshold: 0.3 {more} }} transform_param {{ {transform} }}"
    )


def warped(image, x1, y1, x2, y2, size):
    return cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], size).transpose(2, 0, 1).astype(np.float32)


def test_background_first_then_foreground(image):
    data, labels = batches(make_net(layer("fg_fraction: 0.3")), 1)[0]
    assert labels.tolist() == [0, 0, 0, 3]  # 4 * 0.3 is rounded down
    for i, box in enumerate([(30, 10, 49, 29)] * 3 + [(10, 5, 29, 24)]):
        np.testing.assert_array_equal(data[i], warped(image, *box, (10, 10)))


def test_overlaps_equal_to_a_threshold(image):
    # 0.6 and 0.3 as decimal fractions are on the other side of themselves in single precision.
    write_windows("3 0.6 10 5 29 24", "9 0.3 1 1 9 9", "7 0.2 30 10 49 29")
    _, windows = read_window_file("windows.txt")
    thresholds = (float(np.float32(0.6)), float(np.float32(0.3)))
    foreground, background = split_windows(windows, *thresholds, "windows.txt")
    assert [w.label for w in foreground] == [3] and [w.label for w in background] == [7]


def test_mirror_scale_and_mean_values(image):
    transform = "crop_size: 10 mirror: true mean_value: 1 mean_value: 2 mean_value: 3"
    net = make_net(layer("scale: 0.5 fg_fraction: 1", transform), TRAIN)
    straight = (warped(image, 10, 5, 29, 24, (10, 10)) - [[[1]], [[2]], [[3]]]) * 0.5
    seen = set()
    for data, _ in batches(net, 6):
        for window in data:
            flipped = not np.array_equal(window, straight)
            np.testing.assert_array_equal(window, straight[:, :, ::-1] if flipped else straight)
            seen.add(flipped)
    assert seen == {False, True}


def test_mean_file_is_cut_at_its_centre_and_offset_with_the_padding(image):
    from demitasse.engine.proto import caffe_pb2

    mean = np.random.default_rng(1).random((1, 3, 14, 14), np.float32)
    proto = caffe_pb2.BlobProto(num=1, channels=3, height=14, width=14, data=mean.ravel())
    with open("mean.binaryproto", "wb") as f:
        f.write(proto.SerializeToString())
    # A window at the left edge, with context: some columns at the left stay empty.
    write_windows("3 0.8 0 10 19 29")
    transform = 'crop_size: 10 mean_file: "mean.binaryproto"'
    data = batches(make_net(layer("fg_fraction: 1 context_pad: 2", transform)), 1)[0][0][0]
    inside, size, (top, left) = place_window((0, 10, 19, 29), (HEIGHT, WIDTH), 10, 2, False, False)
    assert (inside, size, top, left) == ((0, 3, 27, 37), (8, 10), 0, 2)
    expected = np.zeros((3, 10, 10), np.float32)
    expected[:, :, 2:] = warped(image, *inside, size) - mean[0, :, 2:12, 4:12]
    np.testing.assert_allclose(data, expected, rtol=1e-6)


def reference_place(x1, y1, x2, y2, height, width, crop, pad, square, mirror):
    """WindowDataLayer's geometry, statement by statement, with C's types."""
    f = np.float32
    context_scale = f(crop) / f(crop - 2 * pad)
    half_height, half_width = f(f(y2 - y1 + 1) / 2.0), f(f(x2 - x1 + 1) / 2.0)
    center_x, center_y = f(x1) + half_width, f(y1) + half_height
    if square:
        if half_height > half_width:
            half_width = half_height
        else:
            half_height = half_width

    def c_round(v):
        v = float(v)
        return int(np.floor(v + 0.5)) if v >= 0 else int(np.ceil(v - 0.5))

    x1 = c_round(center_x - half_width * context_scale)
    x2 = c_round(center_x + half_width * context_scale)
    y1 = c_round(center_y - half_height * context_scale)
    y2 = c_round(center_y + half_height * context_scale)
    unclipped_h, unclipped_w = y2 - y1 + 1, x2 - x1 + 1
    pad_x1, pad_y1 = max(0, -x1), max(0, -y1)
    pad_x2, pad_y2 = max(0, x2 - width + 1), max(0, y2 - height + 1)
    x1, x2, y1, y2 = x1 + pad_x1, x2 - pad_x2, y1 + pad_y1, y2 - pad_y2
    scale_x, scale_y = f(crop) / f(unclipped_w), f(crop) / f(unclipped_h)
    w, h = c_round(f(x2 - x1 + 1) * scale_x), c_round(f(y2 - y1 + 1) * scale_y)
    pad_x1, pad_x2 = c_round(f(pad_x1) * scale_x), c_round(f(pad_x2) * scale_x)
    pad_h, pad_w = c_round(f(pad_y1) * scale_y), pad_x2 if mirror else pad_x1
    if pad_h + h > crop:
        h = crop - pad_h
    if pad_w + w > crop:
        w = crop - pad_w
    return (x1, y1, x2, y2), (w, h), (pad_h, pad_w)


@given(
    corner=st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    pad=st.integers(0, 16),
    crop=st.integers(33, 227),
    square=st.booleans(),
    mirror=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_geometry_is_caffe_s(corner, size, pad, crop, square, mirror):
    x1, y1 = corner
    x2, y2 = min(x1 + size[0], WIDTH) - 1, min(y1 + size[1], HEIGHT) - 1
    found = place_window((x1, y1, x2, y2), (HEIGHT, WIDTH), crop, pad, square, mirror)
    if pad or square:
        assert found == reference_place(x1, y1, x2, y2, HEIGHT, WIDTH, crop, pad, square, mirror)
    else:
        assert found == ((x1, y1, x2, y2), (crop, crop), (0, 0))


def test_square_crops(image):
    write_windows("3 0.8 20 10 29 29")
    more = 'crop_mode: "square" fg_fraction: 1'
    data = batches(make_net(layer(more, "crop_size: 12", batch_size=1)), 1)[0][0]
    np.testing.assert_array_equal(data[0], warped(image, 15, 10, 35, 30, (12, 12)))


@pytest.mark.parametrize("cache", ["true", "false"])
def test_resumes(image, cache):
    write_windows(
        *(f"3 0.8 {i} 0 {i + 9} 9" for i in range(20)),
        *(f"0 0 {i} 9 {i + 9} 20" for i in range(20)),
    )
    transform = "crop_size: 5 mirror: true"
    whole = check_resumes(lambda: make_net(layer(f"cache_images: {cache}", transform), TRAIN))
    assert len({data.tobytes() for data, _ in whole}) == len(whole)


def test_cached_images_are_read_once(image, tmp_path):
    net = make_net(layer("cache_images: true"))
    first = batches(net, 1)
    (tmp_path / "a.png").unlink()
    net.seek(0)
    np.testing.assert_array_equal(batches(net, 1)[0][0], first[0][0])


def test_root_folder(image, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "images" / "a.png")
    batches(make_net(layer('root_folder: "images/"')), 1)
    with pytest.raises(DataError, match=r"layer 'd' \(WindowData\): a\.png.*No such file"):
        make_net(layer()).forward()


def test_window_file(image):
    images, windows = read_window_file("windows.txt")
    assert (images[0].path, images[0].height, images[0].width) == ("a.png", HEIGHT, WIDTH)
    assert [(w.label, w.overlap, w.x1, w.y2, w.line) for w in windows] == [
        (3, np.float32(0.8), 10, 24, 7), (7, np.float32(0.2), 30, 29, 8),
        (5, np.float32(0.4), 0, 9, 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "windows.txt: expected a window file with at least one image"),
        ("# 0\na.png\n3 40", ":3: expected a width, found the end of the file"),
        ("# 0\na.png\n3 40 60\n2\n1 0.5 1 2 3 4\n", ":5: expected a class index"),
        ("# 0\na.png\n3 40 60\n1\n1 0.5 1 2 x 4\n", ":5: expected x2, found 'x'"),
        ("# 0\na.png\n3 40 60\n1\n1 0.5 1 2 3 4 5\n", ":5: expected '#'"),
        ("# 1\na.png\n3 40 60\n0\n", ":1: expected image index 0"),
        ("# zero\n", ":1: expected an image index, found 'zero'"),
    ],
)
def test_malformed_window_files(image, text, message):
    with open("windows.txt", "w") as f:
        f.write(text)
    with pytest.raises(DataError, match=message):
        make_net(layer())


def test_missing_window_file(image):
    with pytest.raises(DataError, match=r"nowhere: expected a window file, found No such file"):
        read_window_file("nowhere")


@pytest.mark.parametrize(
    "window, message",
    [
        ("3 0.8 50 5 60 24", r"windows\.txt:7: expected a window within a\.png of 60 x 40"),
        ("3 0.8 20 5 10 24", r"windows\.txt:7: expected a window within"),
        ("0 0.8 20 5 30 24", r"windows\.txt:7: expected a class index > 0"),
    ],
)
def test_bad_windows(image, window, message):
    write_windows(window)
    with pytest.raises(DataError, match=message):
        make_net(layer("fg_fraction: 1")).forward()


@pytest.mark.parametrize(
    "more, transform, message",
    [
        ("", "", "crop_size in transform_param"),
        ("context_pad: 5", "crop_size: 10", "context_pad below half"),
        ('crop_mode: "wrap"', "crop_size: 10", "warp or square"),
        ("fg_fraction: 1.5", "crop_size: 10", "fg_fraction between"),
        ("fg_threshold: 0.9", "crop_size: 10", "at least one foreground window"),
        ("", "crop_size: 10 mean_value: 1 mean_value: 2", "each of 3 channels"),
    ],
)
def test_bad_parameters(image, more, transform, message):
    with pytest.raises(DemitasseError, match=message):
        make_net(layer(more, transform))


def test_scale_in_transform_param_is_told_to_have_no_effect(image, caplog):
    data = batches(make_net(layer("fg_fraction: 1", "crop_size: 20 scale: 0.1")), 1)[0][0]
    np.testing.assert_array_equal(data[0], warped(image, 10, 5, 29, 24, (20, 20)))
    assert "scale has no effect in transform_param" in caplog.text
