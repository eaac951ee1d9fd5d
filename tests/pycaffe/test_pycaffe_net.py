"""caffe.Net as programs written for pycaffe use it: constructors, names, blobs, weights."""

from collections import OrderedDict

import numpy as np
import pytest
from pycaffe_nets import TRAIN

import caffe
from caffe import _caffe
from demitasse.engine.errors import NetError

# ---- constructors


def test_every_form_of_the_constructor(write, tmp_path):
    model, weights = write(TRAIN), str(tmp_path / "w.caffemodel")
    first = caffe.Net(model, caffe.TRAIN)
    first.save(weights)
    nets = [
        caffe.Net(model, weights, caffe.TRAIN),
        caffe.Net(model, caffe.TRAIN, weights=weights),
        caffe.Net(model, caffe.TRAIN, 0, None, weights),
        caffe.Net(network_file=model, phase=caffe.TRAIN, level=0, stages=[], weights=weights),
        caffe.Net(tmp_path / "net.prototxt", 0, weights=tmp_path / "w.caffemodel"),
    ]
    for net in nets:
        np.testing.assert_array_equal(net.params["ip"][0].data, first.params["ip"][0].data)


def test_phase_level_and_stages(write):
    model = write(TRAIN)
    assert list(caffe.Net(model, caffe.TRAIN).layer_dict) == ["data", "ip", "drop", "loss"]
    assert list(caffe.Net(model, caffe.TEST).layer_dict) == ["data", "ip", "loss"]
    levels = caffe.Net(model, caffe.TEST, level=1)
    assert "big" in levels.blobs and "ip_ip_0_split_1" in levels.blobs
    deploy = caffe.Net(model, caffe.TEST, stages=["deploy"])
    assert deploy.outputs == ["label", "prob"]
    assert list(caffe.Net(model, 1, 1, ["deploy"]).blobs)[-1] == "prob"


def test_constructor_errors_are_runtime_errors_as_in_pycaffe(write, tmp_path):
    with pytest.raises(RuntimeError, match=r"nowhere\.prototxt.*no such file"):
        caffe.Net("nowhere.prototxt", caffe.TEST)
    with pytest.raises(RuntimeError, match=r"nowhere\.caffemodel.*no such file"):
        caffe.Net(write(TRAIN), "nowhere.caffemodel", caffe.TEST)
    with pytest.raises(NetError, match=r"a phase, found only weights, 'TEST'"):
        caffe.Net(write(TRAIN), "TEST")
    with pytest.raises(NetError, match=r"a phase.*caffe\.TEST"):
        caffe.Net(write(TRAIN))
    with pytest.raises(NetError, match="found 2"):
        caffe.Net(write(TRAIN), 2)


# ---- what is in it


def test_names(net):
    assert net.name == "small"
    assert net.inputs == ["data", "scale"] and net.outputs == ["score"]
    assert list(net.blobs) == ["data", "scale", "conv", "pool", "flat", "mul", "score"]
    assert isinstance(net.blobs, OrderedDict) and isinstance(net.params, OrderedDict)
    assert {k: [b.shape for b in v] for k, v in net.params.items()} == {
        "conv": [(5, 3, 3, 3), (5,)],
        "ip": [(2, 5), (2,)],
    }
    assert net.top_names["in"] == ["data", "scale"] and net.bottom_names["in"] == []
    assert net.bottom_names["mul"] == ["flat", "scale"] and net.top_names["relu"] == ["conv"]
    assert list(net.layer_dict) == list(net._layer_names) == list(net.top_names)
    assert [layer.type for layer in net.layers][:3] == ["Input", "Convolution", "ReLU"]
    assert net.layers[1] is net.layer_dict["conv"]
    assert net.layers[1].blobs[0] is net.params["conv"][0]


def test_old_names_that_programs_use(net, write):
    assert net._blob_names == list(net.blobs) and net._blobs == list(net.blobs.values())
    assert net._inputs == [0, 1] and net._outputs == [6]
    assert net._bottom_ids(5) == [4, 1] and net._top_ids(0) == [0, 1]
    trained = caffe.Net(write(TRAIN), caffe.TRAIN)
    assert trained.blob_loss_weights == {"x": 0, "label": 0, "ip": 0, "loss": 2}
    assert trained._blob_loss_weights == [0, 0, 0, 2]
    assert trained._forward(0, 3) == pytest.approx(2 * float(trained.blobs["loss"].data), rel=1e-6)
    trained._backward(3, 0)
    assert trained.params["ip"][0].diff.any()
    net.name = "mine"  # fast-rcnn's tools do so
    assert net.name == "mine"


