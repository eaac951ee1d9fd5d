"""Which tops are losses, with which weights, and how they add up."""

import numpy as np
import pytest
from small_nets import LEARNER, build, inputs, ip, layer, randomise


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
