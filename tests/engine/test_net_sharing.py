"""Parameters of one name, which layers of a net share."""

import numpy as np
import pytest
from small_nets import TWO, build, inputs, ip, randomise

from demitasse.engine.errors import LayerError


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
