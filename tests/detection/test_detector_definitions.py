"""The detectors in prototxt/: every network in every stage, with the names of published weights."""

import numpy as np
import py_faster_rcnn
import pytest

import caffe
from demitasse import prototxt
from demitasse.detection import config, networks
from demitasse.detection.adapt import adapt_net, freeze, shared_layers
from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import TEST, TRAIN
from demitasse.engine.prototxt import read_net, read_solver
from demitasse.layers.roi_data import RoIDataSettings
from demitasse.solvers.nets import Sources

RPN, FAST_RCNN, JOINT = ("rpn",), ("fast_rcnn",), ("rpn", "fast_rcnn")


def _rpn(name, outputs, inputs):
    return {
        name: (outputs, inputs, 3, 3),
        "rpn_cls_score": (18, outputs, 1, 1), "rpn_bbox_pred": (36, outputs, 1, 1),
    }  # fmt: skip


def _head(inputs, fc7=4096):
    return {
        "fc6": (4096, inputs), "fc7": (fc7, 4096), "cls_score": (21, fc7), "bbox_pred": (84, fc7),
    }  # fmt: skip


HEADS = {  # layers that ImageNet weights do not have, or that are of another size
    "vgg16": {**_rpn("rpn_conv/3x3", 512, 512), **_head(25088)},
    "zf": {**_rpn("rpn_conv1", 256, 256), **_head(9216)},
    "vgg_cnn_m_1024": {**_rpn("rpn_conv/3x3", 256, 512), **_head(18432, 1024)},
    "caffenet": {**_rpn("rpn_conv/3x3", 256, 256), **_head(9216)},
    "squeezenet": {
        **_rpn("rpn_conv/3x3", 256, 512), "roi_conv/1x1": (64, 512, 1, 1), "fc10": (512, 3136),
        "cls_score": (21, 512), "bbox_pred": (84, 512),
    },
}  # fmt: skip
CNN_M = {
    "conv1": (96, 3, 7, 7), "conv2": (256, 96, 5, 5), "conv3": (512, 256, 3, 3),
    "conv4": (512, 512, 3, 3), "conv5": (512, 512, 3, 3),
}  # fmt: skip
BOTTOMS = {  # blobs that the program or RoIData fills, and those that nobody consumes
    (TRAIN, RPN): ({"data", "im_info", "gt_boxes"}, {"rpn_cls_loss", "rpn_loss_bbox"}),
    (TRAIN, FAST_RCNN): (
        {
            "data", "rois", "labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights",
        },
        {"loss_cls", "loss_bbox"},
    ),
    (TRAIN, JOINT): (
        {"data", "im_info", "gt_boxes"},
        {"rpn_cls_loss", "rpn_loss_bbox", "loss_cls", "loss_bbox"},
    ),
    (TEST, RPN): ({"data", "im_info"}, {"rois", "scores"}),
    (TEST, FAST_RCNN): ({"data", "rois"}, {"cls_prob", "bbox_pred"}),
    (TEST, JOINT): ({"data", "im_info"}, {"cls_prob", "bbox_pred"}),
}  # fmt: skip

every = pytest.mark.parametrize("network", HEADS)


def definition(network):
    return read_net(prototxt.path(network, "faster_rcnn.prototxt"))


def small(network, classes=3, scales=(1, 2, 3, 4)):
    """A definition for few classes and small anchors, with narrow fully connected layers."""
    param, _ = adapt_net(definition(network), classes, scales)
    for layer in param.layer:
        if layer.name.startswith("fc"):
            layer.inner_product_param.num_output = 48
            layer.inner_product_param.weight_filler.std = 0.02
    return param


def batch(stages, classes=3, height=64, width=96):
    random = np.random.default_rng(5)
    image = random.normal(0, 50, (1, 3, height, width)).astype(np.float32)
    if "rpn" in stages:
        boxes = np.array([[8, 6, 60, 50, 1], [50, 20, 90, 60, 2]], np.float32)
        return {"data": image, "im_info": [[height, width, 1]], "gt_boxes": boxes}
    rois = [[0, 0, 0, 30, 30], [0, 8, 6, 60, 50], [0, 50, 20, 90, 60], [0, 3, 3, 90, 60]]
    shape = (len(rois), 4 * classes)
    return {
        "data": image, "rois": rois, "labels": [0, 1, 2, 0],
        "bbox_targets": random.normal(size=shape), "bbox_inside_weights": np.ones(shape),
        "bbox_outside_weights": np.full(shape, 0.1),
    }  # fmt: skip


def open_training(param, stages, **size):
    blobs = {name: np.asarray(x, np.float32) for name, x in batch(stages, **size).items()}
    # Regions of an untrained RPN seldom fit an object.
    cfg = config.merge(config.Config(), {"TRAIN": {"BG_THRESH_LO": 0.0, "RPN_MIN_SIZE": 4}})
    settings = [RoIDataSettings(load=lambda k: blobs), *config.layer_settings(cfg)]
    return Net(param, TRAIN, stages=stages, context=Context(1, settings))


