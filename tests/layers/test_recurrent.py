import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe
from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

TYPES = {"LSTM": 2, "RNN": 1}  # type -> number of hidden states
WIDTH = 2


def text(kind, expose=False, width=WIDTH):
    return (
        f'type: "{kind}" recurrent_param {{ num_output: {width} expose_hidden: {int(expose)}'
        ' weight_filler { type: "uniform" min: -0.7 max: 0.7 }'
        ' bias_filler { type: "uniform" min: -0.5 max: 0.5 } }'
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_steps(kind, params, x, cont, static=None, states=None):
    """The layer stream by stream and step by step, as its formulas are written."""
    steps, streams = cont.shape
    params = list(params)
    w_x, b = params[:2]
    w_s = params.pop(2) if static is not None else None
    w_h = params[2]
    states = np.zeros((TYPES[kind], streams, WIDTH)) if states is None else np.array(states)
    y = np.zeros((steps, streams, WIDTH))
    for n in range(streams):
        for t in range(steps):
            pre = w_x @ x[t, n].ravel() + b + w_h @ (cont[t, n] * states[0, n])
            if static is not None:
                pre = pre + w_s @ static[n].ravel()
            if kind == "LSTM":
                i, f, o, g = np.split(pre, 4)
                states[1, n] = cont[t, n] * sigmoid(f) * states[1, n] + sigmoid(i) * np.tanh(g)
                states[0, n] = y[t, n] = sigmoid(o) * np.tanh(states[1, n])
            else:
                states[0, n] = np.tanh(pre)
                y[t, n] = np.tanh(params[3] @ states[0, n] + params[4])
    return y, states


def draw(steps, streams, static, seed=0, cont=None):
    rng = np.random.default_rng(seed)
    cont = rng.integers(0, 2, (steps, streams)) if cont is None else np.array(cont)
    bottoms = [rng.normal(size=(steps, streams, 2, 1)), cont.astype(float)]
    return bottoms + ([rng.normal(size=(streams, 3))] if static else [])


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(list(TYPES)), st.integers(1, 4), st.integers(1, 3), st.booleans(),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_values_are_those_of_the_formulas(kind, steps, streams, static, expose, seed):
    bottoms = draw(steps, streams, static, seed)
    given_states = np.random.default_rng(seed).normal(size=(TYPES[kind], streams, WIDTH))
    hidden = [s[None] for s in given_states] if expose else []
    layer, bottom, top = make_layer(text(kind, expose), bottoms + hidden)
    layer.forward(bottom, top)
    params = [b.array for b in layer.blobs]
    y, states = by_steps(
        kind, params, *bottoms[:2], bottoms[2] if static else None, given_states if expose else None
    )
    np.testing.assert_allclose(top[0].array, y, atol=1e-12)
    kept = top[1:] if expose else layer.state_blobs
    assert len(kept) == TYPES[kind]
    for blob, expected in zip(kept, states):
        np.testing.assert_allclose(blob.array, expected[None], atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(
    "cont", [[[0, 0], [1, 1], [1, 1]], [[0, 0], [0, 1], [1, 0]], [[0, 0], [0, 0], [0, 0]]]
)
def test_gradients(kind, static, cont):
    bottoms = draw(3, 2, static, cont=cont)
    check_gradients(text(kind), bottoms, check_bottoms=[0, 2] if static else [0])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("static", [False, True])
def test_gradients_with_exposed_states(kind, static):
    """Streams that go on from states given from outside; those get no gradient, as in Caffe."""
    bottoms = draw(3, 2, static, cont=[[1, 1], [1, 0], [1, 1]])
    rng = np.random.default_rng(5)
    hidden = [rng.normal(size=(1, 2, WIDTH)) for _ in range(TYPES[kind])]
    check_gradients(
        text(kind, expose=True), bottoms + hidden, check_bottoms=[0, 2] if static else [0],
        check_tops=[0],
    )  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_exposed_states_get_zero_gradient_and_give_none(kind):
    bottoms = draw(2, 2, False, cont=[[1, 1], [1, 1]])
    hidden = [np.ones((1, 2, WIDTH))] * TYPES[kind]
    layer, bottom, top = make_layer(text(kind, expose=True), bottoms + hidden)
    layer.forward(bottom, top)
    for blob in top[1:] + bottom[2:]:
        blob.grad[...] = 7
    layer.backward(top, [True, False] + [True] * TYPES[kind], bottom)
    assert all((b.grad == 0).all() for b in bottom)  # also of x: the gradient of y is zero
    assert layer.state_blobs == ()


@pytest.mark.parametrize("kind", TYPES)
def test_the_state_goes_on_over_passes(kind):
    x, cont = draw(6, 2, False, cont=[[0, 0], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1]])
    whole, bottom, top = make_layer(text(kind), [x, cont])
    whole.forward(bottom, top)
    expected = top[0].array.copy()
    half, bottom, top = make_layer(text(kind), [x[:3], cont[:3]])
    for part in (slice(0, 3), slice(3, 6)):
        bottom[0].set_data(x[part])
        bottom[1].set_data(cont[part])
        half.reshape(bottom, top)
        half.forward(bottom, top)
        np.testing.assert_allclose(top[0].array, expected[part], atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_state_blobs_are_all_that_a_resumed_run_needs(kind):
    x, cont = draw(4, 2, False, cont=np.ones((4, 2)))
    first, bottom, top = make_layer(text(kind), [x, cont], dtype=np.float32)
    first.forward(bottom, top)
    saved = [b.array.copy() for b in first.state_blobs]
    first.forward(bottom, top)
    expected = top[0].array.copy()
    second, bottom, top = make_layer(text(kind), [x, cont], dtype=np.float32)
    for blob, values in zip(second.state_blobs, saved):
        blob.set_data(values)
    second.forward(bottom, top)
    assert (top[0].array == expected).all()


@pytest.mark.parametrize("kind", TYPES)
def test_a_float32_layer_stays_float32(kind):
    layer, bottom, top = make_layer(text(kind), draw(2, 2, True), dtype=np.float32)
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True, False, True], bottom)
    blobs = [*bottom, *top, *layer.blobs, *layer.state_blobs, layer._gates, layer._h_before]
    assert {b.array.dtype for b in blobs} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", TYPES)
