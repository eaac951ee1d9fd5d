"""What all layers must do alike, whatever they compute."""

import numpy as np
import precision
import pytest
from every_layer import CASES, matrix

from demitasse.engine.context import Context
from demitasse.engine.gradient_check import make_layer
from demitasse.engine.layer import layer_class, layer_types
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
# What has no case: the layers that share memory, have data of their own, or choose boxes.
OTHERS = {
    "AnchorTarget", "Data", "DummyData", "Flatten", "HDF5Data", "HDF5Output", "ImageData", "Input",
    "MemoryData", "Proposal", "ProposalTarget", "Python", "Reshape", "RoIData", "WindowData",
}  # fmt: skip
TOPS = {"LSTMUnit": 2}  # what it takes
BACKWARD = [name for name, case in CASES.items() if case.differentiable]
IN_PLACE = [
    "BatchNorm", "BatchNorm global", "MVN", "MVN across", "Scale", "Scale by a bottom", "Bias",
    "Bias by a bottom", "Dropout", "Dropout unscaled", "Softmax", "Eltwise SUM", "Eltwise PROD",
    "Eltwise PROD unstable", "Eltwise MAX", "AbsVal", "BNLL", "Clip", "ELU", "Exp", "Log", "Power",
    "Power 0", "PReLU", "PReLU shared", "ReLU", "Sigmoid", "Swish", "TanH",
]  # fmt: skip


def make(name, arrays=None, **options):
    """A layer of a case, with the tops' gradients to come from `slopes`."""
    case = CASES[name]
    arrays = case.arrays() if arrays is None else arrays
    return make_layer(case.text, arrays, num_tops=case.tops, **options)


def forward(layer, bottom, top):
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    return [t.array.copy() for t in top]


def backward(layer, bottom, top, wanted):
    """Run backward from fixed slopes; returns the gradients of bottoms and of parameters."""
    rng = np.random.default_rng(9)
    for t in top:
        t.grad[...] = rng.normal(size=t.shape)
    propagate = [j in wanted for j in range(len(bottom))]
    layer.backward(top, propagate, bottom)
    return [bottom[j].grad.copy() for j in wanted], [b.grad.copy() for b in layer.blobs]


def test_every_type_has_a_case():
    have = {layer_class(t).type_name for t in layer_types() if any(t in n for n in CASES)}
    assert have | OTHERS >= set(layer_types()) - {"Test"}


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("name", BACKWARD)
def test_each_gradient_alone_is_that_of_all_together(name, phase):
    case = CASES[name]
    layer, bottom, top = make(name, phase=phase)
    forward(layer, bottom, top)
    together, parameters = backward(layer, bottom, top, case.differentiable)
    for expected, j in zip(together, case.differentiable):
        layer, bottom, top = make(name, phase=phase)
        for blob in bottom:
            blob.grad[...] = 7
        forward(layer, bottom, top)
        (alone,), _ = backward(layer, bottom, top, [j])
        np.testing.assert_array_equal(alone, expected)
        # LSTMUnit, as in Caffe, writes the gates' gradient in any case.
        if name != "LSTMUnit":
            assert all((b.grad == 7).all() for i, b in enumerate(bottom) if i != j)
    for k, expected in enumerate(parameters):
        layer, bottom, top = make(name, phase=phase)
        layer.param_propagate_down[:] = [i == k for i in range(len(parameters))]
        forward(layer, bottom, top)
        _, alone = backward(layer, bottom, top, [])
        np.testing.assert_array_equal(alone[k], expected)
        assert not any(a.any() for i, a in enumerate(alone) if i != k)


@pytest.mark.parametrize("name", BACKWARD)
def test_bottom_gradients_are_assigned_and_parameters_accumulate(name):
    case = CASES[name]
    layer, bottom, top = make(name)
    forward(layer, bottom, top)
    for j in case.differentiable:
        bottom[j].grad[...] = np.nan
    first, parameters = backward(layer, bottom, top, case.differentiable)
    second, doubled = backward(layer, bottom, top, case.differentiable)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(parameters, doubled):
        np.testing.assert_allclose(b, 2 * a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.constant])
