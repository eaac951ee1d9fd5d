"""Values of what a Concat joins, which lie where it wants them."""

import numpy as np
import pytest

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers.concat import Concat

CONV = "convolution_param { num_output: %d kernel_size: 1 weight_filler { type: 'gaussian' } }"
SHAPES = [(1, 2, 3, 4), (2, 2, 3, 4), (1, 2, 3, 4), (1, 2, 6, 2), (1, 2, 7, 5), (3, 2, 1, 1)]


def conv(name, bottom, outputs):
    return (
        f"layer {{ name: '{name}' type: 'Convolution' bottom: '{bottom}' top: '{name}' "
        f"{CONV % outputs} }}"
    )


def relu(blob):
    return f"layer {{ name: '{blob}_relu' type: 'ReLU' bottom: '{blob}' top: '{blob}' }}"


def concat(top, *bottoms, axis=1):
    listed = " ".join(f"bottom: '{b}'" for b in bottoms)
    return (
        f"layer {{ name: '{top}' type: 'Concat' {listed} top: '{top}' "
        f"concat_param {{ axis: {axis} }} }}"
    )


INPUT = "layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: [1, 2, 3, 4] } } }"
BRANCHES = [INPUT, conv("a", "x", 3), relu("a"), conv("b", "x", 4)]
LOSS = "layer { name: 'loss' type: 'Reduction' bottom: 'y' top: 'loss' loss_weight: 1 }"
NETS = {
    "plain": [*BRANCHES, concat("y", "a", "b")],
    "nested": [*BRANCHES, concat("ab", "a", "b"), conv("c", "x", 2), concat("y", "c", "ab")],
    "split above": [*BRANCHES, concat("ab", "a", "b"), conv("c", "ab", 2), concat("y", "c", "ab")],
    "split below": [*BRANCHES, concat("ab", "a", "b"), concat("y", "a", "ab")],
    "twice the same": [*BRANCHES, concat("y", "a", "b", "a")],
    "of images": [*BRANCHES[:3], conv("b", "x", 3), concat("y", "a", "b", axis=0)],
    "of rows": [*BRANCHES[:3], conv("b", "x", 3), concat("y", "a", "b", axis=2)],
    "of an input": [*BRANCHES, concat("y", "a", "x")],
    "in place above": [*BRANCHES, concat("y", "a", "b"), relu("y")],
}


def build(layers, phase=caffe_pb2.TRAIN, **options):
    net = parse_text("\n".join([*layers, LOSS]), caffe_pb2.NetParameter)
    net.force_backward = True
    return Net(net, phase, context=Context(seed=3), **options)


def copying(layers, **options):
    """The same net, whose Concat layers copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Concat, "can_hold_bottoms", False)
        return build(layers, **options)


@pytest.mark.parametrize("name", NETS)
def test_results_are_those_of_copies_whatever_the_shapes(name):
    net, expected = build(NETS[name]), copying(NETS[name])
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        values = rng.normal(size=shape)
        for n in (net, expected):
            n.blobs["x"].reshape(*shape)
            n.blobs["x"].data[...] = values
            n.forward()
            n.clear_param_diffs()
            n.backward()
        for blob in expected.blobs:
            for kind in ("data", "diff"):
                ours, other = (getattr(n.blobs[blob], kind) for n in (net, expected))
                np.testing.assert_array_equal(ours, other, err_msg=f"{blob}.{kind} at {shape}")
        for key, blobs in expected.params.items():
            np.testing.assert_array_equal(net.params[key][0].diff, blobs[0].diff)


@pytest.mark.parametrize(
    "name, joined",
    [
        ("plain", ["a", "b"]),
        ("nested", ["a", "b", "c", "ab"]),
        ("split above", ["a", "b"]),
        ("of images", ["a", "b"]),
        ("split below", []),
        ("twice the same", []),
        ("of rows", []),
        ("of an input", []),
        ("in place above", []),
    ],
)
def test_who_lies_in_whom(name, joined):
    net = build(NETS[name])
    net.forward()
    assert {k for k in net.blobs if net.blobs[k].lies_in_other} == set(joined)
    for k in joined:
        whole = "y" if k in ("c", "ab") or "ab" not in net.blobs else "ab"
        assert np.shares_memory(net.blobs[k].data, net.blobs[whole].data)


def test_an_array_that_a_user_keeps_stays_the_blob():
    net = build(NETS["plain"])
    kept = net.blobs["a"].data
    for value in (1, 2):
        net.blobs["x"].data[...] = value
        net.forward()
        np.testing.assert_array_equal(kept, net.blobs["y"].data[:, :3])
    net.blobs["x"].reshape(1, 2, 5, 5)
    net.reshape()
    kept = net.blobs["a"].data
    net.forward()
    np.testing.assert_array_equal(kept, net.blobs["y"].data[:, :3])


def test_a_part_is_set_before_the_first_pass():
    net = build(NETS["plain"])
    net.blobs["a"].set_data(np.full(net.blobs["a"].shape, 3))
    assert (net.blobs["y"].data[:, :3] == 3).all() and not net.blobs["y"].data[:, 3:].any()


def test_a_dropout_in_place_does_not_count_in_test():
    drop = "layer { name: 'drop' type: 'Dropout' bottom: 'y' top: 'y' }"
    net = build([*NETS["plain"], drop], caffe_pb2.TEST)
    assert net.blobs["a"].lies_in_other
    assert not build([*NETS["plain"], drop], caffe_pb2.TRAIN).blobs["a"].lies_in_other


@pytest.mark.parametrize("kept", [(), ("a",)])
def test_with_planned_memory(kept):
    layers = [*NETS["nested"], conv("z", "y", 2), relu("z"), conv("v", "z", 2)]
    expected = build(layers, caffe_pb2.TEST)
    net = build(layers, caffe_pb2.TEST, keep="minimal", kept=kept)
    for shape in SHAPES:
        for n in (net, expected):
            n.blobs["x"].reshape(*shape)
            n.blobs["x"].data[...] = np.arange(n.blobs["x"].count).reshape(shape)
            n.forward()
        for blob in ("v", *kept):
            np.testing.assert_array_equal(net.blobs[blob].data, expected.blobs[blob].data)
    assert not any(net.blobs[blob].lies_in_other for blob in kept)
