"""The memory plan of keep="minimal"."""

import gc
import threading
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demitasse.engine.context import Context
from demitasse.engine.device import CPU
from demitasse.engine.errors import NetError
from demitasse.engine.memory import GradientPlan, Pool, lay_out
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers.python import PythonLayer

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
    found = {}
    if isinstance(net.memory, GradientPlan):
        found = {0: net.memory.buffer}
    elif net.memory:
        found = {id(b): b for b in net.memory.pool._free}
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


def test_blobs_that_are_named_are_kept():
    full = build(caffe_pb2.TEST, "all")
    small = Net(chain(6), caffe_pb2.TEST, context=Context(3), keep="minimal", kept=["ip2", "flat"])
    small.blobs["data"].data[...] = full.blobs["data"].data
    for _ in range(2):
        full.forward()
        small.forward()
        for name in ("ip2", "flat"):
            np.testing.assert_array_equal(small.blobs[name].data, full.blobs[name].data)
        with pytest.raises(NetError, match="released"):
            _ = small.blobs["ip1"].data
    with pytest.raises(NetError, match=r"'ip22'.*'ip2'"):
        Net(chain(6), caffe_pb2.TEST, keep="minimal", kept=["ip22"])


def test_train_net_gives_equal_gradients_with_fewer_buffers():
    full, small = build(caffe_pb2.TRAIN, "all"), build(caffe_pb2.TRAIN, "minimal")
    for net in (full, small):
        for _ in range(3):
            net.clear_param_diffs()
            net.forward()
            net.backward()
    for a, b in zip(full.learnable, small.learnable):
        np.testing.assert_array_equal(a.blob.diff, b.blob.diff)
    sizes = [sum(b.nbytes for b in buffers(net, "diff").values()) for net in (small, full)]
    assert sizes[0] < sizes[1] / 3
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


CONVOLUTIONS = """
    layer { name: "data" type: "Input" top: "data"
      input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }
    layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
      convolution_param { num_output: 24 kernel_size: 3 pad: 1 FILLER } }
    layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
    layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
      convolution_param { num_output: 24 kernel_size: 5 pad: 2 FILLER } }
    layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
      pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "conv3" type: "Convolution" bottom: "pool2" top: "conv3"
      convolution_param { num_output: 32 kernel_size: 3 stride: 2 FILLER } }
    layer { name: "roll" type: "Reduction" bottom: "conv3" top: "loss" loss_weight: 1 }
""".replace("FILLER", FILLER)


def held_by_training(sizes, keep):
    """Bytes that a net and the kernels' workspace hold after passes over images of these sizes."""
    held = []

    def train():
        net = Net(
            parse_text(CONVOLUTIONS, caffe_pb2.NetParameter), caffe_pb2.TRAIN,
            context=Context(seed=3), keep=keep,
        )  # fmt: skip
        for height, width in sizes:
            net.blobs["data"].reshape(1, 3, height, width)
            net.reshape()
            net.clear_param_diffs()
            net.forward()
            net.backward()
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        thread = threading.Thread(target=train)  # which has a workspace of its own
        thread.start()
        thread.join()
    finally:
        tracemalloc.stop()
    return held[0]


@pytest.mark.parametrize("keep", ["all", "minimal"])
def test_training_holds_what_the_largest_image_needs(keep):
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(40, 160, (40, 2))]
    largest = (160, 160)
    # Compiling, too, takes memory, and so do the plans of products, of a thousand sizes at most.
    held_by_training([*sizes, largest], keep)
    alone = held_by_training([largest], keep)
    assert alone > 5e6
    for order in ([*sizes, largest], [largest, *sizes], [*sizes, largest, *sizes]):
        assert held_by_training(order, keep) < 1.02 * alone


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


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30
    )
)
def test_arrays_that_live_at_the_same_time_do_not_overlap(arrays):
    counts = [count for count, _, _ in arrays]
    lives = [(min(a, b), max(a, b)) for _, a, b in arrays]
    places, size = lay_out(counts, lives)
    for moment in range(10):
        alive = [k for k, (first, last) in enumerate(lives) if first <= moment <= last]
        ranges = sorted((places[k], places[k] + counts[k]) for k in alive if counts[k])
        assert all(end <= begin for (_, end), (begin, _) in pairwise(ranges))
        assert all(begin >= 0 and end <= size for begin, end in ranges)
    assert all(place % 32 == 0 for place in places)


def test_a_chain_needs_room_for_its_largest_neighbours():
    counts = [32, 64, 64, 128, 128, 96]
    lives = [(k, k + 1) for k in range(6)]
    _, size = lay_out(counts, lives)
    assert size == 256


LEAVES_IT = """
    layer { name: "user" type: "Python" bottom: "b" top: "c"
      python_param { module: "MODULE" layer: "LeavesItAlone" } }
"""


class LeavesItAlone(PythonLayer):
    """y = x, whose gradient is left at zero, as pycaffe lets users do."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        pass


def branches(part):
    """a -> b, which gives the loss a gradient directly and, of zeros, through `part`."""
    ip = 'type: "InnerProduct" inner_product_param { num_output: 8 weight_filler { value: 1 } }'
    return parse_text(
        f'{INPUT} layer {{ name: "a" bottom: "data" top: "a" {ip} }}'
        f'layer {{ name: "b" bottom: "a" top: "b" {ip} }}'
        f'{part} layer {{ name: "d" bottom: "c" top: "d" {ip} }}'
        'layer { name: "sum" type: "Eltwise" bottom: "d" bottom: "b" top: "sum" }'
        'layer { name: "loss" type: "Reduction" bottom: "sum" top: "loss" loss_weight: 2 }',
        caffe_pb2.NetParameter,
    )


@pytest.mark.parametrize(
    "part",
    [
        LEAVES_IT.replace("MODULE", __name__),
        'layer { name: "c" type: "TanH" bottom: "b" top: "c" propagate_down: false }',
    ],
)
def test_what_no_layer_assigns_is_zero(part):
    found = []
    for keep in ("all", "minimal"):
        net = Net(branches(part), caffe_pb2.TRAIN, context=Context(seed=3), keep=keep)
        net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(4, 8))
        for _ in range(3):
            net.clear_param_diffs()
            net.forward()
            net.backward()
        found.append([p.blob.diff.copy() for p in net.learnable])
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)
    assert found[0][0].any()


def test_keep_is_checked():
    with pytest.raises(NetError, match='keep="all" or keep="minimal"'):
        Net(chain(1), caffe_pb2.TEST, keep="some")