# ---- names and shapes


def test_the_networks():
    assert networks.names() == sorted(HEADS)


@every
def test_layers_of_published_weights(network):
    net = Net(definition(network), TEST, stages=JOINT)
    shapes = {name: blobs[0].shape for name, blobs in net.params.items()}
    assert {name: shapes.get(name) for name in HEADS[network]} == HEADS[network]
    for name, blobs in net.params.items():
        assert [b.shape for b in blobs[1:]] == [shapes[name][:1]], name
    trunk = {name: shape for name, shape in shapes.items() if name not in HEADS[network]}
    if network == "vgg_cnn_m_1024":
        assert trunk == CNN_M
    else:  # as in classification, whose definitions have tests of their own
        whole = Net(read_net(prototxt.path(network)), TEST)
        known = {name: blobs[0].shape for name, blobs in whole.params.items()}
        assert trunk == {n: s for n, s in known.items() if n not in ("fc6", "fc7", "fc8", "conv10")}
        assert all(known[n] == shapes[n] for n in ("fc6", "fc7") if n in known)


@every
@pytest.mark.parametrize("phase, stages", BOTTOMS)
def test_inputs_and_outputs(network, phase, stages):
    net = Net(definition(network), phase, stages=stages)
    inputs, outputs = BOTTOMS[phase, stages]
    made = {net.blob_names[t] for n in net.nodes if not n.bottom_ids for t in n.top_ids}
    assert made == inputs
    assert set(net.outputs) == outputs
    if phase == TRAIN:
        losses = {node.name: w for node in net.nodes for w in node.loss_weights if w}
        assert len(losses) == len(outputs) and set(losses.values()) == {1}


@every
def test_what_learns(network):
    net = Net(definition(network), TRAIN, stages=JOINT)
    assert {(p.index, p.lr_mult, p.decay_mult) for p in net.parameters} == {(0, 1, 1), (1, 2, 0)}


@every
def test_both_heads_stand_on_the_convolutions(network):
    shared = shared_layers(definition(network))
    trunk = set(Net(definition(network), TRAIN, stages=JOINT).params) - set(HEADS[network])
    assert set(shared) == {name for name in trunk if not name.startswith("fire9")}
    frozen = networks.find(network, "end2end").frozen
    assert shared[: len(frozen)] == list(frozen)


@every
def test_a_position_is_16_pixels(network):
    net = Net(definition(network), TEST, stages=RPN)
    shapes = []
    for side in (224, 224 + 160):
        net.blobs["data"].reshape(1, 3, side, side + 160)
        for node in net.nodes:
            node.layer.reshape(node.bottoms, node.tops)
            if node.name == "rpn_bbox_pred":
                break
        shapes.append(net.blobs["rpn_cls_score"].shape[2:])
    assert np.array_equal(np.subtract(*reversed(shapes)), (10, 10))


# ---- running


@every
@pytest.mark.parametrize("stages", [RPN, FAST_RCNN, JOINT])
def test_training(network, stages):
    param = freeze(small(network), networks.find(network, "end2end").frozen)
    if network == "vgg16" and stages != JOINT:
        param = freeze(param, shared_layers(param))  # as in the last stages of alt_opt
    net = open_training(param, stages)
    assert np.isfinite(net.forward())
    assert all(float(net.blobs[name].data) > 0 for name in net.outputs)
    net.backward()
    for p in net.parameters:
        if p.lr_mult:
            assert np.isfinite(p.blob.diff).all()
            assert np.any(p.blob.diff), f"nothing is learned by {net.nodes[p.layer].name}"


@every
@pytest.mark.parametrize("stages", [RPN, FAST_RCNN, JOINT])
def test_use(network, stages):
    net = Net(small(network), TEST, stages=stages)
    for name, values in batch(stages).items():
        if name in net.inputs:
            net.blobs[name].reshape(*np.shape(values))
            net.blobs[name].data[...] = values
    net.forward()
    rois = net.blobs["rois"].shape[0]
    assert net.blobs["rois"].shape == (rois, 5) and rois >= 1
    if "fast_rcnn" in stages:
        assert net.blobs["cls_prob"].shape == (rois, 3)
        assert net.blobs["bbox_pred"].shape == (rois, 12)
        assert np.allclose(net.blobs["cls_prob"].data.sum(axis=1), 1)
    else:
        assert net.blobs["scores"].shape == (rois, 1)


