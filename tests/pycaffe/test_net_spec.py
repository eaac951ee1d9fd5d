import copy

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.net_spec import NetSpec, NetSpecError, Top, assign_proto, param_name_dict, to_proto
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffe.proto import caffe_pb2


def expected(text):
    return text_format.Parse(text, caffe_pb2.NetParameter())


def lenet():
    n = NetSpec()
    n.data, n.label = L.DummyData(
        shape=[dict(dim=[8, 1, 28, 28]), dict(dim=[8])], transform_param=dict(scale=0.5), ntop=2
    )
    n.conv1 = L.Convolution(
        n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"),
        param=[dict(lr_mult=1), dict(lr_mult=2)],
    )  # fmt: skip
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.AVE)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.ip = L.InnerProduct(n.relu1, num_output=10, include=dict(phase=caffe_pb2.TEST))
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=3)
    return n


def test_a_net_with_all_kinds_of_keywords():
    assert lenet().to_proto() == expected("""
        layer { name: "data" type: "DummyData" top: "data" top: "label"
                transform_param { scale: 0.5 }
                dummy_data_param { shape { dim: 8 dim: 1 dim: 28 dim: 28 } shape { dim: 8 } } }
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
                param { lr_mult: 1 } param { lr_mult: 2 }
                convolution_param { num_output: 20 kernel_size: 5
                                    weight_filler { type: "xavier" } } }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
                pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
        layer { name: "relu1" type: "ReLU" bottom: "pool1" top: "pool1" }
        layer { name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
                inner_product_param { num_output: 10 } include { phase: TEST } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
                loss_weight: 3 }""")


def test_automatic_names_and_only_the_layers_needed():
    data = L.Input(shape=dict(dim=[1, 2]))
    a, b = L.ReLU(data), L.Slice(data, ntop=2)
    L.ReLU(a)  # nobody needs it
    net = to_proto(L.Eltwise(a, b[1], b[0]))
    assert [layer.name for layer in net.layer] == ["Input1", "ReLU1", "Slice1", "Eltwise1"]
    assert list(net.layer[2].top) == ["Slice1", "Slice2"]
    assert list(net.layer[3].bottom) == ["ReLU1", "Slice2", "Slice1"]
    assert a.to_proto() == to_proto(a)


def test_unnamed_tops_inside_a_spec_get_automatic_names():
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2]))
    n.out = L.ReLU(L.ReLU(L.ReLU(n.data)))
    assert [layer.name for layer in n.to_proto().layer] == ["data", "ReLU1", "ReLU2", "out"]


def test_layers_without_tops():
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2]))
    n.end = L.Silence(n.data, ntop=0)
    net = n.to_proto()
    assert (net.layer[1].name, list(net.layer[1].top)) == ("end", [])
    assert L.Silence(n.data, ntop=0).to_proto().layer[1].name == "Silence1"


def test_a_python_layer():
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2]))
    n.twice = L.Python(n.data, module="mine", layer="Twice", param_str="{'a': 1}", loss_weight=1)
    assert n.to_proto().layer[1] == text_format.Parse(
        """name: "twice" type: "Python" bottom: "data" top: "twice" loss_weight: 1
           python_param { module: "mine" layer: "Twice" param_str: "{'a': 1}" }""",
        caffe_pb2.LayerParameter(),
    )


def test_messages_by_name_and_a_name_of_its_own():
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2, 8, 8]))
    n.up = L.Deconvolution(n.data, name="deconv", convolution_param=dict(num_output=2, stride=2))
    layer = n.to_proto().layer[1]
    assert (layer.name, list(layer.top)) == ("deconv", ["up"])
    assert list(layer.convolution_param.stride) == [2]


def test_spec_as_a_container():
    n = lenet()
    assert n.keys() == ["data", "label", "conv1", "pool1", "relu1", "ip", "loss"]
    assert n.vals()[0] is n["data"] is n.tops["data"] is n.data
    assert isinstance(n.data, Top)
    assert "conv1" in n
    assert "conv2" not in n
    assert not hasattr(n, "conv2")
    del n["loss"], n.ip
    n["relu2"] = L.ReLU(n.relu1)
    n.update("relu2", dict(negative_slope=0.25))
    names = [layer.name for layer in n.to_proto().layer]
    assert names == ["data", "conv1", "pool1", "relu1", "relu2"]
    assert n.to_proto().layer[-1].relu_param.negative_slope == 0.25
    assert copy.deepcopy(n).to_proto() == n.to_proto()


