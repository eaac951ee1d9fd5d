"""Layers that do the work of a ReLU in place: results and gradients are those of one by one."""

import numpy as np
import pytest

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


def conv(name, bottom, outputs, more="kernel_size: 3 pad: 1"):
    fillers = (
        'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 0.3 }'
    )
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {outputs} {more} {fillers} }} }}"
    )


def relu(blob, slope=0.0):
    return (
        f'layer {{ name: "relu_{blob}" type: "ReLU" bottom: "{blob}" top: "{blob}" '
        f"relu_param {{ negative_slope: {slope} }} }}"
    )


def pool(bottom, method="MAX", options="kernel_size: 3 stride: 2"):
    return (
        f'layer {{ name: "pool" type: "Pooling" bottom: "{bottom}" top: "pool" '
        f"pooling_param {{ pool: {method} {options} }} }}"
    )


INPUT = (
    'layer { name: "x" type: "Input" top: "x" '
    "input_param { shape { dim: 2 dim: 3 dim: 9 dim: 11 } } }"
)
LOSS = (
    'layer { name: "loss" type: "Reduction" bottom: "last" top: "loss" '
    "reduction_param { operation: SUMSQ } loss_weight: 1 }"
)
DROP = 'layer { name: "drop" type: "Dropout" bottom: "b" top: "b" }'


def norm(options="", scale="bias_term: true", top="a", rest=""):
    return (
        f'layer {{ name: "bn" type: "BatchNorm" bottom: "a" top: "{top}" {options} }}'
        f'layer {{ name: "s" type: "Scale" bottom: "{top}" top: "{top}" {rest} '
        f"scale_param {{ {scale} }} }}"
    )


GLOBAL = "batch_norm_param { use_global_stats: true }"

NETS = {
    "normalised": ([conv("a", "x", 5), norm(), relu("a"), conv("last", "a", 2)], 2),
    "normalised, no bias": ([conv("a", "x", 5), norm(scale=""), conv("last", "a", 2)], 1),
    "normalised, fixed scale": (
        [conv("a", "x", 5), norm(rest="param { lr_mult: 0 }"), conv("last", "a", 2)],
        1,
    ),
    "normalised input": (
        ['layer { name: "power" type: "Power" bottom: "x" top: "a" }', norm()]
        + [conv("last", "a", 2)],
        0,
    ),
    "statistics given": ([conv("a", "x", 5), norm(GLOBAL), conv("last", "a", 2)], 0),
    "not in place": ([conv("a", "x", 5), norm(top="b"), conv("last", "b", 2)], 0),
    "winograd": ([conv("a", "x", 5), relu("a"), conv("last", "a", 6)], 1),
    "im2col": (
        [conv("a", "x", 5), relu("a"), conv("last", "a", 6, "kernel_size: 3 stride: 2")],
        1,
    ),
    "pointwise": ([conv("a", "x", 5), relu("a"), conv("last", "a", 6, "kernel_size: 1")], 1),
    "max pooling": ([conv("a", "x", 5), relu("a"), pool("a"), conv("last", "pool", 2)], 1),
    "average pooling": (
        [conv("a", "x", 5), relu("a"), pool("a", "AVE"), conv("last", "pool", 2)],
        0,
    ),
    "leaky": ([conv("a", "x", 5), relu("a", 0.1), conv("last", "a", 2)], 0),
    "two consumers": (
        [conv("a", "x", 5), relu("a"), conv("b", "a", 5), relu("b"), conv("c", "a", 5)]
        + ['layer { name: "last" type: "Eltwise" bottom: "b" bottom: "c" top: "last" }'],
        0,
    ),
    "something between": (
        [conv("a", "x", 5), relu("a"), conv("b", "a", 5), relu("b"), DROP, conv("last", "b", 2)],
        1,
    ),
    "frozen before": (
        [conv("a", "x", 5).replace("top", "param { lr_mult: 0 } param { lr_mult: 0 } top")]
        + [relu("a"), conv("b", "a", 5), relu("b"), conv("last", "b", 2)],
        1,
    ),
}


def gradients(text, keep, watched=False, parts=False):
    net = Net(
        parse_text(text, caffe_pb2.NetParameter), TRAIN, context=Context(5), keep=keep,
        dtype=np.float64,
    )  # fmt: skip
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((2, 3, 9, 11))
    if watched:
        net.before_backward.append(lambda index: None)
    net.forward()
    if parts:
        for i in reversed(range(len(net.nodes))):
            net.backward(i, i)
    else:
        net.backward()
    return net, [p.blob.diff.copy() for p in net.learnable if p.blob.has_grad]


