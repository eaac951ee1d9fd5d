"""What the loss layers share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.layers import loss
from demitasse.layers.loss import class_indices

LABELLED = ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"]
# type -> number of bottoms of shape (4, 3), then those of shape (4,)
LOSSES = dict.fromkeys(LABELLED, (1, 1)) | {
    "SigmoidCrossEntropyLoss": (2, 0), "EuclideanLoss": (2, 0), "SmoothL1Loss": (2, 0),
    "ContrastiveLoss": (2, 1),
}  # fmt: skip


def blobs(name, items=4):
    wide, narrow = LOSSES[name]
    return [np.full((items, 3), 0.3)] * wide + [np.zeros(items)] * narrow


@pytest.mark.parametrize(
    "text, default, expected",
    [
        ("", loss.VALID, loss.VALID),
        ("", loss.BATCH_SIZE, loss.BATCH_SIZE),
        ("normalize: true", loss.BATCH_SIZE, loss.VALID),
        ("normalize: false", loss.VALID, loss.BATCH_SIZE),
        ("normalization: NONE normalize: true", loss.VALID, loss.NONE),
        ("normalization: FULL", loss.BATCH_SIZE, loss.FULL),
    ],
)
def test_normalization(text, default, expected):
    param = parse_text(text, caffe_pb2.LossParameter, "test")
    assert loss.normalization(param, default) == expected


def test_divisor_is_at_least_1():
    counts = {"batch": 2, "full": 12, "valid": 5}
    modes = (loss.FULL, loss.VALID, loss.BATCH_SIZE, loss.NONE)
    assert [loss.divisor(mode, **counts) for mode in modes] == [12, 5, 2, 1]
    assert loss.divisor(loss.VALID, batch=2, full=12, valid=0) == 1


def a_layer():
    return make_layer('name: "here" type: "SoftmaxWithLoss"', blobs("SoftmaxWithLoss"))[0]


@pytest.mark.parametrize("label", [5, 7, -1, -3, np.nan, np.inf, -np.inf, 1e30])
def test_a_wrong_label_is_named_with_its_index(label):
    labels = np.zeros((2, 3), np.float32)
    labels[1, 2] = label
    with pytest.raises(LayerError) as caught:
        class_indices(a_layer(), labels, 5, ignored_label=-2)
    message = str(caught.value)
    assert message.startswith("layer 'here' (SoftmaxWithLoss): expected labels from 0 to 4")
    assert f"label {label:g} at index (1, 2)" in message
    assert "or -2, which is ignored" in message


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-2.75, 4.75, width=32), max_size=8), st.sampled_from([None, -1, 3, 255]))
def test_fractions_are_cut_off_as_in_c(labels, ignored_label):
    expected = [int(v) for v in labels]
    array = np.array(labels, np.float32)
    if any(v < 0 and v != ignored_label for v in expected):
        with pytest.raises(LayerError):
            class_indices(a_layer(), array, 5, ignored_label)
        return
    indices, ignored = class_indices(a_layer(), array, 5, ignored_label)
    assert indices.dtype == np.intp
    assert indices.tolist() == [0 if v == ignored_label else v for v in expected]
    if ignored is None:
        assert ignored_label not in expected
    else:
        assert ignored.tolist() == [v == ignored_label for v in expected]


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_has_no_loss(name):
    layer, bottom, top = make_layer(f'type: "{name}"', blobs(name, 0), dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].shape == () and top[0].array == 0
    layer.backward(top, [True] + [False] * (len(bottom) - 1), bottom)


@pytest.mark.parametrize("name", LOSSES)
def test_unequal_batches_are_refused(name):
    bottom = blobs(name)
    bottom[1] = bottom[1][:3]
    with pytest.raises(LayerError, match=rf"'layer' \({name}\).*first dimension.*\(3"):
        make_layer(f'type: "{name}"', bottom)


@pytest.mark.parametrize("name", LABELLED)
def test_as_many_labels_as_predictions(name):
    with pytest.raises(LayerError, match=rf"\({name}\).*4 (labels|items).*of shape \(4, 2\)"):
        make_layer(f'type: "{name}"', [np.zeros((4, 3)), np.zeros((4, 2))])


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_checked_and_have_no_gradient(name):
    layer, bottom, top = make_layer(f'type: "{name}"', blobs(name))
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match=r"bottom 1 .the labels.*propagate_down: true prop"):
        layer.backward(top, [True, True], bottom)
    bottom[1].array[2] = 3
    with pytest.raises(LayerError, match=rf"'layer' \({name}\).*label 3 at index \(2,\)"):
        layer.forward(bottom, top)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("weight", [None, 0.5])
def test_in_a_net_the_weight_scales_loss_and_gradient(name, weight):
    net, values = net_of(name, weight)
    counts = weight if weight is not None else 0 if name == "SmoothL1Loss" else 1
    value = net.forward()
    layer, bottom, top = make_layer(f'type: "{name}"', values)
    layer.forward(bottom, top)
    assert value == pytest.approx(counts * top[0].array, rel=1e-5)
    net.backward()
    top[0].grad[...] = counts
    layer.backward(top, [True] + [False] * (len(bottom) - 1), bottom)
    np.testing.assert_allclose(net.blobs["b0"].diff, bottom[0].grad, rtol=1e-4)


def net_of(name, weight):
    """A net of one loss with its top left out, unless a weight is to be written."""
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.1, 0.9, v.shape) if v.ndim == 2 else v for v in blobs(name)]
    inputs = "".join(
        f'layer {{ name: "b{k}" type: "Input" top: "b{k}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {d}' for d in v.shape)} }} }} }}\n"
        for k, v in enumerate(values)
    )
    bottoms = " ".join(f'bottom: "b{k}"' for k in range(len(values)))
    tail = "" if weight is None else f'top: "loss" loss_weight: {weight}'
    text = f'force_backward: true {inputs} layer {{ name: "l" type: "{name}" {bottoms} {tail} }}'
    net = Net(parse_text(text, caffe_pb2.NetParameter, "net"))
    for k, v in enumerate(values):
        net.blobs[f"b{k}"].data[...] = v
    return net, values