def test_other_numbers_of_streams_and_steps_at_run_time(kind):
    layer, bottom, top = make_layer(text(kind), draw(2, 2, True))
    params = [b.array for b in layer.blobs]
    for steps, streams in ((4, 3), (1, 1), (3, 0)):
        arrays = draw(steps, streams, True, cont=np.zeros((steps, streams)))
        for blob, values in zip(bottom, arrays):
            blob.reshape(*values.shape)
            blob.set_data(values)
        layer.reshape(bottom, top)
        layer.forward(bottom, top)
        layer.backward(top, [True, False, True], bottom)
        np.testing.assert_allclose(top[0].array, by_steps(kind, params, *arrays)[0], atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_parameters_are_in_caffes_order_and_shapes(kind):
    g = 4 if kind == "LSTM" else 1
    gates = [(g * WIDTH, 2), (g * WIDTH,), (g * WIDTH, WIDTH)]
    output = [] if kind == "LSTM" else [(WIDTH, WIDTH), (WIDTH,)]
    layer, _, _ = make_layer(text(kind), draw(2, 2, False))
    assert [b.shape for b in layer.blobs] == gates + output
    layer, _, _ = make_layer(text(kind), draw(2, 2, True))
    assert [b.shape for b in layer.blobs] == gates[:2] + [(g * WIDTH, 3)] + gates[2:] + output


@pytest.mark.parametrize("kind", TYPES)
def test_frozen_parameters_get_no_gradient(kind):
    layer, bottom, top = make_layer(text(kind), draw(2, 2, True))
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.param_propagate_down[:] = [False] * len(layer.blobs)
    layer.backward(top, [True, False, False], bottom)
    assert not any(b.has_grad for b in layer.blobs)
    assert bottom[0].grad.any() and not bottom[2].has_grad


def broken(kind, bottoms, expose=False, width=WIDTH, match=""):
    with pytest.raises(LayerError, match=rf"layer 'layer' \({kind}\).*{match}"):
        make_layer(text(kind, expose, width), bottoms)


@pytest.mark.parametrize("kind", TYPES)
def test_bottoms_that_do_not_fit(kind):
    x, cont, static = draw(3, 2, True)
    broken(kind, [x[:, :, 0, 0], cont], match="steps, streams, ...")
    broken(kind, [x[:0], cont[:0]], match="1 step or more")
    broken(kind, [x, cont.T], match=r"cont, of shape \(3, 2\)")
    broken(kind, [x, cont[..., None]], match="cont")
    broken(kind, [x, cont, static[:1]], match="static input")
    broken(kind, [x, cont, static[:, 0]], match="static input")
    broken(kind, [x, cont], width=0, match="num_output of at least 1")
    hidden = [np.zeros((1, 2, WIDTH + 1))] * TYPES[kind]
    broken(kind, [x, cont, *hidden], expose=True, match=r"shape \(1, 2, 2\)")


@pytest.mark.parametrize("kind", TYPES)
def test_another_width_of_the_input_at_run_time(kind):
    layer, bottom, top = make_layer(text(kind), draw(2, 2, False))
    bottom[0].reshape(2, 2, 5)
    with pytest.raises(LayerError, match="expected 2 inputs from axis 2"):
        layer.reshape(bottom, top)


@pytest.mark.parametrize("kind", TYPES)
def test_no_gradient_of_the_indicators(kind):
    layer, bottom, top = make_layer(text(kind), draw(2, 2, False))
    layer.forward(bottom, top)
    with pytest.raises(LayerError, match="sequence indicators"):
        layer.backward(top, [True, True], bottom)


def test_a_resumed_training_run_goes_on_with_the_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(f"""
        layer {{ name: "d" type: "DummyData" top: "x" top: "cont" top: "t" dummy_data_param {{
          shape {{ dim: 3 dim: 2 dim: 4 }} shape {{ dim: 3 dim: 2 }}
          shape {{ dim: 3 dim: 2 dim: 2 }}
          data_filler {{ type: "gaussian" }} data_filler {{ type: "constant" value: 1 }}
          data_filler {{ type: "gaussian" }} }} }}
        layer {{ name: "l" bottom: "x" bottom: "cont" top: "y" {text("LSTM")} }}
        layer {{ name: "e" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "e" }}
        """)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 6 snapshot_prefix: "s"'
    )
    whole = caffe.get_solver("solver.prototxt")
    whole.step(3)
    whole.snapshot()
    resumed = caffe.get_solver("solver.prototxt")
    resumed.restore("s_iter_3.solverstate")
    for solver in (whole, resumed):
        solver.step(3)
    for a, b in zip(whole.net.params["l"], resumed.net.params["l"]):
        assert (a.data == b.data).all()
    state = whole.net.layers[1].state_blobs
    assert (
        state[0].data.any() and (state[0].data == resumed.net.layers[1].state_blobs[0].data).all()
    )


