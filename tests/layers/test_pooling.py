"""Pooling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import check_gradients, make_layer
from demitasse.engine.proto import caffe_pb2

rng = np.random.default_rng(0)
LOWEST = np.finfo(np.float32).min


def text(options):
    return f'type: "Pooling" pooling_param {{ {options} }}'


def distinct(shape):
    """Values that are all different, far enough for a step of the gradient check."""
    return rng.permutation(np.prod(shape)).reshape(shape) * 0.1 + 0.05


OPTIONS = {
    "k2 s2": "kernel_size: 2 stride: 2",
    "k3 s2 ceil": "kernel_size: 3 stride: 2",
    "k3 s2 floor": "kernel_size: 3 stride: 2 round_mode: FLOOR",
    "k3 s1 pad": "kernel_size: 3 pad: 1",
    "k3 s2 pad": "kernel_size: 3 stride: 2 pad: 2",
    "h and w": "kernel_h: 3 kernel_w: 1 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
    "gaps": "kernel_size: 1 stride: 3 round_mode: FLOOR",
    "empty windows": "kernel_size: 1 stride: 3",
    "global": "global_pooling: true",
    "wider than the image": "kernel_size: 5 stride: 2",
}


TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
# MAX of an empty window, -FLT_MAX, would swallow all differences: test_empty_windows_and_nan.
CASES = [("MAX", TRAIN, name) for name in OPTIONS if name != "empty windows"]
CASES += [("AVE", TRAIN, name) for name in OPTIONS]
# Caffe refuses padding here: test_errors.
CASES += [("STOCHASTIC", p, n) for p in (TRAIN, TEST) for n in OPTIONS if "pad" not in OPTIONS[n]]


@pytest.mark.parametrize("pool, phase, name", CASES)
def test_gradient(pool, phase, name):
    # Stochastic pooling in TRAIN moves to another element where a step crosses the drawn share.
    step = 1e-7 if pool == "STOCHASTIC" else 1e-5
    check_gradients(
        text(f"pool: {pool} {OPTIONS[name]}"), [distinct((2, 2, 5, 4))], phase=phase, step=step
    )


def oracle(x, pool, kernel, stride, pad, floor):
    """Caffe's rules by plain loops: the result; for MAX the winners, for AVE each window.

    A window is (begin, end, number of elements that count), -1 a winner that there is not.
    """
    size = x.shape[2:]
    rooms = [n + 2 * p - k for n, p, k in zip(size, pad, kernel)]
    out = [(r // s if floor else int(np.ceil(r / s))) + 1 for r, s in zip(rooms, stride)]
    if any(pad):
        out = [o - ((o - 1) * s >= n + p) for o, s, n, p in zip(out, stride, size, pad)]
    y, winners, seen = np.zeros((*x.shape[:2], *out)), np.full((*x.shape[:2], *out), -1), {}
    for n, c, i, j in np.ndindex(*y.shape):
        begin = np.array([i, j]) * stride - pad
        end = np.minimum(begin + kernel, np.array(size) + pad)
        length = np.prod(end - begin)
        begin, end = np.maximum(begin, 0), np.minimum(end, size)
        best, total = LOWEST, 0.0
        for h in range(begin[0], end[0]):
            for w in range(begin[1], end[1]):
                total += x[n, c, h, w]
                if x[n, c, h, w] > best:
                    best, winners[n, c, i, j] = x[n, c, h, w], h * size[1] + w
        empty = (end <= begin).any()
        y[n, c, i, j] = best if pool == "MAX" else 0 if empty else total / length
        seen[i, j] = begin, end, length
    return y, winners if pool == "MAX" else seen


def oracle_backward(dy, shape, pool, picked):
    """The gradient of x, by what `oracle` found."""
    dx = np.zeros(shape)
    for n, c, i, j in np.ndindex(*dy.shape):
        if pool == "AVE":
            begin, end, length = picked[i, j]
            dx[n, c, begin[0] : end[0], begin[1] : end[1]] += dy[n, c, i, j] / max(length, 1)
        elif picked[n, c, i, j] >= 0:
            dx[n, c].flat[picked[n, c, i, j]] += dy[n, c, i, j]
    return dx


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_agrees_with_loops(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    pair = lambda low, high: (draw(low, high), draw(low, high))  # noqa: E731
    kernel, stride = pair(1, 4), pair(1, 5)
    pad = tuple(draw(0, k - 1) for k in kernel)
    floor, pool = data.draw(st.booleans()), data.draw(st.sampled_from(["MAX", "AVE"]))
    # Rounding up, a window may be wider than the padded image by less than the stride.
    over = [0 if floor else s - 1 for s in stride]
    size = tuple(max(k - 2 * p - o, 1) + draw(0, 6) for k, p, o in zip(kernel, pad, over))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    # Few different values, so that there are ties.
    x = rng.integers(-3, 3, (draw(0, 2), draw(1, 3), *size)).astype(dtype)
    names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
    options = " ".join(f"{n}: {v}" for n, v in zip(names, kernel + stride + pad))
    options += f" pool: {pool} round_mode: {'FLOOR' if floor else 'CEIL'}"
    layer, bottom, top = make_layer(
        text(options), [x], dtype=dtype, num_tops=2 if pool == "MAX" else 1
    )
    layer.forward(bottom, top)
    expected, picked = oracle(x.astype(np.float64), pool, kernel, stride, pad, floor)
    assert top[0].shape == expected.shape
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(top[0].array, expected, rtol=tolerance, atol=tolerance)
    if pool == "MAX":
        np.testing.assert_array_equal(top[1].array, picked)
    top[0].grad[...] = dy = rng.standard_normal(top[0].shape).astype(dtype)
    bottom[0].grad[...] = np.nan
    layer.backward(top, [True], bottom)
    dx = oracle_backward(dy.astype(np.float64), x.shape, pool, picked)
    np.testing.assert_allclose(bottom[0].grad, dx, rtol=10 * tolerance, atol=10 * tolerance)


def test_empty_windows_and_nan():
    # With gaps, rounding up and no padding, the last windows lie outside of the image.
    x = np.ones((1, 1, 5, 5), np.float32)
    for pool, value in (("MAX", LOWEST), ("AVE", 0), ("STOCHASTIC", 0)):
        layer, bottom, top = make_layer(
            text(f"pool: {pool} kernel_size: 1 stride: 3"), [x], dtype=np.float32
        )
        layer.forward(bottom, top)
        assert top[0].array[0, 0, 0].tolist() == [1, 1, value]
        top[0].grad[...] = 1
        layer.backward(top, [True], bottom)
        assert bottom[0].grad.sum() == 4  # and nothing is written outside
    x[0, 0, 0, 0] = np.nan
    layer, bottom, top = make_layer(text("kernel_size: 1"), [x], dtype=np.float32, num_tops=2)
    layer.forward(bottom, top)
    assert top[0].array[0, 0, 0, 0] == LOWEST and top[1].array[0, 0, 0, 0] == -1


def test_stochastic_draws_in_proportion():
    x = np.tile(np.array([[1.0, 0.0], [2.0, 5.0]]), (4000, 1)).reshape(1, 4000, 2, 2)
    layer, bottom, top = make_layer(text("pool: STOCHASTIC kernel_size: 2"), [x])
    layer.forward(bottom, top)
    first = top[0].array.copy()
    values, counts = np.unique(first, return_counts=True)
    assert values.tolist() == [1, 2, 5]  # never the zero
    np.testing.assert_allclose(counts / 4000, np.array([1, 2, 5]) / 8, atol=0.03)
    layer.forward(bottom, top)
    np.testing.assert_array_equal(top[0].array, first)  # the same pass draws the same
    layer.context.passes += 1
    layer.forward(bottom, top)
    assert (top[0].array != first).any()


def test_stochastic_sends_the_gradient_to_what_it_drew():
    x = rng.random((2, 3, 7, 6)) + 0.1
    layer, bottom, top = make_layer(text("pool: STOCHASTIC kernel_size: 3 stride: 2"), [x])
    layer.forward(bottom, top)
    top[0].grad[...] = 1
    layer.backward(top, [True], bottom)
    assert bottom[0].grad.sum() == top[0].count
    picked = bottom[0].grad > 0
    assert set(top[0].array.ravel()) == set(x[picked])


def test_stochastic_expects_in_test():
    x = np.zeros((1, 2, 2, 2))
    x[0, 0] = [[1, 0], [2, 5]]
    layer, bottom, top = make_layer(text("pool: STOCHASTIC kernel_size: 2"), [x], phase=TEST)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array.ravel(), [30 / 8, 0])


def test_stochastic_in_blocks(monkeypatch):
    from demitasse.engine.kernels.cpu import stochastic_pooling

    for phase in (TRAIN, TEST):
        results = []
        for block in (1, 1 << 22):
            monkeypatch.setattr(stochastic_pooling, "BLOCK_BYTES", block)
            layer, bottom, top = make_layer(
                text("pool: STOCHASTIC kernel_size: 2"), [distinct((3, 2, 3, 3))], phase=phase
            )
            bottom[0].array[...] = np.arange(54).reshape(3, 2, 3, 3)
            layer.forward(bottom, top)
            top[0].grad[...] = np.arange(24).reshape(3, 2, 2, 2)
            layer.backward(top, [True], bottom)
            results.append((top[0].array.copy(), bottom[0].grad.copy()))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12)


def test_padding_on_one_axis_clips_the_last_window_of_both():
    # As in Caffe; without the padding, the width of 4 would give a third, empty window.
    _, _, top = make_layer(
        text("kernel_h: 3 kernel_w: 1 stride: 2 pad_h: 1 pad_w: 0"), [np.zeros((1, 1, 4, 4))]
    )
    assert top[0].shape == (1, 1, 3, 2)
    _, _, top = make_layer(text("kernel_h: 3 kernel_w: 1 stride: 2"), [np.zeros((1, 1, 4, 4))])
    assert top[0].shape == (1, 1, 2, 3)


def test_global_pooling_follows_the_image():
    layer, bottom, top = make_layer(text("pool: AVE global_pooling: true"), [np.ones((1, 2, 3, 3))])
    bottom[0].reshape(2, 2, 5, 4)
    bottom[0].array[...] = rng.standard_normal((2, 2, 5, 4))
    layer.reshape(bottom, top)
    layer.forward(bottom, top)
    np.testing.assert_allclose(top[0].array, bottom[0].array.mean(axis=(2, 3), keepdims=True))


ERRORS = {
    "": "pooling_param.kernel_size, or kernel_h and kernel_w, found none",
    "kernel_size: 2 kernel_h: 2 kernel_w: 2": "found kernel_h and kernel_w and kernel_size",
    "kernel_h: 2": "found kernel_h",
    "kernel_size: 2 stride_w: 2": "pooling_param.stride, or stride_h and stride_w, found stride_w",
    "kernel_size: 2 pad_h: 1": "found pad_h",
    "kernel_size: 2 pad: 2": r"pad smaller than kernel \(2, 2\), found pad \(2, 2\)",
    "kernel_h: 1 kernel_w: 3 pad: 1": "pad smaller than kernel",
    "kernel_size: 0": "kernel and stride of at least 1",
    "kernel_size: 2 stride: 0": "kernel and stride of at least 1",
    "kernel_size: 6": "the output would be empty",
    "kernel_size: 6 stride: 9 round_mode: FLOOR": "the output would be empty",
    "global_pooling: true kernel_size: 2": "no kernel size with global_pooling",
    "global_pooling: true pad: 1": "pad 0 and stride 1 with global_pooling",
    "global_pooling: true stride: 2": "pad 0 and stride 1 with global_pooling",
    "pool: STOCHASTIC kernel_size: 3 pad: 1": "no padding with STOCHASTIC",
}


@pytest.mark.parametrize("options", ERRORS)
def test_errors(options):
    with pytest.raises(LayerError, match=rf"layer 'layer' \(Pooling\).*{ERRORS[options]}"):
        make_layer(text(options), [np.zeros((1, 2, 4, 4))])


def test_errors_of_blobs():
    with pytest.raises(LayerError, match=r"a bottom \(N, C, H, W\)"):
        make_layer(text("kernel_size: 1"), [np.zeros((2, 3, 4))])
    with pytest.raises(LayerError, match="one top, a second being for the mask of MAX"):
        make_layer(text("kernel_size: 1 pool: AVE"), [np.zeros((1, 1, 2, 2))], num_tops=2)