@pytest.mark.parametrize("network", ["ZF", "VGG16"])
def test_py_faster_rcnns_definitions(network, tmp_path):
    folder = py_faster_rcnn.write(tmp_path, network)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "solver" not in p.name):
        param, _ = adapt_net(read_net(path), 3, (1, 2, 3, 4))
        for layer in param.layer:
            if layer.name in ("fc6", "fc7"):
                layer.inner_product_param.num_output = 48
        if "test" in path.name:
            outputs = set(Net(param, TEST).outputs)
            assert {"rois", "scores"} == outputs or {"cls_prob", "bbox_pred"} == outputs
            continue
        with_rpn = not path.match("*fast_rcnn_train.pt") and path.parent.name != "fast_rcnn"
        net = open_training(param, RPN if with_rpn else FAST_RCNN)
        net.forward()
        net.backward()
        learns = {net.nodes[p.layer].name for p in net.parameters if p.lr_mult}
        last = shared_layers(read_net(folder / "faster_rcnn_alt_opt" / "faster_rcnn_test.pt"))[-1]
        assert (last in learns) == ("stage2" not in path.name), path
    solver = read_solver(folder / "faster_rcnn_end2end" / "solver.prototxt")
    inner = str(folder / "faster_rcnn_end2end")
    assert Sources(solver, inner).train().folder == inner  # named from the folder above models/


def test_the_gradients_that_are_not_computed_are_zero():
    def gradients(param):
        net = open_training(param, JOINT)
        net.forward()
        net.backward()
        return {name: blobs[0].diff.copy() for name, blobs in net.params.items()}

    param = small("zf")
    stopped = gradients(param)
    for layer in param.layer:
        if layer.type == "Python":
            layer.ClearField("propagate_down")
    for name, gradient in gradients(param).items():
        assert np.array_equal(gradient, stopped[name]), name


def test_opens_in_pycaffe():
    path = prototxt.path("squeezenet", "faster_rcnn.prototxt")
    net = caffe.Net(path, caffe.TEST, stages=list(JOINT))
    assert net.inputs == ["data", "im_info"]
    assert net.blobs["data"].shape == (1, 3, 600, 1000)


# ---- solver files

STEPS = {"rpn": (60000, 80000), "fast_rcnn": (30000, 40000), "end2end": (50000, 70000)}


@every
@pytest.mark.parametrize("kind", STEPS)
def test_solver_files(network, kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the net is found from the solver file too
    path = prototxt.path(network, f"{kind}_solver.prototxt")
    param = read_solver(path)
    source = Sources(param, str(prototxt.FOLDER / network)).train()
    assert source.folder == str(prototxt.FOLDER / network)
    assert tuple(param.train_state.stage) == networks.STAGES[kind]
    assert (param.stepsize, param.max_iter) == STEPS[kind]
    squeeze = network == "squeezenet"
    assert param.base_lr == np.float32(0.0007 if squeeze else 0.001)
    assert param.clip_gradients == (35 if squeeze else -1)
    assert param.iter_size == (2 if kind == "end2end" and network in ("vgg16", "zf") else 1)
    assert (param.lr_policy, param.gamma) == ("step", np.float32(0.1))
    assert (param.momentum, param.weight_decay) == (np.float32(0.9), np.float32(0.0005))
    assert (param.display, param.average_loss, param.snapshot) == (20, 100, 0)
    assert param.snapshot_prefix.startswith(f"{network}_")


@pytest.mark.parametrize("network", ["vgg16", "vgg_cnn_m_1024"])
def test_settings_for_coco(network):
    cfg = config.load(prototxt.FOLDER / "coco.yml")
    wanted = {"rpn_cls_score": 24, "rpn_bbox_pred": 48, "cls_score": 81, "bbox_pred": 324}
    param, _ = adapt_net(definition(network), 81, cfg.ANCHOR_SCALES, cfg.ANCHOR_RATIOS)
    net = Net(param, TEST, stages=JOINT)
    assert {name: net.params[name][0].shape[0] for name in wanted} == wanted
    # Large enough for anchors of the smallest scale to lie inside.
    param = freeze(small(network, 81, cfg.ANCHOR_SCALES), networks.find(network, "rpn").frozen)
    net = open_training(param, JOINT, height=96, width=96)
    assert {name: net.params[name][0].shape[0] for name in wanted} == wanted
    assert np.isfinite(net.forward())
    assert all(float(net.blobs[name].data) > 0 for name in net.outputs)
    net.backward()
    for name in wanted:
        gradient = net.params[name][0].diff
        assert np.isfinite(gradient).all() and gradient.any(), name


def test_solver_settings_for_coco():
    cfg = config.load(prototxt.FOLDER / "coco.yml")
    # py-faster-rcnn lowers the rate at 350000 of 490000 iterations, and at 200000 of 280000.
    assert round(cfg.SOLVER.STEPS[0] * cfg.SOLVER.END2END_ITERS) == 350000
    assert round(cfg.SOLVER.STEPS[0] * cfg.SOLVER.FAST_RCNN_ITERS) == 200000
