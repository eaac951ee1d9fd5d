"""EuclideanLoss."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 2, 3), (2, 6)), ((5,), (5, 1))])
def test_values_and_gradients(shapes):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    layer, bottom, top = make_layer('type: "EuclideanLoss"', [a, b])
    layer.forward(bottom, top)
    expected = ((a.ravel() - b.ravel()) ** 2).sum() / (2 * len(a))
    assert top[0].array == pytest.approx(expected, rel=1e-12)
    check_gradients('type: "EuclideanLoss"', [a, b])


def test_only_wanted_gradients_are_assigned():
    layer, bottom, top = make_layer('type: "EuclideanLoss"', [np.ones((1, 2)), np.zeros((1, 2))])
    layer.forward(bottom, top)
    top[0].grad[...] = 2
    layer.backward(top, [False, True], bottom)
    assert not bottom[0].has_grad
    np.testing.assert_array_equal(bottom[1].grad, [[-2, -2]])


def test_errors():
    with pytest.raises(LayerError, match=r"'layer' \(EuclideanLoss\).*as many elements.*\(2, 4\)"):
        make_layer('type: "EuclideanLoss"', [np.zeros((2, 3)), np.zeros((2, 4))])