def test_types_have_the_names_of_pycaffes_module(net):
    for blobs in net.params.values():
        assert type(blobs) is caffe._caffe.BlobVec
    assert isinstance(net, _caffe.Net) and isinstance(net.blobs["data"], _caffe.Blob)
    from caffe._caffe import Layer, RawBlobVec, layer_type_list

    assert Layer is caffe.Layer and layer_type_list is caffe.layer_type_list
    bottom = RawBlobVec()
    bottom.append(net.blobs["data"])
    assert len(bottom) == 1 and bottom[0] is net.blobs["data"]


# ---- blobs


def test_blobs(net):
    blob = net.blobs["data"]
    assert blob.shape == (2, 3, 4, 4) and list(blob.shape) == [2, 3, 4, 4] and blob.count == 96
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 4, 4)
    assert blob.data.dtype == blob.diff.dtype == np.float32
    assert (net.blobs["scale"].height, net.blobs["scale"].width) == (1, 1)
    held = blob.data
    blob.data[...] = 3
    blob.data[0] += 1
    blob.diff.flat = np.arange(96)
    assert (held[0] == 4).all() and (held[1] == 3).all() and blob.diff[1, 2, 3, 3] == 95
    with pytest.raises(AttributeError):
        blob.data = held
    blob.reshape(1, np.int64(3), 2, 2)
    assert blob.data.shape == blob.diff.shape == (1, 3, 2, 2)
    blob.reshape()
    assert blob.shape == () and blob.data.shape == () and blob.count == 1
    for shape in [(-1, 2), (1 << 20, 1 << 20), (2.5,), ("a",)]:
        with pytest.raises(NetError, match="blob: expected"):
            blob.reshape(*shape)
    blob.reshape(1, 2, 3, 4, 5)
    with pytest.raises(NetError, match="at most 4 axes"):
        blob.num  # noqa: B018


def test_arrays_survive_their_net(write):
    net = caffe.Net(write(TRAIN), caffe.TRAIN)
    blobs = [*net.blobs.values(), *net.params["ip"]]
    del net
    assert np.isfinite(sum(b.data.sum() + b.diff.sum() for b in blobs))


def test_new_input_sizes_reach_the_outputs(net):
    net.blobs["data"].reshape(7, 3, 9, 6)
    net.blobs["scale"].reshape(7, 5)
    net.reshape()
    assert net.blobs["conv"].shape == (7, 5, 7, 4) and net.blobs["score"].shape == (7, 2)
    assert net.forward()["score"].shape == (7, 2)


# ---- weights


def test_copy_from_reports(write, tmp_path):
    weights = str(tmp_path / "w.caffemodel")
    source = caffe.Net(write(TRAIN), caffe.TEST, level=1)
    source.save(weights)
    net = caffe.Net(write(TRAIN.replace('"ip" type', '"ip2" type')), caffe.TEST, level=1)
    report = net.copy_from(weights)
    assert (report.copied, report.skipped, report.missing) == (["big"], ["ip"], ["ip2"])
    np.testing.assert_array_equal(net.params["big"][0].data, source.params["big"][0].data)


def test_a_wrong_shape_says_both_shapes_and_what_to_do(write, tmp_path):
    weights = str(tmp_path / "w.caffemodel")
    caffe.Net(write(TRAIN), caffe.TEST).save(weights)
    net = caffe.Net(write(TRAIN.replace("num_output: 3", "num_output: 4")), caffe.TEST)
    with pytest.raises(RuntimeError) as error:
        net.copy_from(weights)
    text = str(error.value)
    assert "layer 'ip', parameter 0" in text and "(4, 3)" in text and "(3, 3)" in text
    assert "another name" in text


def test_files_of_weights(write, tmp_path):
    net, other = (caffe.Net(write(TRAIN), caffe.TEST) for _ in range(2))
    for name in ("w.caffemodel", "w.caffemodel.h5", "any_name"):
        path = str(tmp_path / name)
        other.params["ip"][0].data[...] = 0
        if name == "w.caffemodel":
            net.save(path)
            other.copy_from(path)
        else:
            net.save_hdf5(path)
            other.load_hdf5(path) if name == "any_name" else other.copy_from(path)
        np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)
    message = caffe.proto.caffe_pb2.NetParameter.FromString(
        (tmp_path / "w.caffemodel").read_bytes()
    )
    saved = {layer.name: layer for layer in message.layer}["ip"]
    assert list(saved.blobs[0].shape.dim) == [3, 3]
    np.testing.assert_array_equal(saved.blobs[0].data, net.params["ip"][0].data.ravel())


def test_shared_weights_are_one_memory(write):
    train, test = caffe.Net(write(TRAIN), caffe.TRAIN), caffe.Net(write(TRAIN), caffe.TEST)
    test.share_with(train)
    train.params["ip"][0].data[...] = 5
    assert (test.params["ip"][0].data == 5).all()
    wrong = caffe.Net(write(TRAIN.replace("num_output: 3", "num_output: 2")), caffe.TEST)
    with pytest.raises(NetError, match=r"layer 'ip'.*\(2, 3\).*\(3, 3\)"):
        wrong.share_with(train)
