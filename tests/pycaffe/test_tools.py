import csv
import math
import os

import cv2
import numpy as np
import pytest

from caffe.io import blobproto_to_array, datum_to_array
from caffe.proto import caffe_pb2
from demitasse.engine.db import open_db
from demitasse.engine.prototxt import read_binary, read_text
from demitasse.tools import (
    compute_image_mean,
    convert_imageset,
    draw_net,
    parse_log,
    upgrade_net_proto_binary,
    upgrade_net_proto_text,
)

BACKENDS = ["lmdb", "leveldb"]
pytestmark = pytest.mark.usefixtures("log_as_it_was")


def records(path, backend):
    with open_db(str(path), backend) as db:
        return [(key, caffe_pb2.Datum.FromString(value)) for key, value in db.items()]


@pytest.fixture
def photos(tmp_path):
    """Four images (H, W, 3), BGR, and a list of them; the paths have a space in them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 8, 3), np.uint8)
    (tmp_path / "my photos").mkdir()
    lines = []
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "my photos" / f"{i}.png"), image)
        lines.append(f"my photos/{i}.png {10 * i}")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n\n")
    return images


@pytest.mark.parametrize("backend", BACKENDS)
def test_imageset_to_database_to_mean(photos, tmp_path, backend, capsys):
    words = [f"{tmp_path}/", str(tmp_path / "list.txt"), str(tmp_path / "db")]
    assert convert_imageset.main([f"-backend={backend}", "--check_size", *words]) == 0
    assert "Processed 4 files." in capsys.readouterr().err
    items = records(tmp_path / "db", backend)
    assert [key for key, _ in items] == [f"{i:08d}_my photos/{i}.png".encode() for i in range(4)]
    assert [datum.label for _, datum in items] == [0, 10, 20, 30]
    for image, (_, datum) in zip(photos, items):
        assert not datum.encoded
        np.testing.assert_array_equal(datum_to_array(datum), image.transpose(2, 0, 1))

    out = tmp_path / "mean.binaryproto"
    assert compute_image_mean.main(["-backend", backend, str(tmp_path / "db"), str(out)]) == 0
    mean = blobproto_to_array(read_binary(out, caffe_pb2.BlobProto))
    want = photos.astype(float).mean(axis=0).transpose(2, 0, 1)
    np.testing.assert_allclose(mean, want[np.newaxis], rtol=1e-6)
    log = capsys.readouterr().err
    assert "Number of channels: 3" in log
    assert f"mean_value channel [1]: {want[1].mean():g}" in log


def test_gray_resized_images(photos, tmp_path):
    words = [str(tmp_path), str(tmp_path / "list.txt"), str(tmp_path / "db")]
    flags = ["-gray", "-resize_width=4", "-resize_height", "5"]
    assert convert_imageset.main([*flags, *words]) == 0
    files = sorted((tmp_path / "my photos").iterdir())
    for path, (_, datum) in zip(files, records(tmp_path / "db", "lmdb")):
        gray = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (4, 5))
        assert (datum.channels, datum.height, datum.width) == (1, 5, 4)
        np.testing.assert_array_equal(datum_to_array(datum)[0], gray)


@pytest.mark.parametrize(
    "flags, kind, shape",
    [
        (["-encoded"], b"\x89PNG", None),
        (["-encode_type=png"], b"\x89PNG", None),
        (["-encoded", "-encode_type", "jpg"], b"\xff\xd8", (3, 6, 8)),
        (["-encoded", "-gray"], b"\x89PNG", (1, 6, 8)),
        (["-encoded", "-resize_width=4", "-resize_height=5"], b"\x89PNG", (3, 5, 4)),
    ],
)
def test_encoded_images(photos, tmp_path, flags, kind, shape):
    """A `shape` of None: the file itself is stored."""
    words = [str(tmp_path), str(tmp_path / "list.txt"), str(tmp_path / "db")]
    assert convert_imageset.main([*flags, *words]) == 0
    files = sorted((tmp_path / "my photos").iterdir())
    for path, (_, datum) in zip(files, records(tmp_path / "db", "lmdb")):
        assert datum.encoded
        assert datum.data.startswith(kind)
        assert (datum.data == path.read_bytes()) == (shape is None)
        assert datum_to_array(datum).shape == (shape or (3, 6, 8))
    assert compute_image_mean.main([str(tmp_path / "db")]) == 0


def test_shuffle_keeps_labels_and_follows_the_seed(photos, tmp_path):
    words = [str(tmp_path), str(tmp_path / "list.txt")]
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 4)):
        db = tmp_path / name
        assert convert_imageset.main(["-shuffle", f"-seed={seed}", *words, str(db)]) == 0
        items = records(db, "lmdb")
        orders.append([datum.label for _, datum in items])
        for key, datum in items:
            assert key.decode().endswith(f"/{datum.label // 10}.png")
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == [0, 10, 20, 30]


def test_unreadable_images_are_left_out_and_named(photos, tmp_path, capsys):
    (tmp_path / "my photos" / "1.png").write_bytes(b"broken")
    (tmp_path / "my photos" / "2.png").unlink()
    words = [str(tmp_path), str(tmp_path / "list.txt")]
    assert convert_imageset.main([*words, str(tmp_path / "db")]) == 0
    log = capsys.readouterr().err
    assert "1.png" in log
    assert "2.png" in log
    assert [datum.label for _, datum in records(tmp_path / "db", "lmdb")] == [0, 30]
    (tmp_path / "list.txt").write_text("my photos/2.png 3\n")
    assert convert_imageset.main([*words, str(tmp_path / "none")]) == 1
    assert "expected images that can be read" in capsys.readouterr().err


def test_sizes_that_differ(photos, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "my photos" / "2.png"), photos[0, :4])
    words = [str(tmp_path), str(tmp_path / "list.txt")]
    assert convert_imageset.main(["-check_size", *words, str(tmp_path / "checked")]) == 1
    assert "2.png" in capsys.readouterr().err
    assert convert_imageset.main([*words, str(tmp_path / "db")]) == 0
    assert compute_image_mean.main([str(tmp_path / "db")]) == 1
    assert "00000002_my photos/2.png" in capsys.readouterr().err


def test_a_list_need_not_be_in_utf_8(photos, tmp_path):
    name = b"caf\xe9.png"
    os.rename(tmp_path / "my photos" / "1.png", os.fsencode(tmp_path) + b"/" + name)
    (tmp_path / "list.txt").write_bytes(name + b" 7\n")
    words = [str(tmp_path), str(tmp_path / "list.txt"), str(tmp_path / "db")]
    assert convert_imageset.main(words) == 0
    ((key, datum),) = records(tmp_path / "db", "lmdb")
    assert key == b"00000000_" + name and datum.label == 7


@pytest.mark.parametrize("line", ["photo.png", "photo.png seven", "7", "photo.png 1.5"])
def test_a_bad_line_of_the_list_is_named(tmp_path, capsys, line):
    (tmp_path / "list.txt").write_text(f"good.png 1\n{line}\n")
    words = [str(tmp_path), str(tmp_path / "list.txt"), str(tmp_path / "db")]
    assert convert_imageset.main(words) == 1
    assert "list.txt:2" in capsys.readouterr().err
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(
    "tool", [convert_imageset, compute_image_mean, draw_net, parse_log, upgrade_net_proto_text]
)
def test_a_wrong_number_of_words_shows_the_usage(tool, capsys):
    assert tool.main(["a", "b", "c", "d"]) == 1
    assert tool.USAGE in capsys.readouterr().err
    assert tool.main(["--help"]) == 0
    assert tool.USAGE in capsys.readouterr().out


OLD_NET = """
name: "old"
input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2
         inner_product_param { num_output: 2 } }
