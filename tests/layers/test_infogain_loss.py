"""InfogainLoss."""

import numpy as np
import pytest
from scipy import special

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.proto import caffe_pb2

rng = np.random.default_rng(0)


def text(loss="", infogain=""):
    return f'type: "InfogainLoss" loss_param {{ {loss} }} infogain_loss_param {{ {infogain} }}'


def write_matrix(path, values):
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(values.shape)
    blob.data.extend(values.ravel().tolist())
    path.write_bytes(blob.SerializeToString())


def oracle(scores, labels, matrix, axis, ignored=None):
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    losses = [
        -(matrix[int(label)] * special.log_softmax(row)).sum()
        for row, label in zip(rows, labels.reshape(-1), strict=True)
        if label != ignored
    ]
    return sum(losses), len(losses), len(rows)


@pytest.mark.parametrize("mode", ["VALID", "FULL", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("shape, axis", [((3, 4), 1), ((2, 3, 2), 1), ((2, 2, 3), -1)])
def test_values_and_gradients(mode, shape, axis):
    scores = rng.standard_normal(shape)
    classes, label_shape = shape[axis], np.delete(shape, axis)
    labels = rng.integers(0, classes, label_shape).astype(float)
    labels.flat[-1] = 1
    matrix = rng.uniform(-0.2, 1, (classes, classes))
    given = text(f"normalization: {mode} ignore_label: 1", f"axis: {axis}")
    layer, bottom, top = make_layer(given, [scores, labels, matrix])
    layer.forward(bottom, top)
    total, valid, full = oracle(scores, labels, matrix, axis, ignored=1)
    batch = int(np.prod(shape[: axis % len(shape)]))
    count = {"VALID": valid, "FULL": full, "BATCH_SIZE": batch, "NONE": 1}[mode]
    assert top[0].array == pytest.approx(total / max(1, count), rel=1e-12)
    check_gradients(given, [scores, labels, matrix], check_bottoms=[0])


def test_matrix_from_a_file(tmp_path):
    matrix = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    write_matrix(tmp_path / "H.binaryproto", matrix.reshape(1, 1, 3, 3))
    scores, labels = rng.standard_normal((4, 3)), np.array([0.0, 2, 1, 2])
    given = text(infogain=f'source: "{tmp_path / "H.binaryproto"}"')
    layer, bottom, top = make_layer(given, [scores, labels])
    layer.forward(bottom, top)
    assert top[0].array == pytest.approx(oracle(scores, labels, matrix, 1)[0] / 4, rel=1e-12)
    check_gradients(given, [scores, labels], check_bottoms=[0])


def test_with_the_identity_it_is_softmax_with_loss():
    scores, labels = rng.standard_normal((2, 3, 4)), rng.integers(0, 3, (2, 4))
    losses = []
    for given, more in ((text(), [np.eye(3)]), ('type: "SoftmaxWithLoss"', [])):
        layer, bottom, top = make_layer(given, [scores, labels, *more], num_tops=2)
        layer.forward(bottom, top)
        losses.append(top[0].array)
        np.testing.assert_allclose(top[1].array, special.softmax(scores, axis=1))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_the_matrix_may_change_between_passes():
    layer, bottom, top = make_layer(text(), [np.zeros((1, 2)), [0], np.eye(2)])
    layer.forward(bottom, top)
    once = float(top[0].array)
    bottom[2].array[...] *= 2
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    assert top[0].array == 2 * once


def test_errors(tmp_path):
    where = r"'layer' \(InfogainLoss\).*"
    scores = [np.zeros((2, 3)), np.zeros(2)]
    with pytest.raises(LayerError, match=where + "bottom 2 or infogain_loss_param.source"):
        make_layer(text(), scores)
    with pytest.raises(LayerError, match=where + r"3 x 3 elements for 3 classes.*\(2, 2\)"):
        make_layer(text(), [*scores, np.eye(2)])
    with pytest.raises(LayerError, match=where + "without normalize.*BATCH_SIZE"):
        make_layer(text("normalize: true"), [*scores, np.eye(3)])
    layer, bottom, top = make_layer(text(), [*scores, np.eye(3)])
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match=where + "the labels"):
        layer.backward(top, [True, True, False], bottom)
    with pytest.raises(LayerError, match=where + "the infogain matrix"):
        layer.backward(top, [True, False, True], bottom)
    with pytest.raises(LayerError, match=where + r"label 3 at index \(1,\)"):
        bottom[1].array[1] = 3
        layer.forward(bottom, top)
