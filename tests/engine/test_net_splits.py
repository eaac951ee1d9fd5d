"""Blobs with several consumers, and layers that work in place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import LEARNER, build, inputs, layer, randomise


def test_gradients_of_several_consumers_are_summed():
    text = "force_backward: true " + inputs()
    text += "".join(
        layer(f"p{k}", "Power", "x", f"y{k}", f"power_param {{ scale: {k} }}") for k in (1, 2, 3, 4)
    )
    for consumers in (1, 2, 4):
        head = text[: text.index(f'layer {{ name: "p{consumers + 1}"')] if consumers < 4 else text
        net = build(head)
        net.forward()
        for k in range(1, consumers + 1):
            net.blobs[f"y{k}"].diff[...] = 1
        net.backward()
        assert (net.blobs["x"].diff == sum(range(1, consumers + 1))).all()


def test_splits_share_memory_also_after_a_reshape():
    net = build(inputs() + layer("p", "Power", "x", "y") + layer("q", "Power", "x", "z"))
    net.blobs["x"].reshape(5, 5)
    net.blobs["x"].data[...] = 2
    net.forward()
    assert np.shares_memory(net.blobs["x"].data, net.blobs["x_in_0_split_1"].data)
    assert (net.blobs["z"].data == 2).all()


def test_in_place_layers_give_what_others_give():
    apart = LEARNER.replace('bottom: "h" top: "h"', 'bottom: "h" top: "h2"')
    apart = apart.replace('bottom: "h" top: "y"', 'bottom: "h2" top: "y"')
    results = []
    for text, blobs in ((LEARNER, 5), (apart, 6)):
        net = build(text)
        assert len(net.blobs) == blobs
        randomise(net, ("x", "t"))
        loss = net.forward()
        net.backward()
        results.append([loss, net.params["a"][0].diff.tolist()])
    assert results[0] == results[1]


# ---- properties


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=6))
def test_chains_of_any_length_differentiate(rows, width, in_place):
    """A chain of scalings, some in place, multiplies the gradient by their product."""
    text = "force_backward: true " + inputs("b0", (rows, width))
    blob, factor = "b0", 1.0
    for k, same in enumerate(in_place):
        top = blob if same else f"b{k + 1}"
        scale = (-1.5, 2.0, 0.5)[k % 3]
        text += layer(f"p{k}", "Power", blob, top, f"power_param {{ scale: {scale} }}")
        blob, factor = top, factor * scale
    net = build(text)
    net.blobs["b0"].data[...] = 1
    net.forward()
    assert (net.blobs[blob].data == factor).all()
    net.blobs[blob].diff[...] = 1
    net.backward()
    assert (net.blobs["b0"].diff == factor).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_any_fan_out_sums_gradients(uses):
    """Layer k scales an earlier blob; dx sums over all paths."""
    text = "force_backward: true " + inputs("b0", (2,))
    gradient = [1.0]  # of b0 .. bk by themselves
    sources = []
    for k, use in enumerate(uses):
        source = use % (k + 1)
        sources.append(source)
        text += layer(f"p{k}", "Power", f"b{source}", f"b{k + 1}", "power_param { scale: 2 }")
        gradient.append(1.0)
    net = build(text)
    net.forward()
    for name in net.outputs:
        net.blobs[name].diff[...] = 1
    net.backward()
    total = [1.0 if f"b{k}" in net.outputs else 0.0 for k in range(len(uses) + 1)]
    for k in reversed(range(len(uses))):
        total[sources[k]] += 2 * total[k + 1]
    assert (net.blobs["b0"].diff == total[0]).all()