def test_gradients_of_constants_may_be_asked_for(name):
    case = CASES[name]
    layer, bottom, top = make(name)
    forward(layer, bottom, top)
    for j in case.constant:
        bottom[j].grad[...] = 7
    gradients, _ = backward(layer, bottom, top, case.constant)
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("name", CASES)
def test_forward_again_gives_the_same_and_leaves_the_bottoms(name, phase):
    layer, bottom, top = make(name, phase=phase)
    given = [b.array.copy() for b in bottom]
    first = forward(layer, bottom, top)
    for state in layer.state_blobs:  # recurrent layers go on from the last step
        state.array[...] = 0
    second = forward(layer, bottom, top)
    for a, b in zip(first + given, second + [b.array for b in bottom]):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_gives_what_a_top_of_its_own_does(name, phase):
    case = CASES[name]
    results = []
    for in_place in (False, True):
        layer, bottom, top = make(name, phase=phase, in_place=in_place)
        y = forward(layer, bottom, top)
        results.append((y, *backward(layer, bottom, top, case.differentiable)))
    for apart, within in zip(*results):
        for a, b in zip(apart, within):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def grow(bottom, arrays):
    for blob, values in zip(bottom, arrays):
        blob.reshape(*values.shape)
        blob.array[...] = values


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith(("LSTM", "RNN", "Param"))])
def test_other_batch_sizes_give_what_a_new_layer_does(name):
    case = CASES[name]
    batches = [5, 2, 0, 4] if name != "BatchReindex" else [5, 3, 4]
    layer, bottom, top = make(name)
    for seed, batch in enumerate(batches):
        arrays = case.arrays(seed, batch)
        grow(bottom, arrays)
        got = forward(layer, bottom, top)
        gradients, _ = backward(layer, bottom, top, case.differentiable)
        if not batch:
            continue
        new, new_bottom, new_top = make(name, arrays)
        for mine, theirs in zip(new.blobs, layer.blobs):
            if "BatchNorm" not in name:
                mine.array[...] = theirs.array
        new.reshape(new_bottom, new_top)
        for expected, y in zip(forward(new, new_bottom, new_top), got):
            np.testing.assert_array_equal(y, expected)
        expected, _ = backward(new, new_bottom, new_top, case.differentiable)
        for a, b in zip(gradients, expected):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.bottoms])
def test_empty_batches(name):
    kinds = [kind for kind, _ in CASES[name].bottoms]
    if name.startswith(("LSTM", "RNN")):
        return  # their first axis is time, of which there must be some
    arrays = CASES[name].arrays(batch=0)
    layer, bottom, top = make(name, arrays, dtype=np.float32)
    tops = forward(layer, bottom, top)
    assert all(np.isfinite(t).all() for t in tops)
    backward(layer, bottom, top, CASES[name].differentiable)
    assert all(np.isfinite(b.grad).all() for b in layer.blobs)
    assert all(b.shape[0] == 0 for b, kind in zip(bottom, kinds) if kind is not matrix)


def watched_net(name):
    """The last node of a float32 net of a case's layer, on a device that notices float64."""
    case, text = CASES[name], ""
    for j, values in enumerate(case.arrays()):
        dims = " ".join(f"dim: {d}" for d in values.shape)
        text += f'layer {{ type: "Input" top: "x{j}" input_param {{ shape {{ {dims} }} }} }}\n'
    bottoms = " ".join(f'bottom: "x{j}"' for j in range(len(case.bottoms)))
    if "top:" not in case.text and "Silence" not in name:
        bottoms += " " + " ".join(f'top: "y{k}"' for k in range(case.tops or TOPS.get(name, 1)))
    text += f'layer {{ name: "l" {case.text} {bottoms} }}'
    param = parse_text(text, caffe_pb2.NetParameter)
    net = Net(param, TRAIN, context=Context(1), device=precision.WatchedDevice())
    for blob, values in zip(net.blob_list, case.arrays()):
        blob.set_data(values)
    return net.nodes[-1]


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    node = watched_net(name)
    layer, bottom, top = node.layer, node.bottoms, node.tops
    layer.needs_backward = True
    layer.param_propagate_down[:] = [True] * len(layer.blobs)
    precision.seen.clear()
    for _ in range(2):
        forward(layer, bottom, top)
        for t in top:
            t.grad[...] = 0.5
        layer.backward(top, [j in CASES[name].differentiable for j in range(len(bottom))], bottom)
    assert not precision.seen
    arrays = [v for v in vars(layer).values() if isinstance(v, np.ndarray) and v.size > 1]
    assert all(v.dtype != np.float64 for v in arrays)


def test_double_precision_is_noticed():
    x = precision.WatchedDevice().zeros(20, "float32")
    precision.seen.clear()
    assert (x * 2.5).dtype != np.float64 and not precision.seen
    x * np.float64(2.5)
    x += np.ones(20)
    assert precision.seen == [("multiply", (20,)), ("add", (20,))]
