import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.context import Context
from demitasse.engine.errors import LayerError, ModelFileError, NetError
from demitasse.engine.layer import Layer, layer_class, layer_types, register
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


def layer(name, kind, bottoms="", tops="", more=""):
    """One layer; bottoms and tops as words."""
    bottoms = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    tops = " ".join(f'top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {more} }}\n'


def inputs(tops="x", shape=(2, 3), name="in"):
    dims = " ".join(f"dim: {d}" for d in shape)
    return layer(name, "Input", "", tops, f"input_param {{ shape {{ {dims} }} }}")


def ip(name, bottom, top, outputs=3, more="", kind='type: "gaussian" std: 0.5'):
    param = f"inner_product_param {{ num_output: {outputs} weight_filler {{ {kind} }} }}"
    return layer(name, "InnerProduct", bottom, top, f"{param} {more}")


def build(text, phase=TEST, seed=1, **options):
    param = parse_text(text, caffe_pb2.NetParameter, "net.prototxt")
    return Net(param, phase, context=Context(seed), **options)


def randomise(net, names=("x",), seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)


LEARNER = inputs("x t") + ip("a", "x", "h", 4) + layer("r", "ReLU", "h", "h")
LEARNER += ip("b", "h", "y") + layer("l", "EuclideanLoss", "y t", "loss")


# ---- what is in it


def test_names_and_shapes():
    net = build('name: "n" ' + LEARNER)
    assert net.name == "n" and net.inputs == ["x", "t"] and net.outputs == ["loss"]
    assert list(net.blobs) == ["x", "t", "h", "y", "loss"]
    assert [b.shape for b in net.blobs.values()] == [(2, 3), (2, 3), (2, 4), (2, 3), ()]
    assert list(net.params) == ["a", "b"] and [b.shape for b in net.params["a"]] == [(4, 3), (4,)]
    assert [n.name for n in net.nodes] == ["in", "a", "r", "b", "l"]
    assert net.layer_index("b") == 3
    with pytest.raises(NetError, match=r"net 'n': .*'bb'.*Did you mean"):
        net.layer_index("bb")


def test_the_given_parameter_is_left_as_it_is():
    param = parse_text(LEARNER + layer("s", "Silence", "y"), caffe_pb2.NetParameter, "net")
    before = param.SerializeToString(deterministic=True)
    net = Net(param, TRAIN)
    assert param.SerializeToString(deterministic=True) == before
    assert "y_b_0_split" in [p.name for p in net.to_proto().layer]


def test_phase_level_and_stage_choose_layers():
    text = inputs() + "".join(
        layer(name, "Power", "x", name, f"include {{ {rule} }}")
        for name, rule in [("p", "phase: TRAIN"), ("l", "min_level: 1"), ("s", 'stage: "s"')]
    )
    assert build(text).outputs == ["x"]
    assert build(text, TRAIN).outputs == ["p"]
    assert build(text, level=1).outputs == ["l"]
    assert build(text, TRAIN, level=2, stages=["s"]).outputs == ["l", "p", "s"]


def test_layers_know_their_phase():
    net = build(inputs() + layer("p", "Power", "x", "y", "phase: TRAIN"), TEST)
    assert [n.layer.phase for n in net.nodes] == [TEST, TRAIN]


def test_automatic_tops_are_made_but_are_no_outputs():
    net = build(inputs("x t") + layer("l", "EuclideanLoss", "x t"))
    assert net.outputs == [] and len(net.nodes[1].tops) == 1
    randomise(net)
    assert net.forward() == pytest.approx((net.blobs["x"].data ** 2).sum() / 4, rel=1e-6)


def test_a_net_without_layers():
    net = build("")
    assert net.forward() == 0 and net.backward() is None
    assert net.inputs == net.outputs == [] and not net.blobs


# ---- errors


@pytest.mark.parametrize(
    "text, message",
    [
        (layer("bad", "Rellu", "x", "y"), "layer 'bad' .*'Rellu'.*Did you mean 'ReLU'"),
        (layer("bad", "", "x", "y"), "layer 'bad' .*known layer type"),
        (layer("bad", "ReLU", "nowhere", "y"), "layer 'bad' .*'nowhere'"),
        (layer("bad", "ReLU", "x x", "y"), "layer 'bad' .*expected 1 bottom blob.* found 2"),
        (layer("bad", "ReLU", "x", "y z"), "layer 'bad' .*expected 1 top blob.* found 2"),
        (layer("bad", "ReLU", "", "y"), "layer 'bad' .*found 0"),
        (layer("bad", "Concat", "", "y"), "layer 'bad' .*at least 1 bottom"),
        (layer("bad", "Silence", "x", "y"), "layer 'bad' .*expected 0 top"),
        (layer("bad", "PReLU", "x x x", "y"), "layer 'bad' .*bottom"),
        (layer("bad", "Split", "x", "x"), "layer 'bad' .*in place"),
        (ip("bad", "x", "x"), "layer 'bad' .*in place"),
        (layer("bad", "Embed", "x", "x", "embed_param { num_output: 3 input_dim: 2 }"), "in place"),
        (ip("bad", "x", "y", 0), "layer 'bad' .*num_output"),
        (ip("bad", "x", "y", 2**31), "layer 'bad' .*at most .* elements"),
        (ip("bad", "x", "y", 2**31 - 1), "layer 'bad' .*at most .* elements"),
        (ip("bad", "x", "y", kind='type: "xavir"'), "layer 'bad' .*parameter 0.*'xavier'"),
        (
            ip("bad", "x", "y", more="param {} param {} param {}"),
            "layer 'bad' .*at most 2 param.*found 3",
        ),
        (layer("bad", "ReLU", "x", "y", "loss_weight: 1 loss_weight: 1"), "layer 'bad' .*1 top"),
        (
            layer("bad", "ReLU", "x", "y", "propagate_down: true propagate_down: true"),
            "layer 'bad' .*each of 1 bottom",
        ),
    ],
)
def test_one_clear_error_each(text, message):
    with pytest.raises((NetError, ModelFileError), match=message):
        build(inputs() + text)


def test_incompatible_shapes_name_the_layer():
    text = inputs("x") + inputs("t", (2, 4), "in2") + layer("bad", "EuclideanLoss", "x t", "l")
    with pytest.raises(LayerError, match=r"layer 'bad' \(EuclideanLoss\)"):
        build(text)


def test_a_layer_that_changes_the_shape_of_its_bottom_in_place():
    with pytest.raises(LayerError, match=r"layer 'm' .*shape \(2, 3\).*\(2, 3, 1, 1\).*name"):
        build(inputs() + layer("m", "MVN", "x", "x"))
    build(inputs("x", (2, 3, 1, 1)) + layer("m", "MVN", "x", "x"))


def test_an_input_shape_that_is_too_large_names_the_layer():
    with pytest.raises(LayerError, match=r"layer 'in' \(Input\): .*at most .*1000000000000"):
        build(inputs("x", (10**6, 10**6)))


def test_other_exceptions_carry_a_note_naming_the_layer(monkeypatch):
    net = build(LEARNER)
    monkeypatch.setattr(net.nodes[net.layer_index("b")].layer, "forward", lambda bottom, top: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        net.forward()
    assert caught.value.__notes__ == ["in forward of layer 'b' (InnerProduct)"]


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


# ---- splits and in-place layers


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


# ---- losses


def test_loss_weights_scale_value_and_gradient():
    net = build(LEARNER.replace('top: "loss"', 'top: "loss" loss_weight: 0.25'))
    plain = build(LEARNER)
    for n in (net, plain):
        randomise(n, ("x", "t"))
    assert net.forward() == pytest.approx(plain.forward() / 4)
    net.backward()
    plain.backward()
    np.testing.assert_allclose(
        net.params["a"][0].diff, plain.params["a"][0].diff / 4, rtol=1e-5, atol=1e-7
    )
    assert build(LEARNER.replace('top: "loss"', 'top: "loss" loss_weight: 0')).forward() == 0


def test_any_top_can_be_a_loss_and_be_used_as_well():
    text = inputs() + ip("a", "x", "y", more="loss_weight: 2")
    net = build(text)
    randomise(net)
    assert net.forward() == pytest.approx(2 * net.blobs["y"].data.sum(), rel=1e-5)
    net.backward()
    gradient = net.params["a"][0].diff.copy()
    np.testing.assert_allclose(gradient, 2 * np.tile(net.blobs["x"].data.sum(0), (3, 1)), rtol=1e-5)
    used = build(text + layer("p", "Power", "y", "z", "power_param { scale: 5 }"))
    randomise(used)
    assert used.forward() == pytest.approx(2 * used.blobs["y"].data.sum(), rel=1e-5)
    used.backward()
    np.testing.assert_allclose(used.params["a"][0].diff, gradient, rtol=1e-6)


def test_the_weight_of_a_loss_survives_reshaping():
    net = build(inputs() + ip("a", "x", "y", more="loss_weight: 2"))
    net.forward()
    net.backward()
    net.blobs["x"].reshape(6, 3)
    net.forward()
    net.backward()
    assert (net.blobs["y"].diff == 2).all()


def test_several_losses_add_up():
    text = LEARNER + layer("s", "Reduction", "h", "sum", "loss_weight: 0.5")
    net = build(text)
    randomise(net, ("x", "t"))
    total = net.forward()
    parts = net.blobs["loss"].data + 0.5 * net.blobs["sum"].data
    assert total == pytest.approx(float(parts), rel=1e-6)


# ---- shared parameters

TWO = inputs("x t") + ip("a", "x", "h", more="%s") + ip("b", "h", "y", more="%s")
TWO += layer("l", "EuclideanLoss", "y t", "loss")


def test_parameters_of_one_name_are_one():
    net = build(TWO % ('param { name: "w" }', 'param { name: "w" }'))
    a, b = net.params["a"][0], net.params["b"][0]
    assert np.shares_memory(a.data, b.data) and np.shares_memory(a.diff, b.diff)
    assert [p.owner is None for p in net.parameters] == [True, True, False, True]
    assert [p.display_name for p in net.parameters] == ["w", "1", "w", "1"]
    assert len(net.learnable) == 3

    apart = build(TWO % ("", ""))
    for mine, other in zip(net.params.values(), apart.params.values()):
        for to, source in zip(other, mine):
            to.set_data(source.data)
    for n in (net, apart):
        randomise(n, ("x", "t"))
        n.forward()
        n.backward()
    total = apart.params["a"][0].diff + apart.params["b"][0].diff
    np.testing.assert_allclose(a.diff, total, rtol=1e-5, atol=1e-7)


def test_sharing_within_a_layer():
    text = inputs("x", (2, 1)) + ip("a", "x", "y", 1, 'param { name: "w" } param { name: "w" %s })')
    with pytest.raises(LayerError, match="shape"):
        build(text.replace("})", "}") % "")
    net = build(text.replace("})", "}") % "share_mode: PERMISSIVE")
    assert np.shares_memory(net.params["a"][0].data, net.params["a"][1].data)


def test_shapes_of_shared_parameters():
    text = inputs("x", (2, 6)) + ip("a", "x", "y", 2, 'param { name: "w" }')
    text += ip("b", "x", "z", 3, 'param { name: "w" %s }').replace(
        "num_output", "axis: 0 num_output"
    )
    permissive = text.replace("dim: 2 dim: 6", "dim: 2 dim: 4") % "share_mode: PERMISSIVE"
    with pytest.raises(LayerError, match=r"layer 'b' .*the shape \(2, 6\) .*'w'.*\(3, 12\)"):
        build(text % "")
    with pytest.raises(LayerError, match=r"layer 'b' .*as many elements as \(2, 6\)"):
        build(text % "share_mode: PERMISSIVE")
    with pytest.raises(LayerError, match=r"as many elements as \(2, 4\).*\(3, 8\)"):
        build(permissive)
    fitting = permissive.replace("num_output: 2", "num_output: 6")
    net = build(fitting)  # (6, 4) and (3, 8)
    assert [net.params[n][0].shape for n in "ab"] == [(6, 4), (3, 8)]
    net.params["a"][0].data[...] = np.arange(24).reshape(6, 4)
    assert net.params["b"][0].data[0].tolist() == list(range(8))
    with pytest.raises(LayerError, match="PERMISSIVE compares only"):
        build(fitting.replace("share_mode: PERMISSIVE", ""))


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_multipliers_of_shared_parameters(field):
    def shared(first, second):
        return build(TWO % (f'param {{ name: "w" {first} }}', f'param {{ name: "w" {second} }}'))

    net = shared(f"{field}: 3", "")
    assert getattr(net.learnable[0], field) == 3
    net = shared("", f"{field}: 3")
    assert getattr(net.learnable[0], field) == 3
    assert getattr(shared(f"{field}: 3", f"{field}: 3").learnable[0], field) == 3
    with pytest.raises(LayerError, match=rf"layer 'b' .*{field} 3 .*'w'.*found 2"):
        shared(f"{field}: 3", f"{field}: 2")


# ---- debug_info


def test_debug_info(caplog):
    with caplog.at_level(logging.INFO, "demitasse.net"):
        text = TWO % ('param { name: "w" }', 'param { name: "w" lr_mult: 0 }')
        net = build("debug_info: true " + text)
        randomise(net, ("x", "t"))
        caplog.clear()
        net.forward()
        net.backward()
    lines = [r.getMessage() for r in caplog.records]

    def mean(name, what="data"):
        return f"{np.abs(getattr(net.blobs[name], what)).mean():g}"

    assert f"    [Forward] Layer a, top blob h data: {mean('h')}" in lines
    weight = net.params["a"][0]
    value = f"{np.abs(weight.data).mean():g}"
    assert f"    [Forward] Layer a, param blob w data: {value}" in lines
    assert f"    [Forward] Layer b, param blob w data: {value}" in lines
    assert any(line.startswith("    [Forward] Layer b, param blob 1 data: ") for line in lines)
    assert f"    [Backward] Layer b, bottom blob h diff: {mean('h', 'diff')}" in lines
    assert not any("[Backward] Layer b, param blob 0" in line for line in lines)
    assert not any("[Backward] Layer a, bottom blob" in line for line in lines)
    value = f"{np.abs(weight.diff).mean():g}"
    assert f"    [Backward] Layer a, param blob 0 diff: {value}" in lines
    assert "All net params (data, diff): L1 norm = (" in lines[-1]
    caplog.clear()
    net.debug_info = False
    net.forward()
    assert not caplog.records


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


# ---- the registry


def test_layer_types_are_sorted_and_hold_the_built_ins():
    types = layer_types()
    assert types == sorted(types) and {"ReLU", "Convolution", "Python", "LSTM"} <= set(types)
    assert layer_class("ReLU").type_name == "ReLU"


def test_a_type_is_registered_once():
    with pytest.raises(LayerError, match=r"'ReLU'.*one class.*another name"):

        @register("ReLU")
        class Mine(Layer):
            pass


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


def test_unknown_names_are_key_errors_with_the_closest():
    net = build(inputs("data") + ip("ip", "data", "y"))
    with pytest.raises(KeyError, match=r"the name of a blob, found 'dta'\. Did you mean 'data'"):
        net.blobs["dta"]
    with pytest.raises(NetError, match="a layer with parameters, found 'ipp'"):
        net.params["ipp"]
    assert net.blobs.get("dta") is None
    assert list(net.blobs.copy()) == list(net.blobs)
