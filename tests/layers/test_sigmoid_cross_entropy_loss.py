"""SigmoidCrossEntropyLoss."""

import numpy as np
import pytest
from scipy import special

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer

rng = np.random.default_rng(0)


def text(rest=""):
    return f'type: "SigmoidCrossEntropyLoss" loss_param {{ {rest} }}'


def oracle(x, target, ignored=None):
    """The sum over what counts, and how much that is."""
    total = count = 0
    for v, t in zip(x.ravel(), target.ravel(), strict=True):
        if int(t) != ignored:
            total -= t * special.log_expit(v) + (1 - t) * special.log_expit(-v)
            count += 1
    return total, count


@pytest.mark.parametrize("mode", [None, "VALID", "FULL", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("ignored", [None, -1, 1, 0])
def test_values_and_gradients(mode, ignored):
    x = rng.standard_normal((3, 2, 2))
    target = rng.uniform(0, 1, x.shape)
    target.flat[::3] = [0, 1, 1, 0]
    if ignored == -1:
        target.flat[::4] = [-1, -1.5, -1]
    rest = f"normalization: {mode} " if mode else ""
    rest += f"ignore_label: {ignored}" if ignored is not None else ""
    layer, bottom, top = make_layer(text(rest), [x, target])
    layer.forward(bottom, top)
    total, valid = oracle(x, target, ignored)
    count = {None: 3, "VALID": valid, "FULL": 12, "BATCH_SIZE": 3, "NONE": 1}[mode]
    assert top[0].array == pytest.approx(total / max(1, count), rel=1e-12)
    check_gradients(text(rest), [x, target], check_bottoms=[0])


def test_fractions_are_ignored_with_their_whole_part():
    # int(0.5) is 0: with ignore_label 0 every target below 1 is passed over, as in Caffe.
    layer, bottom, top = make_layer(text("ignore_label: 0"), [np.ones((1, 2)), [[0.5, 1]]])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(-special.log_expit(1), rel=1e-12)


def test_large_scores_do_not_overflow():
    x, target = np.array([[1e4, -1e4, 1e4, -1e4]]), np.array([[1, 0, 0, 1]])
    layer, bottom, top = make_layer(text(), [x, target], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        layer.forward(bottom, top)
        top[0].grad[...] = 1
        layer.backward(top, [True, False], bottom)
    assert top[0].array == 2e4
    np.testing.assert_array_equal(bottom[0].grad, [[0, 0, 1, -1]])


def test_legacy_normalize_and_another_shape_of_targets():
    x, target = rng.standard_normal((2, 3)), rng.uniform(0, 1, (2, 3, 1))
    for value, count in (("true", 6), ("false", 2)):
        layer, bottom, top = make_layer(text(f"normalize: {value}"), [x, target])
        layer.forward(bottom, top)
        assert top[0].array == pytest.approx(oracle(x, target)[0] / count, rel=1e-12)


def test_errors():
    where = r"'layer' \(SigmoidCrossEntropyLoss\).*"
    with pytest.raises(LayerError, match=where + r"as many elements in bottom 1.*\(2, 4\)"):
        make_layer(text(), [np.zeros((2, 3)), np.zeros((2, 4))])
    layer, bottom, top = make_layer(text(), [np.zeros((2, 3)), np.zeros((2, 3))])
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match=where + "bottom 1 .the targets"):
        layer.backward(top, [True, True], bottom)