"""


def check_upgraded(net):
    assert [(layer.name, layer.type) for layer in net.layer] == [
        ("input", "Input"),
        ("ip", "InnerProduct"),
    ]
    assert [param.lr_mult for param in net.layer[1].param] == [1, 2]
    assert not net.layers


def test_upgrade_of_text(tmp_path, capsys):
    old, new, again = (str(tmp_path / name) for name in ("old", "new", "again"))
    (tmp_path / "old").write_text(OLD_NET)
    assert upgrade_net_proto_text.main([old, new]) == 0
    check_upgraded(read_text(new, caffe_pb2.NetParameter))
    assert "already in latest" not in capsys.readouterr().err
    assert upgrade_net_proto_text.main([new, again]) == 0
    assert "already in latest" in capsys.readouterr().err
    assert (tmp_path / "new").read_text() == (tmp_path / "again").read_text()
    (tmp_path / "old").write_text("layers { tpye: RELU }")
    assert upgrade_net_proto_text.main([old, new]) == 1
    assert "'type'" in capsys.readouterr().err


def test_upgrade_of_weights(tmp_path):
    (tmp_path / "net").write_text(OLD_NET)
    net = read_text(tmp_path / "net", caffe_pb2.NetParameter)
    net.layers[0].blobs.add(num=1, channels=1, height=1, width=3, data=[1, 2, 3])
    (tmp_path / "old").write_bytes(net.SerializeToString())
    assert upgrade_net_proto_binary.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    upgraded = read_binary(tmp_path / "new", caffe_pb2.NetParameter)
    check_upgraded(upgraded)
    assert list(upgraded.layer[1].blobs[0].data) == [1, 2, 3]
    assert upgrade_net_proto_binary.main([str(tmp_path / "gone"), str(tmp_path / "x")]) == 1


LOG = """\
Log file created at: 2016/12/31 23:59:50
I1231 23:59:58.000000  4242 solver.cpp:48] Initializing solver from parameters:
I1231 23:59:58.500000  4242 solver.cpp:279] Solving LeNet
I1231 23:59:59.000000  4242 solver.cpp:337] Iteration 0, Testing net (#0)
I1231 23:59:59.250000  4242 solver.cpp:404]     Test net output #0: accuracy = 0.125
I1231 23:59:59.250000  4242 solver.cpp:404]     Test net output #1: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:59.500000  4242 solver.cpp:228] Iteration 0 (5 iter/s, 2s/100 iters), loss = 2.5
I1231 23:59:59.500000  4242 solver.cpp:244]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:59.500000  4242 sgd_solver.cpp:106] Iteration 0, lr = 0.01
I0101 00:00:08.500000  4242 solver.cpp:228] Iteration 100, loss = 1e-05
garbled line
I0101 00:00:08.500000  4242 solver.cpp:244]     Train net output #0: loss = 1e-05
I0101 00:00:08.500000  4242 sgd_solver.cpp:106] Iteration 100, lr = 0.001
I0101 00:00:18.500000  4242 solver.cpp:337] Iteration 200, Testing net (#0)
I0101 00:00:18.500000  4242 solver.cpp:404]     Test net output #0: accuracy = 0.75
I0101 00:00:18.500000  4242 solver.cpp:404]     Test net output #1: loss = nan
"""


def test_log_to_tables(tmp_path, capsys):
    (tmp_path / "train.log").write_text(LOG)
    assert parse_log.main(["--verbose", str(tmp_path / "train.log"), str(tmp_path)]) == 0
    assert "Wrote" in capsys.readouterr().out
    tables = {}
    for kind in ("train", "test"):
        with open(tmp_path / f"train.log.{kind}", newline="") as file:
            tables[kind] = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert tables["train"] == [
        {"NumIters": 0, "Seconds": 1, "LearningRate": 0.01, "loss": 2.5},
        {"NumIters": 100, "Seconds": 10, "LearningRate": 0.01, "loss": 1e-5},
    ]
    first, last = tables["test"]
    assert first == {
        "NumIters": 0, "Seconds": 0.75, "LearningRate": 0.001, "accuracy": 0.125, "loss": 2.5
    }  # fmt: skip
    assert (last["NumIters"], last["Seconds"], last["accuracy"]) == (200, 20, 0.75)
    assert math.isnan(last["loss"])


def test_log_with_a_year_another_delimiter_and_no_tests(tmp_path):
    lines = [line for line in LOG.splitlines() if "Test" not in line]
    lines = [line.replace("I1231", "I20161231").replace("I0101", "I20170101") for line in lines]
    (tmp_path / "train.log").write_text("\n".join(lines))
    assert parse_log.main(["-delimiter=;", str(tmp_path / "train.log"), str(tmp_path)]) == 0
    text = (tmp_path / "train.log.train").read_text().splitlines()
    assert text[0] == "NumIters;Seconds;LearningRate;loss"
    assert text[2].startswith("100.0;10.0;")
    assert not (tmp_path / "train.log.test").exists()


def test_what_is_no_log_is_refused(tmp_path, capsys):
    (tmp_path / "notes").write_text("Iteration 1 was fine\n")
    assert parse_log.main([str(tmp_path / "notes"), str(tmp_path)]) == 1
    assert "notes: expected a log of `caffe train`" in capsys.readouterr().err


def test_draw_net_without_graphviz(tmp_path, capsys):
    (tmp_path / "net").write_text(OLD_NET)
    out = str(tmp_path / "net.dot")
    assert draw_net.main([str(tmp_path / "net"), out, "--rankdir", "TB", "-display_lrm"]) == 0
    assert "lr mult: 1.0, 2.0" in (tmp_path / "net.dot").read_text()
    assert draw_net.main([str(tmp_path / "net"), out, "-phase=BOTH"]) == 1
    assert "TRAIN, TEST or ALL" in capsys.readouterr().err
