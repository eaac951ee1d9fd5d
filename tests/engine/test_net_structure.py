"""What a net is built of: names, shapes, phases, layer types; and what is refused."""

import pytest
from small_nets import LEARNER, TEST, TRAIN, build, inputs, ip, layer, randomise

from demitasse.engine.errors import LayerError, ModelFileError, NetError
from demitasse.engine.layer import Layer, layer_class, layer_types, register
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

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


def test_unknown_names_are_key_errors_with_the_closest():
    net = build(inputs("data") + ip("ip", "data", "y"))
    with pytest.raises(KeyError, match=r"the name of a blob, found 'dta'\. Did you mean 'data'"):
        net.blobs["dta"]
    with pytest.raises(NetError, match="a layer with parameters, found 'ipp'"):
        net.params["ipp"]
    assert net.blobs.get("dta") is None
    assert list(net.blobs.copy()) == list(net.blobs)


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
