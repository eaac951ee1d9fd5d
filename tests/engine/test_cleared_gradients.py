"""Gradients that count as zero without being written: the next layer to add to them overwrites."""

import numpy as np
import pytest

from demitasse.engine.blob import Blob
from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

FILL = "weight_filler { type: 'gaussian' std: 0.3 }"
PRODUCT = "type: 'InnerProduct' inner_product_param { num_output: 3 %s %s }"
CONV = "type: '%s' convolution_param { num_output: 4 %s %s }"
LAYERS = {
    "inner product": PRODUCT % ("", FILL),
    "transposed": PRODUCT % ("transpose: true", FILL),
    "winograd": CONV % ("Convolution", "kernel_size: 3", FILL),
    "strided": CONV % ("Convolution", "kernel_size: 3 stride: 2", FILL),
    "pointwise": CONV % ("Convolution", "kernel_size: 1", FILL),
    "upwards": CONV % ("Deconvolution", "kernel_size: 2", FILL),
}
NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [{batch}, 3, 20, 21] }} }} }}
layer {{ name: "a" bottom: "x" top: "a" param {{ name: "w" }} {layer} }}
layer {{ name: "b" bottom: "x" top: "b" param {{ name: "w" }} {layer} }}
layer {{ name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }}
layer {{ name: "loss" type: "Reduction" bottom: "sum" top: "loss" loss_weight: 1
        reduction_param {{ operation: SUMSQ }} }}
"""


def test_zero_at_the_next_access_in_the_same_memory():
    blob = Blob((2, 3))
    kept = blob.diff
    kept[...] = 7
    blob.clear_grad()
    assert blob.has_grad
    assert not blob.diff.any()
    assert np.shares_memory(kept, blob.diff) and not kept.any()


def test_what_begins_anew_is_overwritten_once():
    blob = Blob((2, 3))
    array, add = blob.grad_to_add_to()
    assert add and not array.any()
    blob.clear_grad()
    array, add = blob.grad_to_add_to()
    assert not add
    array[...] = 5
    again, add = blob.grad_to_add_to()
    assert add and (again == 5).all()


def test_cleared_and_grown():
    blob = Blob((2, 3))
    blob.diff[...] = 7
    blob.clear_grad()
    blob.reshape(4, 4)
    array, add = blob.grad_to_add_to()
    assert add and not array.any() and not blob.diff.any()


@pytest.mark.parametrize("batch", [2, 0])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_overwrite_and_add_where_they_must(name, batch):
    # Two layers share the weights: the first overwrites what was there, the second adds.
    text = NET.format(layer=LAYERS[name], batch=batch)
    found = []
    for at_once in (True, False):
        net = Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TRAIN, context=Context(3))
        net.blobs["x"].data[...] = np.random.default_rng(0).normal(size=(batch, 3, 20, 21))
        for p in net.learnable:
            p.blob.diff[...] = np.nan
        net.clear_param_diffs(at_once)
        for _ in range(2):  # as with an iter_size
            net.forward()
            net.backward()
        found.append([p.blob.diff.copy() for p in net.learnable])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.any() or not batch


def test_what_no_layer_adds_to_is_zero():
    net = Net(
        parse_text(NET.format(layer=LAYERS["winograd"], batch=2), caffe_pb2.NetParameter),
        caffe_pb2.TRAIN, context=Context(3),
    )  # fmt: skip
    for p in net.learnable:
        p.blob.diff[...] = np.nan
    net.clear_param_diffs(at_once=False)
    assert not any(p.blob.diff.any() for p in net.learnable)