NET = """
force_backward: true
layer { name: "in" type: "Input" top: "x" top: "cont" top: "h" top: "c"
  input_param { shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 }
                shape { dim: 1 dim: 2 dim: 5 } shape { dim: 1 dim: 2 dim: 5 } } }
layer { name: "l" type: "%s" bottom: "x" bottom: "cont" %s top: "y" %s
  recurrent_param { num_output: 5 %s } }
"""


def build(kind, bottoms="", tops="", options=""):
    return Net(parse_text(NET % (kind, bottoms, tops, options), caffe_pb2.NetParameter, "net"), 1)


@pytest.mark.parametrize("kind, names", [("LSTM", ("h", "c")), ("RNN", ("h",))])
def test_counts_of_blobs_follow_expose_hidden(kind, names):
    bottoms = " ".join(f'bottom: "{n}"' for n in names)
    tops = " ".join(f'top: "{n}T"' for n in names)
    net = build(kind, bottoms, tops, "expose_hidden: true")
    net.forward()
    net.backward()
    with pytest.raises(LayerError, match="expected 1 top"):
        build(kind, "", tops)
    with pytest.raises(LayerError, match=f"at least {2 + len(names)} bottom"):
        build(kind, "", tops, "expose_hidden: true")
    with pytest.raises(LayerError, match="at most 3 bottom"):
        build(kind, 'bottom: "h" bottom: "c"')


def test_computing_in_place_is_refused():
    text = NET.replace('top: "y"', 'top: "x"') % ("RNN", "", "", "")
    with pytest.raises(LayerError, match=r"layer 'l' .*in place"):
        Net(parse_text(text, caffe_pb2.NetParameter, "net"), 1)


def test_debug_info_logs_each_step(caplog):
    net = build("LSTM", options="debug_info: true")
    with caplog.at_level(logging.INFO, "demitasse.net"):
        net.forward()
        net.backward()
    lines = [r.getMessage() for r in caplog.records]
    assert sum("[Forward] Layer l, step" in line for line in lines) == 3
    assert sum("[Backward] Layer l, step" in line for line in lines) == 3
