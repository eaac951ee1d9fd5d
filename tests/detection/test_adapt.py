"""Counts that follow from classes and anchors; freezing; what is written for use."""

import py_faster_rcnn
import pytest

from caffe.proto import caffe_pb2
from demitasse import prototxt
from demitasse.detection import adapt, config
from demitasse.detection.compress import compress_definition
from demitasse.detection.roles import find_roles, parameter_count
from demitasse.engine.context import Context
from demitasse.engine.errors import LayerError, NetError
from demitasse.engine.net import Net
from demitasse.engine.phase import TEST, TRAIN
from demitasse.engine.prototxt import format_text, parse_text, read_net
from demitasse.layers.param_str import parse_param_str

CLASSES = ("__background__", "red", "white", "platelet")


def ours(network="squeezenet"):
    return read_net(prototxt.path(network, "faster_rcnn.prototxt"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = py_faster_rcnn.write(tmp_path_factory.mktemp("theirs"), "ZF")
    return {p.relative_to(folder).as_posix(): read_net(p) for p in folder.rglob("*") if net_of(p)}


def net_of(path):
    return path.is_file() and "solver" not in path.name


def outputs(param):
    """{layer name: num_output} of the layers that predict."""
    names = ("cls_score", "bbox_pred", "rpn_cls_score", "rpn_bbox_pred")
    return {
        layer.name: (layer.inner_product_param if layer.type == "InnerProduct" else
                     layer.convolution_param).num_output
        for layer in param.layer if layer.name in names
    }  # fmt: skip


def param_strs(param):
    keys = ("feat_stride", "scales", "ratios", "num_classes")
    return [
        (layer.name, parse_param_str(layer.python_param.param_str, layer.name, keys))
        for layer in param.layer
        if layer.HasField("python_param")
    ]


# ---- counts


def test_ours_for_other_classes_and_anchors():
    before = ours()
    text = format_text(before)
    param, said = adapt.adapt_net(before, CLASSES, (4, 8, 16, 32), (0.5, 1, 2), "x.prototxt")
    assert format_text(before) == text
    assert outputs(param) == {
        "cls_score": 4, "bbox_pred": 16, "rpn_cls_score": 24, "rpn_bbox_pred": 48,
    }  # fmt: skip
    for name, values in param_strs(param):
        if name in ("proposal", "rpn-data"):
            assert values == {"feat_stride": 16, "scales": (4, 8, 16, 32)}
        else:
            assert values == {"num_classes": 4}
    for line in (
        "cls_score: num_output 21 -> 4 (4 classes)",
        "bbox_pred: num_output 84 -> 16 (4 x 4 classes)",
        "rpn_cls_prob_reshape: dim 18 -> 24 (2 x 12 anchors)",
        "proposal: param_str \"'feat_stride': 16\" -> '{feat_stride: 16, scales: [4, 8, 16, 32]}'",
    ):
        assert said.count(line) == 1
    for stages in (("rpn",), ("fast_rcnn",), ("rpn", "fast_rcnn")):
        for phase in (TRAIN, TEST):
            Net(param, phase, stages=stages)


def test_nothing_to_adapt():
    for arguments in ((), (21,), (21, (8, 16, 32)), (None, (8, 16, 32), (0.5, 1, 2))):
        param, said = adapt.adapt_net(ours(), *arguments)
        assert (param, said) == (ours(), [])


def test_a_definitions_own_anchors_count():
    param = ours("zf")
    for layer in param.layer:
        if layer.name in ("proposal", "rpn-data"):
            layer.python_param.param_str = (
                "'feat_stride': 16\n'scales': !!python/tuple [4, 8, 16, 32]"
            )
    adapted, said = adapt.adapt_net(param, 21)
    assert outputs(adapted)["rpn_bbox_pred"] == 48
    assert len(said) == 3 and not any("param_str" in line for line in said)
    Net(adapted, TEST, stages=("rpn",))


def test_ratios_alone():
    param, _ = adapt.adapt_net(ours("zf"), ratios=(1, 2))
    assert outputs(param)["rpn_cls_score"] == 12
    assert dict(param_strs(param))["rpn-data"] == {"feat_stride": 16, "ratios": (1, 2)}


def test_every_file_of_py_faster_rcnn(theirs):
    for path, before in theirs.items():
        param, said = adapt.adapt_net(before, CLASSES, (4, 8, 16, 32), where=path)
        assert said, path
        expected = {
            "cls_score": 4, "bbox_pred": 16, "rpn_cls_score": 24, "rpn_bbox_pred": 48,
        }  # fmt: skip
        found = outputs(param)
        assert found == {name: expected[name] for name in found}, path
        for name, values in param_strs(param):
            if "num_classes" in values:
                assert values == {"num_classes": 4}, (path, name)
        Net(param, TEST if "test" in path else TRAIN)


def test_heads_of_other_names():
    text = format_text(ours("zf"))
    names = {"cls_score": "scores_of_cells", "bbox_pred": "boxes_of_cells",
             "rpn_cls_score": "objectness", "rpn_bbox_pred": "shifts"}  # fmt: skip
    for name, other in names.items():
        text = text.replace(f'"{name}"', f'"{other}"')
    param, _ = adapt.adapt_net(parse_text(text, caffe_pb2.NetParameter), 4, (4, 8, 16, 32))
    for stages in (("rpn",), ("fast_rcnn",), ("rpn", "fast_rcnn")):
        for phase in (TRAIN, TEST):
            Net(param, phase, stages=stages)
    in_use = adapt.deploy_net(parse_text(text, caffe_pb2.NetParameter), config.Config())
    net = Net(adapt.adapt_net(in_use, 4)[0], TEST)  # without losses to tell the heads by
    assert net.params["scores_of_cells"][0].shape[0] == 4
    assert net.params["boxes_of_cells"][0].shape[0] == 16


def test_compressed_heads():
    whole = adapt.deploy_net(ours(), config.Config())
    param = compress_definition(whole, {"cls_score": 2, "bbox_pred": 2, "fc10": 5})
    net = Net(adapt.adapt_net(param, 4)[0], TEST)
    assert net.params["cls_score_U"][0].shape == (4, 2)
    assert net.params["bbox_pred_U"][0].shape == (16, 2)
    assert net.params["bbox_pred_L"][0].shape == (2, 512)


def test_no_detector():
    with pytest.raises(NetError, match=r"x\.prototxt: expected layers of a detector.*found none"):
        adapt.adapt_net(read_net(prototxt.path("squeezenet")), 4, where="x.prototxt")
    with pytest.raises(NetError, match="at least one more class, found 1"):
        adapt.adapt_net(ours(), 1)


def test_anchors_that_disagree():
    param = ours("zf")
    layer = next(layer for layer in param.layer if layer.name == "rpn-data")
    layer.python_param.param_str = "{feat_stride: 16, scales: [4, 8]}"
    with pytest.raises(NetError, match=r"same scales and ratios.*'proposal'.*'rpn-data'"):
        adapt.adapt_net(param)
    assert outputs(adapt.adapt_net(param, scales=(4, 8))[0])["rpn_cls_score"] == 12


def test_a_param_str_that_is_none():
    param = ours("zf")
    next(x for x in param.layer if x.name == "rpn-data").python_param.param_str = "'scale': 3"
    with pytest.raises(LayerError, match=r"layer 'rpn-data'.*Did you mean 'scales'"):
        adapt.adapt_net(param, 4)


# ---- layers


def test_shared_layers(theirs):
    assert adapt.shared_layers(ours("vgg16"))[:2] == ["conv1_1", "conv1_2"]
    assert len(adapt.shared_layers(ours("vgg16"))) == 13
    convolutions = [f"conv{k}" for k in range(1, 6)]
    for path in ("faster_rcnn_alt_opt/faster_rcnn_test.pt", "faster_rcnn_end2end/train.prototxt"):
        assert adapt.shared_layers(theirs[path]) == convolutions
    with pytest.raises(NetError, match="no layer cls_score"):
        adapt.shared_layers(theirs["faster_rcnn_alt_opt/rpn_test.pt"])


def test_freeze():
    param = ours("squeezenet")
    for layer in param.layer:
        if layer.name == "conv1":
            layer.ClearField("param")  # as in many a prototxt
    names = ["conv1", "fire2/expand3x3"]
    frozen = adapt.freeze(param, names)
    net = Net(frozen, TRAIN, stages=("rpn",))
    still = {net.nodes[p.layer].name for p in net.parameters if p.lr_mult == 0}
    assert still == set(names)
    assert all(p.lr_mult == 0 for p in net.parameters if net.nodes[p.layer].name in names)
    with pytest.raises(NetError, match=r"found 'conv2'.*Did you mean"):
        adapt.freeze(param, ["conv2"])
    with pytest.raises(NetError, match="a layer with parameters"):
        adapt.freeze(param, ["pool1"])


def test_parameter_counts_are_those_of_the_layers():
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2
        dim: 5 dim: 5 } } }"""
    kinds = {
        "Convolution": "convolution_param { num_output: 2 kernel_size: 1 bias_term: false }",
        "Deconvolution": "convolution_param { num_output: 2 kernel_size: 1 }",
        "Scale": "scale_param { bias_term: true }", "Bias": "", "PReLU": "", "BatchNorm": "",
        "InnerProduct": "inner_product_param { num_output: 3 }",
        "Embed": "embed_param { num_output: 2 input_dim: 3 }", "ReLU": "",
    }  # fmt: skip
    for kind, body in kinds.items():
        text += f'layer {{ name: "{kind}" type: "{kind}" bottom: "data" top: "{kind}" {body} }}'
    param = parse_text(text, caffe_pb2.NetParameter)
    net = Net(param, TEST)
    for layer in param.layer:
        blobs = net.params.get(layer.name, ())
        assert parameter_count(layer) == len(blobs), layer.type


# ---- for use


def test_deploy():
    cfg = config.merge(
        config.Config(), {"TEST": {"RPN_POST_NMS_TOP_N": 50, "SCALES": [480], "MAX_SIZE": 640}}
    )
    param, _ = adapt.adapt_net(ours(), 4)
    deployed = adapt.deploy_net(param, cfg)
    text = format_text(deployed)
    for word in ("include", "filler", "lr_mult", "propagate_down", "TRAIN", "RoIData"):
        assert word not in text
    net = Net(parse_text(text, caffe_pb2.NetParameter), TEST)
    assert net.inputs == ["data", "im_info"]
    assert net.blobs["data"].shape == (1, 3, 480, 640)
    assert net.blobs["cls_prob"].shape[1] == 4
    # The limits hold without any settings, also those that are the layer's own.
    limits = net.nodes[net.layer_index("proposal")].layer.limits
    assert (limits.RPN_POST_NMS_TOP_N, limits.RPN_PRE_NMS_TOP_N) == (50, 6000)
    assert "PRE_NMS" not in text
    assert adapt.deploy_net(deployed, cfg) == deployed


def test_deploy_goes_back_to_a_default():
    cfg = config.Config()
    param = adapt.deploy_net(ours(), config.merge(cfg, {"TEST": {"RPN_NMS_THRESH": 0.5}}))
    net = Net(adapt.deploy_net(param, cfg), TEST)
    assert net.nodes[net.layer_index("proposal")].layer.limits.RPN_NMS_THRESH == 0.7


def test_deploy_of_py_faster_rcnns_files(theirs):
    cfg = config.Config()
    param = adapt.deploy_net(theirs["faster_rcnn_end2end/test.prototxt"], cfg)
    assert Net(param, TEST).blobs["data"].shape == (1, 3, 600, 1000)
    assert Net(param, TEST, context=Context(0)).inputs == ["data", "im_info"]
    with pytest.raises(NetError, match="a definition for use"):
        adapt.deploy_net(theirs["faster_rcnn_end2end/train.prototxt"], cfg)


def test_roles_of_a_definition_with_all_stages():
    roles = find_roles(ours())
    assert [x.name for x in roles.rpn_reshape] == ["rpn_cls_prob_reshape"]
    assert [x.name for x in roles.class_layers] == ["input-data", "data", "roi-data"]
    assert [x.name for x in roles.anchor_layers] == ["proposal"] * 3 + ["rpn-data"]
