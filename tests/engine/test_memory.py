"""The memory plan of keep="minimal"."""

import numpy as np
import pytest

from demitasse.engine.context import Context
from demitasse.engine.device import CPU
from demitasse.engine.errors import NetError
from demitasse.engine.memory import Pool
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 8 } } }'
FILLER = 'weight_filler { type: "xavier" } bias_filler { type: "uniform" }'


def chain(depth):
    """A net of `depth` InnerProducts with a ReLU each, two branches at the end, and a loss."""
    layers, last = [INPUT], "data"
    for k in range(depth):
        layers.append(
            f'layer {{ name: "ip{k}" type: "InnerProduct" bottom: "{last}" top: "ip{k}" '
            f"inner_product_param {{ num_output: 8 {FILLER} }} }}"
        )
        layers.append(f'layer {{ name: "relu{k}" type: "ReLU" bottom: "ip{k}" top: "ip{k}" }}')
        last = f"ip{k}"
    layers.append(f'layer {{ name: "flat" type: "Flatten" bottom: "{last}" top: "flat" }}')
    layers.append(f'layer {{ name: "tanh" type: "TanH" bottom: "{last}" top: "tanh" }}')
    layers.append('layer { name: "sum" type: "Eltwise" bottom: "flat" bottom: "tanh" top: "sum" }')
    layers.append(
        'layer { name: "loss" type: "Reduction" bottom: "sum" top: "loss" loss_weight: 2 }'
    )
    return parse_text("\n".join(layers), caffe_pb2.NetParameter)


def build(phase, keep, depth=6):
    net = Net(chain(depth), phase, context=Context(seed=3), keep=keep)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(4, 8))
    return net


def buffers(net, kind):
    """The distinct buffers in use or waiting, of values ("data") or gradients ("diff")."""
    found = {id(b): b for b in net._memory.pool._free} if net._memory else {}
    for blob in net.blob_list:
        storage = blob.data_storage if kind == "data" else blob.diff_storage
        if storage.buffer is not None:
            found[id(storage.buffer)] = storage.buffer
    return found


def test_test_net_gives_equal_results_with_fewer_buffers():
    full, small = build(caffe_pb2.TEST, "all"), build(caffe_pb2.TEST, "minimal")
    for _ in range(3):
        assert small.forward() == full.forward()
    assert len(buffers(small, "data")) < len(buffers(full, "data"))
    np.testing.assert_array_equal(small.blobs["loss"].data, full.blobs["loss"].data)
    assert small.blobs["data"].data.shape == (4, 8)


def test_train_net_gives_equal_gradients_with_fewer_buffers():
    full, small = build(caffe_pb2.TRAIN, "all"), build(caffe_pb2.TRAIN, "minimal")
    for net in (full, small):
        for _ in range(3):
            net.clear_param_diffs()
            net.forward()
            net.backward()
    for a, b in zip(full.learnable, small.learnable):
        np.testing.assert_array_equal(a.blob.diff, b.blob.diff)
    assert len(buffers(small, "diff")) < len(buffers(full, "diff"))
    np.testing.assert_array_equal(small.blobs["ip3"].data, full.blobs["ip3"].data)


def test_reading_what_is_gone_is_an_error_that_says_so():
    net = build(caffe_pb2.TEST, "minimal")
    net.forward()
    with pytest.raises(NetError, match='keep="all"'):
        net.blobs["ip2"].data  # noqa: B018
    net.forward()  # and does no harm to the next pass


def test_backward_without_values_is_an_error_that_says_so():
    net = build(caffe_pb2.TEST, "minimal")
    net.forward()
    with pytest.raises(NetError, match="TRAIN"):
        net.backward()


def test_part_of_a_net_keeps_everything():
    net = build(caffe_pb2.TEST, "minimal")
    net.forward()
    net.forward(0, 4)
    reference = build(caffe_pb2.TEST, "all")
    reference.forward(0, 4)
    np.testing.assert_array_equal(net.blobs["ip1"].data, reference.blobs["ip1"].data)


def test_changing_sizes_do_not_grow_memory():
    net = build(caffe_pb2.TEST, "minimal")
    counts = []
    for rows in (4, 40, 7, 90, 11, 64, 3, 100, 50, 20, 80, 5):
        net.blobs["data"].reshape(rows, 8)
        net.reshape()
        net.forward()
        counts.append(sum(b.size for b in buffers(net, "data").values()))
    assert max(counts) <= 2 * 8 * 100 * 4


def test_pool_prefers_the_smallest_that_fits():
    pool = Pool(CPU)
    small, large = np.zeros(10, "f4"), np.zeros(16, "f4")
    pool.give(large)
    pool.give(small)
    assert pool.take(9, np.dtype("f4")) is small
    assert pool.take(9, np.dtype("f4")) is large
    assert pool.take(9, np.dtype("f4")).size == 9
    pool.give(small)
    assert pool.take(4, np.dtype("f4")) is not small  # more than twice as large


def test_keep_is_checked():
    with pytest.raises(NetError, match='keep="all" or keep="minimal"'):
        Net(chain(1), caffe_pb2.TEST, keep="some")
