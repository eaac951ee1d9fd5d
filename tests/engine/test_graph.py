import pytest

from demitasse.engine.errors import LayerError, NetError
from demitasse.engine.graph import (
    filter_net,
    insert_splits,
    meets_rule,
    net_state,
    plan_backward,
    wire,
)
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text


def parse(text, message="NetParameter"):
    return parse_text(text, getattr(caffe_pb2, message), "text")


def layer(name, bottoms="", tops="", more="", kind="Any"):
    """One layer; bottoms and tops as words."""
    bottoms = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    tops = " ".join(f'top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {more} }}\n'


def describe(net):
    """A net as a list of "name: bottoms -> tops"."""
    return [f"{p.name}: {' '.join(p.bottom)} -> {' '.join(p.top)}" for p in net.layer]


# ---- rules


@pytest.mark.parametrize(
    "rule, state, met",
    [
        ("", "", True),
        ("phase: TRAIN", "phase: TRAIN", True),
        ("phase: TRAIN", "phase: TEST", False),
        ("phase: TEST", "", True),  # TEST is the default
        ("min_level: 2", "level: 2", True),
        ("min_level: 2", "level: 1", False),
        ("min_level: 0", "level: -1", False),
        ("max_level: 2", "level: 2", True),
        ("max_level: 2", "level: 3", False),
        ("max_level: 0", "level: 1", False),
        ('stage: "a"', 'stage: "a" stage: "b"', True),
        ('stage: "a" stage: "b"', 'stage: "b"', False),
        ('stage: "a"', "", False),
        ('not_stage: "a"', "", True),
        ('not_stage: "a"', 'stage: "a"', False),
        ('not_stage: "a" not_stage: "b"', 'stage: "b"', False),
        ('stage: "a" not_stage: "b"', 'stage: "a"', True),
        ('stage: "a" not_stage: "b"', 'stage: "a" stage: "b"', False),
        ('phase: TRAIN stage: "a" min_level: 1', 'phase: TRAIN stage: "a" level: 1', True),
        ('phase: TRAIN stage: "a" min_level: 1', 'phase: TRAIN stage: "a"', False),
    ],
)
def test_rules(rule, state, met):
    assert meets_rule(parse(state, "NetState"), parse(rule, "NetStateRule")) is met


@pytest.mark.parametrize(
    "rules, kept",
    [
        ("", True),
        ("include { phase: TRAIN }", False),
        ("include { phase: TRAIN } include { phase: TEST }", True),  # any of several is enough
        ("exclude { phase: TEST }", False),
        ("exclude { phase: TRAIN }", True),
        ('exclude { phase: TRAIN } exclude { not_stage: "a" }', False),
        ("include { }", True),
        ("exclude { }", False),
    ],
)
def test_layers_are_kept_by_rules(rules, kept):
    net = parse(layer("a", tops="x") + layer("b", "x", "y", rules))
    filtered = filter_net(net, parse("phase: TEST", "NetState"))
    assert [p.name for p in filtered.layer] == (["a", "b"] if kept else ["a"])
    assert len(net.layer) == 2  # the given net is left as it is


def test_include_and_exclude_together_are_refused():
    net = parse(layer("b", more="include { phase: TEST } exclude { phase: TRAIN }"))
    with pytest.raises(LayerError, match=r"layer 'b' \(Any\): .*include.*exclude.*both"):
        filter_net(net, parse("", "NetState"))


def test_state_of_the_net_and_of_the_caller():
    net = parse('state { phase: TRAIN level: 3 stage: "a" }')
    assert net_state(net) == net.state
    state = net_state(net, caffe_pb2.TEST, 5, ["b"])
    assert state == parse('phase: TEST level: 5 stage: "a" stage: "b"', "NetState")
    assert net_state(parse("")).phase == caffe_pb2.TEST
    for phase in (2, "TEST", -1):
        with pytest.raises(NetError, match=r"caffe\.TRAIN"):
            net_state(net, phase)


# ---- splits


def test_no_splits_where_blobs_are_used_once():
    net = parse(layer("a", tops="x y") + layer("b", "x", "z") + layer("c", "y z", "w"))
    assert insert_splits(net) == net


def test_splits_have_caffes_names():
    net = parse(
        layer("data", tops="x label")
        + layer("b", "x", "y")
        + layer("c", "x y", "z")
        + layer("d", "x label", "w")
        + layer("e", "label", "v")
    )
    assert describe(insert_splits(net)) == [
        "data:  -> x label",
        "x_data_0_split: x -> x_data_0_split_0 x_data_0_split_1 x_data_0_split_2",
        "label_data_1_split: label -> label_data_1_split_0 label_data_1_split_1",
        "b: x_data_0_split_0 -> y",
        "c: x_data_0_split_1 y -> z",
        "d: x_data_0_split_2 label_data_1_split_0 -> w",
        "e: label_data_1_split_1 -> v",
    ]
    assert insert_splits(insert_splits(net)) == insert_splits(net)


def test_a_layer_that_uses_a_blob_twice():
    net = parse(layer("a", tops="x") + layer("b", "x x", "y"))
    assert describe(insert_splits(net))[2] == "b: x_a_0_split_0 x_a_0_split_1 -> y"


def test_in_place_layers_split_after_the_last_of_them():
    net = parse(
        layer("a", tops="x") + layer("r", "x", "x") + layer("b", "x", "y") + layer("c", "x", "z")
    )
    assert describe(insert_splits(net)) == [
        "a:  -> x",
        "r: x -> x",
        "x_r_0_split: x -> x_r_0_split_0 x_r_0_split_1",
        "b: x_r_0_split_0 -> y",
        "c: x_r_0_split_1 -> z",
    ]


def weights(net):
    return {p.name: list(p.loss_weight) for p in net.layer if p.loss_weight}


def test_a_loss_weight_counts_as_a_consumer_and_moves_to_the_split():
    net = parse(layer("a", tops="x", more="loss_weight: 2") + layer("b", "x", "y"))
    split = insert_splits(net)
    assert describe(split) == [
        "a:  -> x",
        "x_a_0_split: x -> x_a_0_split_0 x_a_0_split_1",
        "b: x_a_0_split_1 -> y",
    ]
    assert weights(split) == {"a": [0], "x_a_0_split": [2, 0]}


def test_a_loss_weight_stays_where_nobody_else_consumes():
    net = parse(layer("a", tops="x y", more="loss_weight: 2 loss_weight: 0") + layer("b", "y"))
    assert insert_splits(net) == net
    net = parse(layer("a", tops="x", more="loss_weight: 0") + layer("b", "x", "y"))
    assert insert_splits(net) == net


def test_other_loss_weights_of_the_layer_stay():
    net = parse(layer("a", tops="x y", more="loss_weight: 2 loss_weight: 3") + layer("b", "x", "z"))
    assert weights(insert_splits(net)) == {"a": [0, 3], "x_a_0_split": [2, 0]}


@pytest.mark.parametrize("first", ["", layer("late", tops="w")])
def test_an_unknown_bottom(first):
    net = parse(layer("a", tops="data") + first + layer("b", "dta", "y"))
    with pytest.raises(LayerError, match=r"layer 'b' \(Any\): expected bottom 0 .*'dta'.*'data'\?"):
        insert_splits(net)


def test_a_bottom_that_a_later_layer_produces_is_unknown():
    net = parse(layer("b", "x", "y") + layer("a", tops="x"))
    with pytest.raises(LayerError, match=r"layer 'b' .*no earlier layer produces"):
        insert_splits(net)


# ---- wiring


def wired(text):
    return wire(insert_splits(parse(text)))


def test_wiring():
    w = wired(
        layer("in", tops="x label", kind="Input")
        + layer("b", "x", "y")
        + layer("r", "y", "y")
        + layer("more", tops="u", kind="Input")
        + layer("c", "y label", "z a")
    )
    assert w.blob_names == ["x", "label", "y", "u", "z", "a"]
    assert w.bottoms == [[], [0], [2], [], [2, 1]]
    assert w.tops == [[0, 1], [2], [2], [3], [4, 5]]
    assert [w.blob_names[i] for i in w.inputs] == ["x", "label", "u"]  # as declared
    assert [w.blob_names[i] for i in w.outputs] == ["a", "u", "z"]  # sorted


def test_a_blob_that_ends_in_place_is_an_output_once():
    w = wired(layer("a", tops="x") + layer("r", "x", "x"))
    assert w.outputs == [0] and w.blob_names == ["x"]


@pytest.mark.parametrize(
    "text",
    [
        layer("a", tops="x") + layer("bad", tops="x"),
        layer("bad", tops="x x"),
        layer("a", tops="x y") + layer("bad", "x y", "y x"),  # in place at another position
        layer("a", tops="x") + layer("b", "x", "y") + layer("bad", "x", "x"),  # used before
    ],
)
def test_duplicate_producers(text):
    with pytest.raises(LayerError, match=r"layer 'bad' .*another layer produces already.*in place"):
        wired(text)


def test_a_blob_is_consumed_once_without_splits():
    net = parse(layer("a", tops="x") + layer("b", "x", "y") + layer("c", "x", "z"))
    with pytest.raises(LayerError, match=r"layer 'c' .*consumed already"):
        wire(net)


# ---- backward


class FakeLayer:
    """What the plan asks of a layer: how many parameters, and bottoms never to propagate to."""

    def __init__(self, params=0, no_force=()):
        self.blobs = [None] * params
        self.no_force_backward = no_force


def plan(text, layers, losses):
    """{layer name: (runs backward, propagate_down)} of a net.

    `layers` maps names to FakeLayers, `losses` to loss weights; splits are added.
    """
    net = insert_splits(parse(text))
    wiring = wire(net)
    objects = [layers.get(p.name, FakeLayer()) for p in net.layer]
    weights = [losses.get(p.name, [0.0] * len(p.top)) for p in net.layer]
    p = plan_backward(net, wiring, objects, weights)
    return {q.name: (run, down) for q, run, down in zip(net.layer, p.layers, p.bottoms)}


CHAIN = (
    layer("in", tops="x t") + layer("b", "x", "y") + layer("c", "y", "z") + layer("l", "z t", "e")
)


def test_gradients_flow_from_the_loss_to_the_first_learning_layer():
    p = plan(CHAIN, {"c": FakeLayer(1)}, {"l": [1.0]})
    assert p == {
        "in": (False, []),
        "b": (False, [False]),
        "c": (True, [False]),
        "l": (True, [True, False]),
    }
    p = plan(CHAIN, {"b": FakeLayer(2), "c": FakeLayer(1)}, {"l": [1.0]})
    assert p["b"] == (True, [False]) and p["c"] == (True, [True])


def test_without_a_loss_nothing_runs():
    p = plan(CHAIN, {"b": FakeLayer(2), "c": FakeLayer(1)}, {})
    assert not any(run or any(down) for run, down in p.values())


def test_frozen_parameters_do_not_learn():
    frozen = CHAIN.replace('name: "c"', 'name: "c" param { lr_mult: 0 }')
    p = plan(frozen, {"c": FakeLayer(1)}, {"l": [1.0]})
    assert not any(run for run, _ in p.values())
    # the second parameter has no entry and learns
    p = plan(frozen, {"c": FakeLayer(2)}, {"l": [1.0]})
    assert p["c"] == (True, [False])


def test_a_branch_that_reaches_no_loss_is_left_out():
    text = CHAIN + layer("side", "y", "s") + layer("acc", "s", "a")
    p = plan(text, {"b": FakeLayer(1), "side": FakeLayer(1)}, {"l": [1.0]})
    assert p["side"] == (False, [False]) and p["acc"] == (False, [False])
    assert p["b"] == (True, [False]) and p["y_b_0_split"] == (True, [True])


def test_propagate_down_false_stops_the_gradient():
    text = CHAIN.replace('name: "c"', 'name: "c" propagate_down: false')
    p = plan(text, {"b": FakeLayer(1), "c": FakeLayer(1)}, {"l": [1.0]})
    assert p["c"] == (True, [False]) and p["b"] == (False, [False])


def test_propagate_down_false_in_one_of_two_branches():
    text = (
        layer("in", tops="x")
        + layer("b", "x", "y")
        + layer("c", "y", "u", "propagate_down: false")
        + layer("d", "y", "v")
        + layer("l", "u v", "e")
    )
    p = plan(text, {"b": FakeLayer(1), "c": FakeLayer(1)}, {"l": [1.0]})
    assert p["c"] == (True, [False]) and p["d"] == (True, [True]) and p["b"] == (True, [False])


def test_propagate_down_true_asks_for_a_gradient_nobody_needs():
    text = CHAIN.replace('name: "c"', 'name: "c" propagate_down: true')
    p = plan(text, {"c": FakeLayer(1)}, {"l": [1.0]})
    assert p["c"] == (True, [True]) and p["b"] == (False, [False])


@pytest.mark.parametrize("given", ["propagate_down: true", "propagate_down: true " * 3])
def test_propagate_down_is_given_for_all_bottoms_or_none(given):
    text = CHAIN.replace('name: "l"', f'name: "l" {given}')
    with pytest.raises(LayerError, match=r"layer 'l' .*each of 2 bottoms"):
        plan(text, {}, {"l": [1.0]})


def test_force_backward_reaches_all_but_labels():
    layers = {"l": FakeLayer(0, (1,))}
    p = plan("force_backward: true " + CHAIN, layers, {})
    assert p == {
        "in": (True, []),
        "b": (True, [True]),
        "c": (True, [True]),
        "l": (True, [True, False]),
    }


def test_force_backward_overrides_propagate_down_false():
    text = "force_backward: true " + CHAIN.replace('name: "c"', 'name: "c" propagate_down: false')
    assert plan(text, {}, {"l": [1.0]})["c"] == (True, [True])


def test_a_layer_without_tops_is_left_out():
    text = layer("in", tops="x") + layer("b", "x", "y z") + layer("l", "y", "e") + layer("s", "z")
    p = plan(text, {"b": FakeLayer(1)}, {"l": [1.0]})
    assert p["s"] == (False, [False]) and p["b"] == (True, [False])
