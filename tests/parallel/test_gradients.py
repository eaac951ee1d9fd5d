"""Buckets of gradients: in which order, from when on, and that the result is the mean."""

import numpy as np
import pytest
import rank_work

from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers.parallel.communicator import Communicator, Request
from demitasse.solvers.parallel.gradients import Gradients, make_buckets

# ip1 and ip3 share their weights; ip2 has rate 0, and nothing below it is learnt.
SHARED = """
layer { name: "data" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 2 dim: 4 } shape { dim: 2 dim: 4 }
    data_filler { type: "gaussian" std: 1 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "a"
  param { name: "w" } param { lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "a" top: "b" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip3" type: "InnerProduct" bottom: "b" top: "c" param { name: "w" }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "t" top: "l" }
"""


class Doubling(Communicator):
    """Two ranks whose gradients are equal; sums are done when they are waited for."""

    size = 2
    sums = True

    def __init__(self):
        self.begun = []
        self.moments = 0

    def begin_sum(self, array):
        self.begun.append(array.size)
        return _Later(array)

    def progress(self):
        self.moments += 1


class _Later(Request):
    def __init__(self, array):
        self.array = array

    def wait(self):
        self.array *= 2


def net_of(text, dtype=np.float64):
    return Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TRAIN, dtype=dtype)


def names(net, buckets):
    return [[f"{net.nodes[p.layer].name}.{p.index}" for p in b.parameters] for b in buckets]


def test_buckets_are_in_the_order_of_completion():
    net = net_of(rank_work.NET)
    one = make_buckets(net, 1 << 20)
    assert names(net, one) == [["ip2.0", "ip2.1", "ip1.0", "ip1.1"]]
    assert one[0].layer == net.layer_index("ip1") and one[0].count == 24 + 3 + 48 + 8
    # 24 and 48 numbers of 8 bytes are large ones, each on its own.
    assert names(net, make_buckets(net, 100)) == [["ip2.0"], ["ip1.0"], ["ip2.1", "ip1.1"]]


def test_a_shared_parameter_waits_for_its_first_user_and_rate_0_is_left_out():
    net = net_of(SHARED)
    buckets = make_buckets(net, 1)
    assert names(net, buckets) == [["ip3.1"], ["ip1.0"], ["ip1.1"]]
    assert [net.nodes[b.layer].name for b in buckets] == ["ip3", "ip1", "ip1"]


@pytest.mark.parametrize("bucket_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("debug_info", [False, True])
def test_sums_begin_during_backward_and_gradients_are_the_mean(bucket_bytes, debug_info):
    net, plain = net_of(rank_work.NET), net_of(rank_work.NET)
    for p, q in zip(net.learnable, plain.learnable):
        p.blob.data[...] = q.blob.data
    plain.context.random.seed = net.context.random.seed
    ranks = Doubling()
    gradients = Gradients(net, ranks, bucket_bytes)
    net.debug_info = debug_info
    after = []
    net.after_gradients.append(lambda i: after.append((net.nodes[i].name, len(ranks.begun))))
    for each in (net, plain):
        each.forward()
    assert not ranks.begun
    gradients.begin()
    net.backward()
    plain.backward()
    count = len(gradients.buckets)
    if debug_info:
        assert not ranks.begun  # it reads gradients at the end
    else:
        begun = dict(after)
        assert begun["loss"] == 0 and begun["ip1"] == count
        assert begun["ip2"] == {1: 2, 100: 1, 1 << 20: 0}[bucket_bytes]
        assert ranks.moments == len(net.nodes)
    gradients.finish()
    assert sum(ranks.begun) == 83
    for p, q in zip(net.learnable, plain.learnable):
        np.testing.assert_array_equal(p.blob.diff, q.blob.diff)
    net.backward()  # not within begin and finish: a program's own
    assert len(ranks.begun) == count


def test_only_the_last_pass_of_an_iteration_is_summed():
    ranks = Doubling()
    ranks.gather = lambda value: [value, value]
    solver = rank_work.small_solver(ranks, "max_iter: 2 iter_size: 3")
    solver.step(2)
    assert ranks.begun == [83, 83]


def test_fused_layers_stay_fused():
    net = net_of(rank_work.NET)
    Gradients(net, Doubling())
    assert not net.after_backward
