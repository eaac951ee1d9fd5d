import cv2
import numpy as np
import pytest
from data_nets import TRAIN, batches, check_resumes, make_net

from demitasse.engine.errors import DataError, DemitasseError
from demitasse.layers.image_data import read_list

COUNT = 5


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Files 0.png ... 4.png of one size and list.txt, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 6, 4, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        cv2.imwrite(f"{i}.png", image)
    write_list(f"{i}.png {10 + i}" for i in range(COUNT))
    return images.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def write_list(lines):
    with open("list.txt", "w") as f:
        f.write("\n".join(lines) + "\n")


def layer(more="", transform="", batch_size=2):
    return (
        f'type: "ImageData" image_data_param {{ source: "list.txt" batch_size: {batch_size} '
        f"{more} }} transform_param {{ {transform} }}"
    )


def labels(net, count):
    return [int(x) - 10 for _, label in batches(net, count) for x in label]


def test_batches_in_order_wrapping_around(images):
    net = make_net(layer())
    assert net.blobs["data"].shape == (2, 3, 6, 4)
    for k, (data, label) in enumerate(batches(net, 4)):
        rows = [(2 * k + i) % COUNT for i in range(2)]
        np.testing.assert_array_equal(data, images[rows])
        np.testing.assert_array_equal(label, [10 + r for r in rows])


def test_grey_and_resized(images):
    data = batches(make_net(layer("is_color: false new_height: 3 new_width: 8")), 1)[0][0]
    image = images[1].transpose(1, 2, 0)
    expected = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (8, 3))
    assert data.shape == (2, 1, 3, 8)
    np.testing.assert_allclose(data[1, 0], expected, atol=1)


def test_every_epoch_has_its_own_order(images):
    order = labels(make_net(layer("shuffle: true", batch_size=1)), 6 * COUNT)
    epochs = [tuple(order[i : i + COUNT]) for i in range(0, len(order), COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) > 3


@pytest.mark.parametrize("decoders", [1, 4])
def test_resumes_with_shuffle_skip_and_crops(images, decoders, monkeypatch):
    monkeypatch.setattr("demitasse.layers.image_data.decoding_threads", lambda: decoders)
    text = layer("shuffle: true rand_skip: 4", "crop_size: 2 mirror: true")
    check_resumes(lambda: make_net(text, TRAIN))


def test_rand_skip(images):
    starts = {labels(make_net(layer("rand_skip: 3"), seed=s), 1)[0] for s in range(20)}
    assert starts == {0, 1, 2}


def test_batch_size_one_takes_each_shape(images):
    cv2.imwrite("wide.png", np.zeros((2, 9, 3), np.uint8))
    write_list(["0.png 0", "wide.png 1"])
    shapes = [data.shape for data, _ in batches(make_net(layer(batch_size=1)), 3)]
    assert shapes == [(1, 3, 6, 4), (1, 3, 2, 9), (1, 3, 6, 4)]
    with pytest.raises(DataError, match=r"wide\.png: expected an image that becomes \(3, 6, 4\)"):
        make_net(layer()).forward()


def test_root_folder_and_names_with_spaces(images, tmp_path):
    (tmp_path / "a b").mkdir()
    cv2.imwrite("a b/c d.png", np.full((1, 1, 3), 9, np.uint8))
    write_list(["b/c d.png 7", ""])
    data, label = batches(make_net(layer('root_folder: "a "')), 1)[0]
    assert data.tolist() == [[[[9]]] * 3] * 2 and label.tolist() == [7, 7]


def test_lists(images):
    write_list(["x.png", "", "y z.png\t-3"])
    assert read_list("list.txt", "layer") == [("x.png", 0), ("y z.png", -3)]
    write_list(["x.png 1", "y.png one"])
    with pytest.raises(DataError, match=r"list\.txt:2: expected .*integer label.*'y\.png one'"):
        read_list("list.txt", "layer")
    write_list(["", " "])
    with pytest.raises(DataError, match="at least one line"):
        read_list("list.txt", "layer")
    with pytest.raises(DataError, match=r"layer: source 'nowhere.txt'.*No such file"):
        read_list("nowhere.txt", "layer")


def test_missing_and_truncated_images(images, tmp_path):
    with open("1.png", "r+b") as f:
        f.truncate(20)
    net = make_net(layer(batch_size=1))
    net.forward()
    with pytest.raises(DataError, match=r"layer 'd' \(ImageData\): 1\.png.*cannot decode"):
        net.forward()
    write_list(["nowhere.png 1"])
    with pytest.raises(DataError, match=r"nowhere\.png: expected an image file.*No such file"):
        make_net(layer())
    (tmp_path / "empty.png").touch()
    write_list(["empty.png 1"])
    with pytest.raises(DataError, match=r"empty\.png.*found 0 bytes"):
        make_net(layer())


@pytest.mark.parametrize(
    "more, batch_size, message",
    [
        ("new_height: 3", 2, "new_height and new_width"),
        ("rand_skip: 1000000", 2, "rand_skip of at most 5"),
        ("", 0, "positive batch_size"),
        ("", 4_000_000_000, "at most"),
    ],
)
def test_bad_parameters(images, more, batch_size, message):
    with pytest.raises(DemitasseError, match=message):
        make_net(layer(more, batch_size=batch_size))
