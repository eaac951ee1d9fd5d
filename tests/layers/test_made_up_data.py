"""Layers that read nothing: DummyData, Input, Parameter."""

import numpy as np
import pytest
from data_nets import TRAIN, batches, make_net
from google.protobuf import text_format

from demitasse.engine.context import Context
from demitasse.engine.errors import DemitasseError
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2


def dummy(text):
    return f'type: "DummyData" dummy_data_param {{ {text} }}'


def test_constants_are_written_once():
    net = make_net(
        dummy(
            "shape { dim: 2 dim: 3 } shape { dim: 4 } data_filler { value: 1.5 } "
            'data_filler { type: "uniform" min: 5 max: 6 }'
        )
    )
    a, b = batches(net, 1)[0]
    assert (a == 1.5).all() and a.shape == (2, 3) and b.shape == (4,) and (b >= 5).all()
    net.blob_list[0].data[...] = 9
    a2, b2 = batches(net, 1)[0]
    assert (a2 == 9).all() and (b2 != b).all()


def test_random_values_follow_from_seed_and_pass():
    text = dummy('shape { dim: 5 } data_filler { type: "gaussian" std: 2 }')
    first = batches(make_net(text), 4)
    assert (first[0][0] != first[0][1]).all() and (first[0][0] != first[1][0]).all()
    net = make_net(text)
    net.seek(3)
    np.testing.assert_array_equal(batches(net, 1)[0], first[3])
    assert (batches(make_net(text, seed=2), 1)[0][0] != first[0][0]).all()


def test_dummy_shapes():
    net = make_net(dummy("num: 2 num: 3 channels: 4 height: 1 width: 5 width: 6"))
    assert [blob.shape for blob in net.blob_list] == [(2, 4, 1, 5), (3, 4, 1, 6)]
    assert (batches(net, 1)[0][0] == 0).all()
    net = make_net(dummy("shape { dim: 7 }"), tops=("a", "b", "c"))
    assert [blob.shape for blob in net.blob_list] == [(7,)] * 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "shape once, or once for each of 2 tops"),
        ("shape { dim: 1 } num: 3", "either shape or num"),
        ("num: 1 channels: 2 height: 3", "width once"),
        ("shape {} shape {} shape {}", "shape once"),
        ("shape { dim: 1 }" + "data_filler {}" * 3, "data_filler once"),
        ('shape { dim: 1 } data_filler { type: "gausian" }', "Did you mean 'gaussian'"),
        ("shape { dim: 100000 dim: 100000 }", "at most"),
    ],
)
def test_bad_dummies(text, message):
    with pytest.raises(DemitasseError, match=message):
        make_net(dummy(text))


def test_inputs():
    net = make_net('type: "Input" input_param { shape { dim: 2 dim: 3 } shape { dim: 4 } }')
    assert [blob.shape for blob in net.blob_list] == [(2, 3), (4,)]
    net = make_net('type: "Input" input_param { shape { dim: 2 } }')
    assert [blob.shape for blob in net.blob_list] == [(2,), (2,)]
    net.blobs["data"].reshape(1, 5)
    net.blobs["data"].data[...] = 3
    assert batches(net, 1)[0][0].tolist() == [[3] * 5]
    make_net('type: "Input"')
    with pytest.raises(DemitasseError, match="one for each of 2 tops"):
        make_net('type: "Input" input_param { shape {} shape {} shape {} }')


def test_parameter_is_learned_and_accumulates():
    text = """
        force_backward: true
        layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }
    """
    net = Net(text_format.Parse(text, caffe_pb2.NetParameter()), TRAIN, context=Context(1))
    blob = net.params["p"][0]
    assert blob.shape == (2, 3) and (blob.data == 0).all()
    blob.data[...] = np.arange(6).reshape(2, 3)
    net.forward()
    np.testing.assert_array_equal(net.blobs["w"].data, blob.data)
    for passes in (1, 2):
        net.blobs["w"].diff[...] = 5
        net.backward()
        assert (blob.diff == 5 * passes).all()
