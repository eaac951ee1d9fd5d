"""Carrying weights between files and nets by layer name."""

import h5py
import numpy as np
import pytest

from demitasse.engine import weights
from demitasse.engine.errors import ModelFileError, NetError
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

NET = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param {}
      inner_product_param { num_output: 3 weight_filler { type: "xavier" }
        bias_filler { type: "constant" value: 4 } } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param {}
      inner_product_param { num_output: 3 weight_filler { type: "xavier" }
        bias_filler { type: "constant" value: 5 } } }
"""


def make(text=NET):
    return Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TEST)


def values(net):
    return {name: [b.data.copy() for b in blobs] for name, blobs in net.params.items()}


def assert_equal(net, expected):
    for name, arrays in expected.items():
        for blob, array in zip(net.params[name], arrays):
            np.testing.assert_array_equal(blob.data, array)


@pytest.mark.parametrize("rest", ["a", "c"])
def test_a_file_that_fits_nowhere_is_a_warning(tmp_path, caplog, rest):
    # One from which something is copied may well lack layers, which is only told.
    weights.save(make(), path := str(tmp_path / "w.caffemodel"))
    other = NET.replace('name: "b" type', 'name: "d" type').replace(
        'name: "a" type', f'name: "{rest}" type'
    )
    with caplog.at_level("INFO", logger="demitasse.net"):
        report = weights.copy_from(make(other), path)
    levels = {record.levelname for record in caplog.records}
    assert (report.copied, levels) == ((["a"], {"INFO"}) if rest == "a" else ([], {"WARNING"}))


def test_hdf5_is_known_by_its_contents(tmp_path):
    # As H5Fis_hdf5 does in Caffe; of a missing file and of others the reader says what is wrong.
    first, path = make(), str(tmp_path / "weights")
    weights.save_hdf5(first, path)
    net = make()
    report = weights.copy_from(net, path)
    assert report.copied == ["a", "b"]
    assert_equal(net, values(first))
    with pytest.raises(ModelFileError, match="no such file"):
        weights.copy_from(net, str(tmp_path / "nowhere"))
    (tmp_path / "text").write_text("name: 'x'")
    with pytest.raises(ModelFileError, match=r"text.*caffemodel"):
        weights.copy_from(net, str(tmp_path / "text"))


def test_hdf5_without_a_parameter_that_the_layer_owns(tmp_path):
    first, path = make(), str(tmp_path / "weights.h5")
    weights.save_hdf5(first, path)
    with h5py.File(path, "a") as file:
        assert list(file["data/b"]) == ["1"]  # b's weight is a's
        del file["data/b/1"]
    with pytest.raises(NetError, match=r"layer 'b': expected parameter 1 of shape \(3,\)"):
        weights.copy_from(make(), path)


def test_counts_of_parameters(tmp_path):
    first, path = make(), str(tmp_path / "weights.caffemodel")
    weights.save(first, path)
    net = make(
        NET.replace("num_output: 3", "num_output: 3 bias_term: false").replace("param {}", "")
    )
    with pytest.raises(NetError, match=r"layer 'a': expected 1 parameter.*found 2"):
        weights.copy_from(net, path)
    net = make(NET.replace('name: "b" type', 'name: "c" type'))
    report = weights.copy_from(net, path)
    assert (report.copied, report.skipped, report.missing) == (["a"], ["b"], ["c"])


@pytest.mark.parametrize("file_format", ["caffemodel", "h5"])
def test_copy_fitting_leaves_out_other_shapes_and_what_is_not_wanted(tmp_path, file_format):
    text = NET.replace('param { name: "w" } param {}', "")
    source, path = make(text), str(tmp_path / f"w.{file_format}")
    (weights.save_hdf5 if file_format == "h5" else weights.save)(source, path)
    a, b = text.split('layer { name: "b"')
    wider = make(f'{a}layer {{ name: "b"{b.replace("num_output: 3", "num_output: 7")}')
    before = values(wider)
    report = weights.copy_fitting(wider, path)
    assert (report.copied, report.misfits, report.missing) == (["a"], ["b"], ["b"])
    assert_equal(wider, {"a": values(source)["a"], "b": before["b"]})
    other = make(text)
    before = values(other)
    report = weights.copy_fitting(other, path, lambda name: name == "b")
    assert (report.copied, report.misfits, report.missing) == (["b"], [], ["a"])
    assert_equal(other, {"a": before["a"], "b": values(source)["b"]})
