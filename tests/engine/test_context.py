"""Where the files are found that a net names."""

import cv2
import h5py
import numpy as np
import pytest

from caffe.proto import caffe_pb2
from demitasse.engine.context import Context
from demitasse.engine.errors import DataError
from demitasse.engine.net import Net
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver

HDF5 = """layer { name: "d" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "lists/train.txt" batch_size: 2 } }"""
IMAGES = """layer { name: "d" type: "ImageData" top: "x" top: "label"
  image_data_param { source: "lists/train.txt" root_folder: "photos/" batch_size: 1 }
  transform_param { mean_file: "mean.binaryproto" } }"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The working directory is a folder in which there is nothing."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def write_rows(folder, value):
    """A list and the HDF5 file that it names, relative to `folder`, with rows of `value`."""
    (folder / "lists").mkdir(parents=True)
    (folder / "lists" / "train.txt").write_text("rows.h5\n")
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"] = np.full((3, 4), value, np.float32)


def net_of(text, **folders):
    net = Net(parse_text(text, caffe_pb2.NetParameter), context=Context(1, **folders))
    net.forward()
    return net


def test_the_nearest_place_counts(tmp_path, monkeypatch):
    net, solver = tmp_path / "models" / "net", tmp_path / "solver"
    net.mkdir(parents=True)
    context = Context(folder=str(net), solver_folder=str(solver))
    expected = "rows.h5"
    assert context.find("rows.h5") == expected  # nowhere: as it is written
    for folder in (solver, tmp_path / "models", net):
        folder.mkdir(exist_ok=True)
        (folder / "rows.h5").write_text("")
        assert context.find("rows.h5") == str(folder / "rows.h5")
    monkeypatch.chdir(tmp_path / "models")
    assert context.find("rows.h5") == "rows.h5"
    assert Context().find("x") == "x" and context.find("") == "" and context.find("a\0") == "a\0"


def test_lists_and_what_they_name_beside_the_net(tmp_path):
    write_rows(tmp_path / "net", 7)
    net = net_of(HDF5, folder=str(tmp_path / "net"))
    assert (net.blobs["x"].data == 7).all()
    with pytest.raises(DataError, match=r"source 'lists/train\.txt'"):
        net_of(HDF5)


def test_images_and_mean_files_above_the_net(tmp_path):
    for name in ("lists", "photos", "net"):
        (tmp_path / name).mkdir()
    (tmp_path / "lists" / "train.txt").write_text("a.png 3\n")
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.full((2, 2, 3), 9, np.uint8))
    mean = caffe_pb2.BlobProto(num=1, channels=3, height=2, width=2, data=[4] * 12)
    (tmp_path / "mean.binaryproto").write_bytes(mean.SerializeToString())
    net = net_of(IMAGES, folder=str(tmp_path / "net"))
    assert (net.blobs["x"].data == 5).all() and net.blobs["label"].data == 3


def test_data_beside_the_solver(tmp_path, monkeypatch):
    write_rows(tmp_path / "work", 8)
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "net.prototxt").write_text(HDF5)
    solver = tmp_path / "work" / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    net = make_solver(solver).net
    net.forward()
    assert (net.blobs["x"].data == 8).all()
