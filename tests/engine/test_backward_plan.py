"""Which layers run backward, against the rules of Caffe's Net::Init written out by blob name."""

from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

FLAGS = ("true", "false")


def input_layer(count):
    tops = " ".join(f'top: "b{k}"' for k in range(count))
    return (
        f'layer {{ name: "in" type: "Input" {tops} input_param {{ shape {{ dim: 2 dim: 3 }} }} }}'
    )


@st.composite
def nets(draw):
    """The text of a net of random layers on blobs (2, 3)."""
    blobs = [f"b{k}" for k in range(draw(st.integers(1, 3)))]
    free = set(blobs)  # consumed by nobody yet: what may be computed in place
    text = [input_layer(len(blobs))]
    if draw(st.booleans()):
        text.append("force_backward: true")
    for i in range(draw(st.integers(1, 8))):
        kind = draw(
            st.sampled_from(["InnerProduct", "ReLU", "Eltwise", "EuclideanLoss", "Silence"])
        )
        count = 2 if kind in ("Eltwise", "EuclideanLoss") else 1
        bottoms = [draw(st.sampled_from(blobs)) for _ in range(count)]
        more = " ".join(f'bottom: "{b}"' for b in bottoms)
        if draw(st.integers(0, 3)) == 0:
            flags = draw(st.lists(st.sampled_from(FLAGS), min_size=count, max_size=count))
            more += "".join(f" propagate_down: {flag}" for flag in flags)
        in_place = kind == "ReLU" and bottoms[0] in free and draw(st.booleans())
        free -= set(bottoms)
        top = bottoms[0] if in_place else f"t{i}"
        if kind != "Silence":
            more += f' top: "{top}"'
        if kind == "InnerProduct":
            rates = [draw(st.sampled_from(["lr_mult: 0", ""])) for _ in range(2)]
            more += "".join(f" param {{ {rate} }}" for rate in rates)
            more += " inner_product_param { num_output: 3 }"
        if kind in ("InnerProduct", "ReLU") and not in_place and draw(st.integers(0, 3)) == 0:
            more += " loss_weight: 2"
        text.append(f'layer {{ name: "l{i}" type: "{kind}" {more} }}')
        if kind in ("InnerProduct", "ReLU", "Eltwise"):
            if "loss_weight" not in more:  # which counts as a consumer
                free.add(top)
            blobs += [] if in_place else [top]
    return "\n".join(text)


def expected_plan(net, force):
    """{layer index: (runs backward, to which bottoms, which parameters)} by Caffe's rules."""
    names = net.blob_names
    layers, needs = [], dict.fromkeys(names, False)
    for node in net.nodes:
        bottoms = [names[b] for b in node.bottom_ids]
        tops = [names[t] for t in node.top_ids]
        rates = [p.lr_mult for p in node.param.param] + [1] * 9
        learns = [rates[k] != 0 for k in range(len(node.layer.blobs))]
        need = any(learns) or any(needs[b] for b in bottoms)
        propagate = list(node.param.propagate_down) or [needs[b] for b in bottoms]
        if need:
            needs.update(dict.fromkeys(tops, True))
        layers.append([need, propagate, learns, bottoms, tops, node])
    under_loss, skipped = set(), set()
    for layer in reversed(layers):
        need, propagate, _, bottoms, tops, node = layer
        contributes = any(w != 0 for w in node.loss_weights) or any(t in under_loss for t in tops)
        if need and all(t in skipped for t in tops):
            layer[0], propagate = False, [False] * len(bottoms)
        if contributes:
            under_loss.update(bottoms)
        else:
            layer[0], propagate = False, [False] * len(bottoms)
        skipped.update(b for b, p in zip(bottoms, propagate) if not p)
        layer[1] = propagate
    for layer in layers if force else ():  # none of the layers here has a bottom that is exempt
        layer[:3] = True, [True] * len(layer[1]), [True] * len(layer[2])
    return [tuple(layer[:3]) for layer in layers]


@settings(deadline=None, max_examples=150)
@given(nets())
def test_plan_agrees_with_caffes_rules(text):
    net = Net(parse_text(text, caffe_pb2.NetParameter), caffe_pb2.TRAIN)
    plan = [
        (n.needs_backward, list(n.propagate_down), list(n.layer.param_propagate_down))
        for n in net.nodes
    ]
    assert plan == expected_plan(net, "force_backward" in text)
    net.forward()
    net.backward()
