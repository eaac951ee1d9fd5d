import sys

import pytest
from google.protobuf import text_format

from caffe import draw
from caffe.proto import caffe_pb2
from demitasse.engine.errors import DemitasseError, NetError

NET = """
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" data_param { batch_size: 32 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 }
        convolution_param { num_output: 20 kernel_size: 5 pad: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "drop" include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
        inner_product_param { num_output: 10 } exclude { phase: TRAIN } }
"""


@pytest.fixture
def net():
    return text_format.Parse(NET, caffe_pb2.NetParameter())


def test_labels(net):
    layers = {layer.name: layer for layer in net.layer}
    assert draw.get_layer_label(layers["relu"], "LR") == r'"relu\n(ReLU)"'
    conv = '"conv (Convolution) kernel size: 5 stride: 1 pad: 2"'
    assert draw.get_layer_label(layers["conv"], "TB") == conv
    assert draw.get_layer_label(layers["conv"], "BT", display_lrm=True) == (
        conv[:-1] + ' lr mult: 2.0, 1.0"'
    )
    assert draw.get_layer_label(layers["pool"], "TB") == (
        '"pool (Pooling AVE) kernel size: 2x3 stride: 2 pad: 0"'
    )
    edges = [draw.get_edge_label(layers[name]) for name in ("data", "conv", "ip", "relu")]
    assert edges == ["Batch 32", "20", "10", '""']
    assert draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}
    assert draw.get_layer_lr_mult(layers["conv"]) == (2, 1)
    with pytest.raises(ValueError, match="relu"):
        draw.get_layer_lr_mult(layers["relu"])


def test_colors():
    kinds = ("Convolution", "Deconvolution", "Pooling", "InnerProduct", "ReLU")
    colors = [draw.choose_color_by_layertype(kind) for kind in kinds]
    assert colors == ["#FF5050", "#FF5050", "#FF9900", "#CC33FF", "#6495ED"]


def test_graph(net):
    graph = draw.get_pydot_graph(net, "LR")
    assert graph.get_name() == "tiny"
    assert graph.get_rankdir() == "LR"
    nodes = {node.get_name().strip('"').split(r"\n")[0]: node for node in graph.get_nodes()}
    assert set(nodes) == {"data", "label", "conv", "relu", "pool", "drop", "ip"}
    # Layers: 6. Blobs: data, label, conv, pool, drop, ip.
    assert len(graph.get_nodes()) == 12
    assert nodes["relu"].get_fillcolor() == draw.NEURON_LAYER_STYLE["fillcolor"]
    edges = [(e.get_source(), e.get_destination(), e.get_label()) for e in graph.get_edges()]
    assert len(edges) == 2 + 2 + 2 + 2 + 2 + 2
    conv = r'"conv\n(Convolution)\nkernel size: 5\nstride: 1\npad: 2"'
    assert ('"data"', conv, '""') in edges
    assert (conv, '"conv"', "20") in edges
    plain = draw.get_pydot_graph(net, "LR", label_edges=False).get_edges()
    assert {edge.get_label() for edge in plain} == {'""'}


@pytest.mark.parametrize(
    "phase, gone", [(caffe_pb2.TRAIN, "ip"), (caffe_pb2.TEST, "drop"), (None, None)]
)
def test_phases(net, phase, gone):
    text = draw.draw_net(net, "TB", "raw", phase=phase).decode()
    assert {name for name in ("ip", "drop") if f'"{name} (' not in text} == ({gone} - {None})
    net.layer[0].include.add(phase=caffe_pb2.TEST)
    net.layer[0].exclude.add(phase=caffe_pb2.TEST)
    if phase is not None:
        with pytest.raises(NetError, match=r"'data'.*include rules or exclude rules"):
            draw.draw_net(net, "TB", "raw", phase=phase)


def test_layers_of_stages_are_drawn_where_they_are(net):
    """A rule that names a stage alone holds in both phases."""
    net.layer[2].include.add(stage=["extra"])
    for phase in (caffe_pb2.TRAIN, caffe_pb2.TEST, None):
        for stages in ((), ["extra"]):
            text = draw.draw_net(net, "TB", "raw", phase=phase, stages=stages).decode()
            assert ("(ReLU)" in text) == (phase is None or bool(stages))


def test_text_file_needs_no_graphviz_and_a_picture_says_so(net, tmp_path, monkeypatch):
    draw.draw_net_to_file(net, str(tmp_path / "net.dot"), "TB")
    text = (tmp_path / "net.dot").read_text()
    assert text.startswith("digraph tiny")
    assert "rankdir=TB" in text
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemitasseError, match="Graphviz"):
        draw.draw_net_to_file(net, str(tmp_path / "net.png"))
    assert not (tmp_path / "net.png").exists()
    with pytest.raises(DemitasseError, match="extension"):
        draw.draw_net_to_file(net, str(tmp_path / "net"))


def test_without_pydot(net, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(DemitasseError, match=r"demitasse\[plot\]"):
        draw.draw_net(net, "LR")
