"""ContrastiveLoss."""

import numpy as np
import pytest

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(margin=1.0, legacy=False):
    return (
        f'type: "ContrastiveLoss" contrastive_loss_param {{ margin: {margin} '
        f"legacy_version: {str(legacy).lower()} }}"
    )


def oracle(a, b, labels, margin, legacy):
    total = 0
    for x, y, label in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), labels.ravel()):
        squared = ((x - y) ** 2).sum()
        if int(label):
            total += squared
        elif legacy:
            total += max(0, margin - squared)
        else:
            total += max(0, margin - squared**0.5) ** 2
    return total / (2 * len(a))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("margin", [0.5, 3])
@pytest.mark.parametrize("label_shape", [(6,), (6, 1, 1, 1)])
def test_values_and_gradients(legacy, margin, label_shape):
    a, b = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    b[:2] = a[:2] + 0.2 * b[:2]  # within any margin
    labels = np.array([0, 1, 1, 0, 0.9, 2]).reshape(label_shape)
    layer, bottom, top = make_layer(text(margin, legacy), [a, b, labels])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(a, b, labels, margin, legacy), rel=1e-12)
    # The tolerance covers the 1e-4 that Caffe adds to the distance in the gradient.
    check_gradients(
        text(margin, legacy), [a, b, labels], check_bottoms=[0, 1],
        tolerance=1e-6 if legacy else 1e-3,
    )  # fmt: skip


def test_the_gradient_divides_by_the_distance_plus_a_ten_thousandth():
    layer, bottom, top = make_layer(text(1), [[[0.5, 0]], [[0.0, 0]], [0]])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True, True, False], bottom)
    slope = -0.5 * 0.5 / (0.5 + 1e-4)
    np.testing.assert_allclose(bottom[0].grad, [[slope, 0]], rtol=1e-14)
    np.testing.assert_allclose(bottom[1].grad, [[-slope, 0]], rtol=1e-14)


@pytest.mark.parametrize("legacy", [False, True])
def test_equal_features(legacy):
    layer, bottom, top = make_layer(
        text(1, legacy), [np.ones((2, 3)), np.ones((2, 3)), [0, 1]], dtype=np.float32
    )
    layer.forward(bottom, top)
    assert top[0].array == 0.25
    top[0].grad[...] = 1
    bottom[2].grad[...] = np.nan
    layer.backward(top, [True, True, True], bottom)
    assert not bottom[0].grad.any() and not bottom[2].grad.any()
    assert bottom[0].grad.dtype == np.float32


def test_errors():
    where = r"'layer' \(ContrastiveLoss\).*"
    with pytest.raises(LayerError, match=where + r"as many elements in bottom 1.*\(2, 4\)"):
        make_layer(text(), [np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2)])
    with pytest.raises(LayerError, match=where + r"each of the 2 pairs.*found shape \(3,\)"):
        make_layer(text(), [np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(3)])
