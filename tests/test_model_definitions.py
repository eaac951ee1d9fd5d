"""The definitions in prototxt/: every stage builds, with names and shapes of published weights."""

import math

import numpy as np
import pytest

import caffe
from demitasse import prototxt
from demitasse.engine.errors import ModelFileError
from demitasse.engine.graph import filter_net
from demitasse.engine.prototxt import read_net

# Parameters in use, parameters that are learned in training, side of the image.
NETWORKS = {
    "alexnet": (60_965_224, 60_965_224, 227),
    "caffenet": (60_965_224, 60_965_224, 227),
    "googlenet": (6_998_552, 13_378_280, 224),  # with the auxiliary classifiers
    "resnet50": (25_610_269, 25_557_096, 224),  # without BatchNorm's statistics
    "squeezenet": (1_248_424, 1_248_424, 227),
    "vgg16": (138_357_544, 138_357_544, 224),
    "zf": (62_357_608, 62_357_608, 224),
}
ACCURACIES = {"googlenet": {f"loss{k}/top-{n}" for k in (1, 2, 3) for n in (1, 5)}}
LOSSES = {"googlenet": {"loss1/loss1": 0.3, "loss2/loss1": 0.3, "loss3/loss3": 1}}

CONV2_TO_5 = {"conv3": (384, 256, 3, 3), "conv5": (256, 192, 3, 3)}
CLASSIFIER = {"fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096)}
WEIGHTS = {  # layer -> shape of its weights, of the published files
    "alexnet": {
        "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv4": (384, 192, 3, 3),
        **CONV2_TO_5, **CLASSIFIER,
    },
    "caffenet": {
        "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv4": (384, 192, 3, 3),
        **CONV2_TO_5, **CLASSIFIER,
    },
    "googlenet": {
        "conv1/7x7_s2": (64, 3, 7, 7), "conv2/3x3_reduce": (64, 64, 1, 1),
        "conv2/3x3": (192, 64, 3, 3), "inception_3a/1x1": (64, 192, 1, 1),
        "inception_3b/5x5_reduce": (32, 256, 1, 1), "inception_4a/3x3": (208, 96, 3, 3),
        "inception_4d/3x3_reduce": (144, 512, 1, 1), "inception_4e/pool_proj": (128, 528, 1, 1),
        "inception_5b/5x5": (128, 48, 5, 5), "loss3/classifier": (1000, 1024),
    },
    "resnet50": {
        "conv1": (64, 3, 7, 7), "bn_conv1": (64,), "scale_conv1": (64,),
        "res2a_branch1": (256, 64, 1, 1), "bn2a_branch1": (256,), "scale2a_branch1": (256,),
        "res3d_branch2b": (128, 128, 3, 3), "res4a_branch2a": (256, 512, 1, 1),
        "res4f_branch2c": (1024, 256, 1, 1), "scale5c_branch2c": (2048,), "fc1000": (1000, 2048),
    },
    "squeezenet": {
        "conv1": (96, 3, 7, 7), "fire2/squeeze1x1": (16, 96, 1, 1),
        "fire5/expand1x1": (128, 32, 1, 1), "fire9/expand3x3": (256, 64, 3, 3),
        "conv10": (1000, 512, 1, 1),
    },
    "vgg16": {
        "conv1_1": (64, 3, 3, 3), "conv2_1": (128, 64, 3, 3), "conv3_3": (256, 256, 3, 3),
        "conv4_1": (512, 256, 3, 3), "conv5_3": (512, 512, 3, 3), "fc6": (4096, 25088),
        "fc7": (4096, 4096), "fc8": (1000, 4096),
    },
    "zf": {
        "conv1": (96, 3, 7, 7), "conv2": (256, 96, 5, 5), "conv3": (384, 256, 3, 3),
        "conv4": (384, 384, 3, 3), "conv5": (256, 384, 3, 3), **CLASSIFIER,
    },
}  # fmt: skip
LAYERS_WITH_WEIGHTS = {
    "alexnet": 8, "caffenet": 8, "zf": 8, "vgg16": 16, "squeezenet": 26, "googlenet": 58,
    "resnet50": 53 * 3 + 1,
}  # fmt: skip

every = pytest.mark.parametrize("network", NETWORKS)


def open_net(network, phase, *stages):
    return caffe.Net(prototxt.path(network), phase, stages=list(stages))


def test_the_networks():
    assert prototxt.names() == sorted(NETWORKS)


@every
def test_in_use(network):
    net = open_net(network, caffe.TEST)
    total, _, side = NETWORKS[network]
    assert (net.inputs, net.outputs) == (["data"], ["prob"])
    assert net.blobs["data"].shape == (1, 3, side, side)
    assert net.blobs["prob"].shape[:2] == (1, 1000) and net.blobs["prob"].count == 1000
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == total
    assert len(net.params) == LAYERS_WITH_WEIGHTS[network]
    for layer, shape in WEIGHTS[network].items():
        assert net.params[layer][0].shape == shape, layer


@every
def test_in_training(network):
    net = open_net(network, caffe.TRAIN)
    learned = [p for p in net._engine.learnable if p.lr_mult]
    assert net.inputs == ["data", "label"]
    assert set(net.outputs) == LOSSES.get(network, {"loss": 1}).keys()
    assert sum(p.blob.count for p in learned) == NETWORKS[network][1]
    assert open_net(network, caffe.TEST).params.keys() <= net.params.keys()


@every
def test_in_testing(network):
    net = open_net(network, caffe.TEST, "val")
    accuracies = ACCURACIES.get(network, {"accuracy", "accuracy_top5"})
    assert net.inputs == ["data", "label"]
    assert set(net.outputs) == accuracies | LOSSES.get(network, {"loss": 1}).keys()
    top5 = [n.layer.top_k for n in net._engine.nodes if n.name.endswith(("top5", "top-5"))]
    assert top5 and set(top5) == {5}


@every
def test_source_of_the_data(network):
    param = read_net(prototxt.path(network))
    sources = []
    for phase, *stages in (
        (caffe.TRAIN,), (caffe.TEST,), (caffe.TEST, "val"),
        (caffe.TRAIN, "lmdb"), (caffe.TEST, "lmdb"), (caffe.TEST, "val", "lmdb"),
    ):  # fmt: skip
        state = caffe.proto.caffe_pb2.NetState(phase=phase, stage=stages)
        (data,) = (x for x in filter_net(param, state).layer if x.name == "data")
        sources.append((data.type, list(data.top), data.data_param.source[-10:]))
    both = ["data", "label"]
    assert sources == [
        ("Input", both, ""), ("Input", ["data"], ""), ("Input", both, ""),
        ("Data", both, "train_lmdb"), ("Input", ["data"], ""), ("Data", both, "2_val_lmdb"),
    ]  # fmt: skip


def test_learning_rates():
    net = open_net("vgg16", caffe.TRAIN)
    for p in net._engine.learnable:
        weights = p.blob.num_axes > 1
        assert (p.lr_mult, p.decay_mult) == ((1, 1) if weights else (2, 0))


@pytest.mark.parametrize("network", [n for n in NETWORKS if n != "vgg16"])
def test_a_pass(network):
    """A new net guesses (a loss of about log 1000), and all its parameters have gradients."""
    caffe.set_random_seed(3)
    net = open_net(network, caffe.TRAIN)
    rng = np.random.default_rng(0)
    if network == "squeezenet":
        net.blobs["data"].reshape(1, 3, 67, 67)
    net.blobs["data"].data[...] = rng.normal(0, 50, net.blobs["data"].shape)
    net.blobs["label"].data[...] = 7
    net.forward()
    for name, weight in LOSSES.get(network, {"loss": 1}).items():
        loss = float(net.blobs[name].data)
        # GoogLeNet's auxiliary classifiers begin with large scores, that is with bold guesses.
        assert math.isfinite(loss) and loss > 0
        assert weight < 1 or loss == pytest.approx(math.log(1000), rel=0.7)
        assert float(net.blobs[name].diff) == pytest.approx(weight)
    net.backward()
    for p in net._engine.learnable:
        if p.lr_mult:
            assert np.isfinite(p.blob.diff).all() and p.blob.diff.any(), p.name


def test_errors_say_what_there_is():
    with pytest.raises(ModelFileError, match=r"alexnet, caffenet.*'vgg'.*Did you mean 'vgg16'"):
        prototxt.path("vgg")
    with pytest.raises(ModelFileError, match=r"of vgg16: classification.prototxt.*'../x'"):
        prototxt.path("vgg16", "../x")