def test_to_proto_may_be_called_again():
    n = lenet()
    first = n.to_proto()
    assert n.to_proto() == first


def test_a_net_deeper_than_pythons_stack():
    top = L.Input(shape=dict(dim=[1]))
    for _ in range(3000):
        top = L.ReLU(top)
    net = top.to_proto()
    assert len(net.layer) == 3001
    assert net.layer[-1].name == "ReLU3000"


def test_param_name_dict():
    names = param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["ReLU"] == "relu"
    assert names["HDF5Data"] == "hdf5_data"
    assert names["ROIPooling"] == "roi_pooling"


@pytest.mark.parametrize(
    "value", [3, [3], (3,), np.array([3]), np.int64(3), [np.int32(3)]], ids=repr
)
def test_any_sequence_or_one_value_fills_a_repeated_field(value):
    param = caffe_pb2.ConvolutionParameter()
    assign_proto(param, "kernel_size", value)
    assert list(param.kernel_size) == [3]


def test_assign_proto_takes_messages_enum_names_and_empty_lists():
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "pooling_param", caffe_pb2.PoolingParameter(kernel_size=3))
    assign_proto(layer, "pooling_param", dict(pool="STOCHASTIC", stride=np.int64(2)))
    assign_proto(layer, "param", [])
    assign_proto(layer, "param", dict(lr_mult=np.float32(0.5)))
    assert layer.pooling_param.kernel_size == 3
    assert layer.pooling_param.pool == P.Pooling.STOCHASTIC
    assert [p.lr_mult for p in layer.param] == [0.5]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda d: L.Convolution(d, kernal_size=3), "Convolution1.*'kernel_size'"),
        (lambda d: L.ReLU(d, transform_parm={}), "Did you mean 'transform_param'"),
        (lambda d: L.Convolution(d, weight_filler=dict(tpye="x")), "weight_filler.*'type'"),
        (lambda d: L.Deconvolution(d, num_output=3), r"convolution_param=dict\(num_output"),
        (lambda d: L.Convolution(d, num_output="three"), "num_output.*whole number.*'three'"),
        (lambda d: L.Convolution(d, num_output=-1), "num_output.*whole number.*-1"),
        (lambda d: L.Convolution(d, weight_filler="xavier"), "a dict of the fields"),
        (lambda d: L.Pooling(d, pool="MOX"), "MAX, AVE, STOCHASTIC"),
    ],
)
def test_wrong_keywords_say_what_would_be_right(make, message):
    top = make(L.Input(shape=dict(dim=[1, 1, 4, 4])))
    with pytest.raises(NetSpecError, match=message):
        top.to_proto()
    with pytest.raises((AttributeError, TypeError)):  # as pycaffe's programs catch them
        top.to_proto()


def test_wrong_inputs_names_and_values():
    n = lenet()
    with pytest.raises(TypeError, match=r"ReLU input 0 is not a Top \(type is <class 'tuple'>"):
        L.ReLU((n.data, n.label))
    with pytest.raises(NetSpecError, match=r"n\.a, n\.b = "):
        n.both = L.Slice(n.data, ntop=2)
    with pytest.raises(KeyError, match="Did you mean 'conv1'"):
        n["cnov1"]
    with pytest.raises(KeyError, match="'gone'"):
        del n["gone"]
    with pytest.raises(AttributeError, match="Did you mean 'MAX'"):
        _ = P.Pooling.MXA
    with pytest.raises(AttributeError, match="Did you mean 'Pooling'"):
        _ = P.Poolin.MAX


def test_a_spec_written_to_a_file_runs(tmp_path):
    n = caffe.NetSpec()
    n.data = caffe.layers.Input(shape=dict(dim=[2, 3]))
    n.half = caffe.layers.Power(n.data, scale=0.5, include=dict(phase=caffe.TEST))
    n.relu = caffe.layers.ReLU(n.half, in_place=True)
    (tmp_path / "net.prototxt").write_text(str(n.to_proto()))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    out = net.forward(data=np.array([[1, -2, 3], [4, 5, -6]]))
    np.testing.assert_array_equal(out["half"], [[0.5, 0, 1.5], [2, 2.5, 0]])
