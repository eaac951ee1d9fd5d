"""Fully connected layers in two factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.detection.compress import (
    compress_definition,
    compress_weights,
    ranks_of,
    truncated_svd,
)
from demitasse.engine.context import Context
from demitasse.engine.errors import NetError
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

NET = """
name: "head"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 dim: 4 } } }
layer { name: "fc6" type: "InnerProduct" bottom: "data" top: "fc6"
        param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        inner_product_param { num_output: 10 weight_filler { type: "xavier" }
                              bias_filler { type: "uniform" } } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7"
        inner_product_param { num_output: 8 bias_term: false transpose: true
                              weight_filler { type: "xavier" } } }
layer { name: "cls_score" type: "InnerProduct" bottom: "fc7" top: "cls_score"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""


def definition(text=NET):
    return parse_text(text, caffe_pb2.NetParameter)


def build(param, seed=0):
    return Net(param, caffe_pb2.TEST, context=Context(seed))


def output(net):
    net.blobs["data"].data[...] = np.random.default_rng(1).normal(size=(5, 3, 4))
    net.forward()
    return net.blobs["cls_score"].data.copy()


def compressed(ranks, text=NET):
    net = build(definition(text))
    small = build(compress_definition(definition(text), ranks), seed=9)
    return net, small, compress_weights(net, small, ranks)


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_no_approximation_of_the_same_rank_is_better(outputs, inputs, rank, seed):
    weights = np.random.default_rng(seed).normal(size=(outputs, inputs))
    rank = min(rank, outputs, inputs)
    u, l, error = truncated_svd(weights, rank)
    assert u.shape == (outputs, rank) and l.shape == (rank, inputs)
    left, singular, right = np.linalg.svd(weights, full_matrices=False)
    best = (left[:, :rank] * singular[:rank]) @ right[:rank]
    np.testing.assert_allclose(u @ l, best, atol=1e-7)
    expected = np.sqrt((singular[rank:] ** 2).sum() / (singular**2).sum())
    assert error == pytest.approx(expected, abs=1e-6)
    assert error == pytest.approx(
        np.linalg.norm(weights - u @ l) / np.linalg.norm(weights), abs=1e-6
    )


@pytest.mark.parametrize("shape", [(3, 5000), (5000, 3)])
def test_long_matrices_are_worked_on_in_parts(shape):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    u, l, error = truncated_svd(weights, 3)
    assert u.dtype == l.dtype == np.float32 and error < 1e-6
    np.testing.assert_allclose(u @ l, weights, atol=1e-5)


def test_weights_of_zero():
    u, l, error = truncated_svd(np.zeros((3, 4), np.float32), 2)
    assert error == 0 and not (u @ l).any()


def test_with_full_rank_the_net_computes_the_same():
    net, small, results = compressed({"fc6": 10, "fc7": 8})
    np.testing.assert_allclose(output(small), output(net), atol=1e-5)
    assert [r.error for r in results] == pytest.approx([0, 0], abs=1e-6)
    assert [(r.before, r.after) for r in results] == [(120, 220), (80, 144)]


def test_with_less_it_computes_what_the_truncated_matrices_do():
    net, small, results = compressed({"fc6": 3})
    weights = net.params["fc6"][0].data
    left, singular, right = np.linalg.svd(weights, full_matrices=False)
    net.params["fc6"][0].data[...] = (left[:, :3] * singular[:3]) @ right[:3]
    np.testing.assert_allclose(output(small), output(net), atol=1e-5)
    assert list(small.params) == ["fc6_L", "fc6_U", "fc7", "cls_score"]
    assert 0.1 < results[0].error < 1 and results[0].after == 3 * 22


def test_the_definition_keeps_what_is_around_the_layer():
    param = compress_definition(definition(), {"fc6": 4, "fc7": 2})
    names = [layer.name for layer in param.layer]
    assert names == ["data", "fc6_L", "fc6_U", "relu6", "fc7_L", "fc7_U", "cls_score"]
    first, second = param.layer[1], param.layer[2]
    assert first.bottom == ["data"] and second.top == ["fc6"]
    assert [p.lr_mult for p in first.param] == [1] and [p.lr_mult for p in second.param] == [1, 2]
    assert not first.inner_product_param.bias_term and second.inner_product_param.bias_term
    assert not param.layer[5].inner_product_param.bias_term
    assert ranks_of(param) == {"fc6": 4, "fc7": 2}
    assert [layer.name for layer in definition().layer] == names_of_original()


def names_of_original():
    return ["data", "fc6", "relu6", "fc7", "cls_score"]


def test_what_cannot_be_compressed_is_refused():
    with pytest.raises(NetError, match=r"'fc8'.*'fc6'"):
        compress_definition(definition(), {"fc8": 2})
    with pytest.raises(NetError, match=r"'relu6'"):
        compress_definition(definition(), {"relu6": 2})
    shared = NET.replace("param { lr_mult: 1 }", 'param { name: "w" }')
    with pytest.raises(NetError, match="shared"):
        compress_definition(definition(shared), {"fc6": 2})
    with pytest.raises(NetError, match="in pairs"):
        ranks_of(definition())


@pytest.mark.parametrize("rank", [0, 11])
def test_a_rank_that_the_layer_does_not_have(rank):
    param = compress_definition(definition(), {"fc6": rank or 1})
    with pytest.raises(NetError, match="a rank from 1 to 10 for its 10 x 12 weights"):
        compress_weights(build(definition()), build(param), {"fc6": rank})


def test_a_definition_of_another_net_is_refused():
    other = NET.replace("num_output: 3", "num_output: 4")
    small = build(compress_definition(definition(other), {"fc6": 2}))
    with pytest.raises(NetError, match=r"'cls_score'.*\(3, 8\).*\(4, 8\)"):
        compress_weights(build(definition()), small, {"fc6": 2})