@pytest.mark.parametrize("keep", ["all", "minimal"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_one_layer_after_the_other(name, keep):
    layers, fused = NETS[name]
    text = "\n".join([INPUT, *layers, LOSS])
    net, found = gradients(text, keep)
    assert sum(node.also_backward >= 0 for node in net.nodes) == fused
    for other in (gradients(text, keep, watched=True), gradients(text, keep, parts=True)):
        assert len(found) == len(other[1]) > 0
        for a, b in zip(found, other[1]):
            np.testing.assert_array_equal(a, b)
        if keep == "all":
            for blob, same in zip(net.blob_list, other[0].blob_list):
                np.testing.assert_array_equal(blob.diff, same.diff)


# Layers after the convolution "a", the phase, and how many of them BatchNorm computes too. In TEST
# the convolution computes all of them.
CHAINS = {
    "BatchNorm, Scale and ReLU": ([norm(), relu("a")], TEST, 2),
    "no bias": ([norm(scale=""), relu("a")], TEST, 2),
    "leaky": ([norm(), relu("a", 0.1)], TEST, 1),
    "no ReLU": ([norm()], TEST, 1),
    "statistics of the batch": ([norm(), relu("a")], TRAIN, 2),
    "gradients wanted": ([norm(GLOBAL), relu("a")], TRAIN, 2),
    "one factor for all": ([norm(scale="num_axes: 0"), relu("a")], TEST, 0),
}


def values(net):
    rng = np.random.default_rng(2)
    for name, params in net.params.items():
        for p in params:
            p.data[...] = rng.uniform(0.5, 2, p.shape) - (name == "a")
    net.blobs["x"].data[...] = rng.standard_normal((2, 3, 9, 11))


WINDOWS = {
    "winograd": "kernel_size: 3 pad: 1",
    "product": "kernel_size: 2 stride: 2",
    "pointwise": "kernel_size: 1 bias_term: false",
    "groups": "kernel_size: 3 pad: 1 group: 3",
}


@pytest.mark.parametrize("keep", ["all", "minimal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", CHAINS)
def test_values_are_those_of_one_layer_after_the_other(name, window, dtype, keep):
    layers, phase, fused = CHAINS[name]
    loss = LOSS if phase == TRAIN else LOSS.replace("loss_weight: 1", "")
    first = conv("a", "x", 18, WINDOWS[window])
    text = "\n".join([INPUT, first, *layers, conv("last", "a", 4), loss])
    found = []
    for watched in (False, True):
        net = Net(parse_text(text, caffe_pb2.NetParameter), phase, dtype=dtype, keep=keep)
        values(net)
        assert net.nodes[1].fused == (1 + fused if fused and phase == TEST else 0)
        assert net.nodes[2].fused == fused
        if watched:
            net.after_forward.append(lambda index: None)
        for size in (9, 6):
            net.blobs["x"].reshape(2, 3, size, 11)
            found.append((net.forward(), net.blobs["loss"].data.copy()))
        if keep == "all":
            found.append([blob.data.copy() for blob in net.blob_list])
    half = len(found) // 2
    for a, b in zip(found[:half], found[half:]):
        for one, other in zip(a, b):
            np.testing.assert_array_equal(one, other)


def test_a_run_that_ends_within_a_chain():
    net = Net(
        parse_text(
            "\n".join([INPUT, conv("a", "x", 5), norm(), relu("a")]), caffe_pb2.NetParameter
        ),
        TEST,
    )
    values(net)
    net.forward()
    whole = net.blobs["a"].data.copy()
    net.forward(0, 3)  # without the ReLU
    assert (net.blobs["a"].data < 0).any()
    np.testing.assert_array_equal(np.maximum(net.blobs["a"].data, 0), whole)


@pytest.mark.parametrize("coefficients", ["", "coeff: 1 coeff: -2 coeff: 0.5"])
def test_a_sum_takes_the_relu_behind_it(coefficients):
    total = (
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "last" '
        f"eltwise_param {{ {coefficients} }} }}"
    )
    layers = [conv("a", "x", 5), conv("b", "x", 5), conv("c", "x", 5), total, relu("last")]
    text = "\n".join([INPUT, *layers])
    net, watched = (
        Net(parse_text(text, caffe_pb2.NetParameter), TEST, context=Context(5)) for _ in "ab"
    )
    assert net.nodes[net.layer_index("sum")].fused == 1
    watched.before_forward.append(lambda index: None)
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11))
    x[0, 0, 0, 0] = np.nan
    for n in (net, watched):
        n.blobs["x"].data[...] = x
        n.forward()
    np.testing.assert_array_equal(net.blobs["last"].data, watched.blobs["last"].data)
    assert (net.blobs["last"].data == 0).any() and np.isnan(net.blobs["last"].data).any()


def test_only_a_sum_does():
    for operation in ("PROD", "MAX"):
        product = (
            'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "last" '
            f"eltwise_param {{ operation: {operation} }} }}"
        )
        text = "\n".join([INPUT, conv("a", "x", 5), conv("b", "x", 5), product, relu("last")])
        net = Net(parse_text(text, caffe_pb2.NetParameter), TEST)
        assert net.nodes[net.layer_index("e")].fused == 0
