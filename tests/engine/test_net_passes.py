"""Forward and backward of a net: values, ranges of layers, shapes at run time, random numbers."""

import numpy as np
import pytest
from small_nets import LEARNER, TRAIN, build, inputs, ip, layer, randomise

from demitasse.engine.errors import LayerError, NetError

# ---- running


def test_forward_and_backward_against_numpy():
    net = build(LEARNER, dtype=np.float64)
    randomise(net, ("x", "t"))
    loss = net.forward()
    net.backward()
    x, t = (net.blobs[n].data for n in "xt")
    (wa, ba), (wb, bb) = ([b.data for b in net.params[n]] for n in "ab")
    h = np.maximum(x @ wa.T + ba, 0)
    d = h @ wb.T + bb - t
    assert loss == pytest.approx((d * d).sum() / 4)
    dy = d / 2
    dh = dy @ wb * (h > 0)
    np.testing.assert_allclose(net.params["b"][0].diff, dy.T @ h)
    np.testing.assert_allclose(net.params["b"][1].diff, dy.sum(axis=0))
    np.testing.assert_allclose(net.params["a"][0].diff, dh.T @ x)
    assert {b.dtype for b in net.blob_list} == {np.dtype(np.float64)}


def test_parameter_gradients_accumulate_until_cleared():
    net = build(LEARNER)
    randomise(net, ("x", "t"))
    net.forward()
    net.backward()
    once = net.params["a"][0].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["a"][0].diff, 2 * once, rtol=1e-6)
    net.clear_param_diffs()
    assert not any(b.diff.any() for blobs in net.params.values() for b in blobs)


def test_forward_alone_takes_no_memory_for_gradients():
    net = build(LEARNER)
    net.forward()
    net.clear_param_diffs()
    assert not any(b.has_grad for b in net.blob_list)
    assert not any(b.has_grad for blobs in net.params.values() for b in blobs)


def test_a_gradient_nobody_needs_is_not_computed():
    net = build(LEARNER)
    net.forward()
    net.backward()
    assert not net.blobs["x"].has_grad and not net.blobs["t"].has_grad
    assert net.blobs["h"].has_grad


def test_frozen_parameters_keep_zero_gradients():
    net = build(LEARNER.replace('name: "a"', 'name: "a" param { lr_mult: 0 }'))
    randomise(net, ("x", "t"))
    net.forward()
    net.backward()
    assert not net.params["a"][0].diff.any() and net.params["a"][1].diff.any()
    net = build("force_backward: true " + LEARNER.replace('"a"', '"a" param { lr_mult: 0 }'))
    randomise(net, ("x", "t"))
    net.forward()
    net.backward()
    assert net.params["a"][0].diff.any() and net.blobs["x"].diff.any()


def test_without_a_loss_backward_does_nothing():
    net = build(inputs() + ip("a", "x", "y"))
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert not net.params["a"][0].has_grad


def test_ranges_of_layers():
    net = build(LEARNER)
    randomise(net, ("x", "t"))
    whole = net.forward()
    h = net.blobs["h"].data.copy()
    y = net.blobs["y"].data.copy()
    net.blobs["y"].data[...] = 0
    net.blobs["h"].data[...] = 9
    assert net.forward(1, 2) == 0
    assert (net.blobs["h"].data == h).all() and not net.blobs["y"].data.any()
    assert net.forward(3) == pytest.approx(whole) and (net.blobs["y"].data == y).all()

    net.backward(4, 4)
    assert net.blobs["y"].diff.any() and not net.blobs["h"].has_grad
    net.backward(3, 3)
    assert net.params["b"][0].diff.any() and not net.params["a"][0].has_grad
    net.backward(2)
    partly = net.params["a"][0].diff.copy()
    net.clear_param_diffs()
    net.backward()
    np.testing.assert_allclose(net.params["a"][0].diff, partly)


@pytest.mark.parametrize("start, end", [(0, 5), (-1, 2), (5, None), (7, 8)])
def test_ranges_outside_the_net(start, end):
    net = build(LEARNER)
    with pytest.raises(NetError, match="layer"):
        net.forward(start, end)
    with pytest.raises(NetError, match="layer"):
        net.backward(end, start)


def test_callbacks_are_told_the_layer():
    net = build(LEARNER)
    seen = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name).append(lambda i, name=name: seen.append((name, i)))
    net.forward(1, 2)
    net.backward(2, 1)
    assert seen == [
        *[(f"{when}_forward", i) for i in (1, 2) for when in ("before", "after")],
        *[(f"{when}_backward", i) for i in (2, 1) for when in ("before", "after")],
    ]


# ---- shapes at run time


def test_inputs_may_be_reshaped_before_any_pass():
    net = build(inputs("x", (1, 2)) + layer("p", "Power", "x", "y", "power_param { scale: 2 }"))
    for shape in ((3, 4), (1, 1), (0, 5), (2, 3, 4)):
        net.blobs["x"].reshape(*shape)
        net.blobs["x"].data[...] = 3
        net.forward()
        assert net.blobs["y"].data.shape == shape and (net.blobs["y"].data == 6).all()


def test_reshape_carries_shapes_and_computes_nothing():
    net = build(LEARNER)
    net.forward()
    before = net.blobs["y"].data.copy()
    net.blobs["x"].reshape(1, 3)
    net.blobs["t"].reshape(1, 3)
    net.reshape()
    assert net.blobs["y"].shape == (1, 3) and net.blobs["h"].shape == (1, 4)
    assert (net.blobs["y"].data == before[:1]).all()


def test_reshapes_that_do_not_fit_name_the_layer():
    net = build(LEARNER)
    net.blobs["x"].reshape(2, 5)
    with pytest.raises(LayerError, match=r"layer 'a' \(InnerProduct\): expected 3 inputs"):
        net.reshape()
    with pytest.raises(LayerError, match="layer 'a'"):
        net.forward()


# ---- random numbers and passes


def test_random_layers_depend_on_seed_and_number_of_the_pass():
    text = inputs("x", (1, 64)) + layer("d", "Dropout", "x", "y")

    def passes(net, count):
        net.blobs["x"].data[...] = 1
        out = []
        for _ in range(count):
            net.forward()
            out.append(net.blobs["y"].data.tobytes())
        return out

    first = passes(build(text, TRAIN), 4)
    assert len(set(first)) == 4
    assert first == passes(build(text, TRAIN), 4)
    assert first[0] != passes(build(text, TRAIN, seed=2), 1)[0]
    resumed = build(text, TRAIN)
    resumed.seek(2)
    assert passes(resumed, 2) == first[2:]


@pytest.mark.parametrize("name", ["d", ""])
def test_layers_of_one_name_draw_different_numbers(name):
    options = 'num_output: 8 weight_filler { type: "xavier" }'
    ip = f'type: "InnerProduct" inner_product_param {{ {options} }}'
    text = inputs("x", (1, 8)) + "".join(
        f'layer {{ name: "{name}" {kind} bottom: "x" top: "{top}" }}'
        for top, kind in (("a", ip), ("b", ip), ("c", 'type: "Dropout"'), ("d", 'type: "Dropout"'))
    )
    net = build(text, TRAIN)
    net.blobs["x"].data[...] = 1
    net.forward()
    first, second = (n.layer.blobs[0].data for n in net.nodes if n.type == "InnerProduct")
    assert (first != second).any()
    assert (net.blobs["c"].data != net.blobs["d"].data).any()
