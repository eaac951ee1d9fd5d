"""Forward and backward of caffe.Net, as programs written for pycaffe call them."""

import numpy as np
import pytest
from pycaffe_nets import TRAIN, data, rng

import caffe
from demitasse.engine.errors import NetError

# ---- forward


def test_forward_from_start_to_end(net):
    inputs = data()
    out = net.forward(blobs=["conv", "pool"], **inputs)
    assert set(out) == {"score", "conv", "pool"}
    np.testing.assert_array_equal(net.blobs["data"].data, np.float32(inputs["data"]))
    w, b = (blob.data for blob in net.params["ip"])
    np.testing.assert_allclose(out["score"], net.blobs["mul"].data @ w.T + b, rtol=1e-5)
    assert out["score"] is net.blobs["score"].data

    score = out["score"].copy()
    assert list(net.forward(end="pool")) == ["pool"]
    assert set(net.forward(end="in")) == {"data", "scale"}
    net.blobs["mul"].data[...] *= 2
    np.testing.assert_allclose(net.forward(start="ip")["score"], 2 * score - b, rtol=1e-4)
    assert list(net.forward(["flat"], "mul", "mul")) == ["mul", "flat"]


def test_forward_takes_what_numpy_can_copy_into_a_batch(net):
    net.forward(data=np.ones((2, 1, 4, 4)), scale=np.zeros((2, 1), int))
    assert net.blobs["data"].data.sum() == 96
    with pytest.raises(
        NetError, match=r"input blob 'data'.*\(2, 3, 4, 4\).*\(1, 3, 4, 4\).*reshape"
    ):
        net.forward(data=np.ones((1, 3, 4, 4)), scale=np.ones((2, 5)))
    with pytest.raises(NetError, match=r"'scale'.*shape \(2, 5\).*shape \(2, 4\)"):
        net.forward(data=np.ones((2, 3, 4, 4)), scale=np.ones((2, 4)))


def test_forward_errors(net):
    with pytest.raises(NetError, match=r"all input blobs \['data', 'scale'\].*\['data'\]"):
        net.forward(data=np.ones((2, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"'pol'.*Did you mean 'pool'"):
        net.forward(end="pol")
    with pytest.raises(NetError, match=r"'convv'.*Did you mean 'conv'"):
        net.forward(blobs=["convv"])
    with pytest.raises(KeyError):
        net.blobs["convv"]


def test_forward_all_pads_the_last_batch_and_drops_the_padding(net):
    inputs = data(5)
    out = net.forward_all(blobs=["conv"], **inputs)
    assert out["score"].shape == (5, 2) and out["conv"].shape == (5, 5, 2, 2)
    for i in range(5):
        alone = net.forward(**{k: v[[i, i]] for k, v in inputs.items()})["score"][0]
        np.testing.assert_allclose(out["score"][i], alone, rtol=1e-5)


# ---- backward


def test_backward_from_start_to_end(net):
    net.forward(**data())
    diff = rng.normal(size=(2, 2))
    out = net.backward(diffs=["mul"], score=diff)
    assert set(out) == {"data", "scale", "mul"}
    w = net.params["ip"][0].data
    np.testing.assert_allclose(out["mul"], np.float32(diff) @ w, rtol=1e-5)
    np.testing.assert_allclose(
        out["scale"], out["mul"] * net.blobs["flat"].data, rtol=1e-5
    )  # fmt: skip
    assert out["data"].any() and net.params["conv"][0].diff.any()
    assert set(net.backward(start="ip", end="mul")) == {"flat", "scale"}
    assert list(net.backward(["pool"], "flat", "pool")) == ["conv", "pool"]
    with pytest.raises(NetError, match=r"all output blobs \['score'\].*\['data'\]"):
        net.backward(data=diff)
    with pytest.raises(NetError, match=r"output blob 'score'.*\(2, 2\).*\(3, 2\)"):
        net.backward(score=np.ones((3, 2)))


def test_gradient_ascent_on_a_blob_inside(net):
    """As deep dream does: a gradient set by hand, backward from there, the input moved."""
    net.forward(**data())
    before = (net.blobs["pool"].data ** 2).sum()
    for _ in range(5):
        net.forward(end="pool")
        net.blobs["pool"].diff[...] = net.blobs["pool"].data
        net.backward(start="pool")
        net.blobs["data"].data[...] += 0.1 * net.blobs["data"].diff
    net.forward(end="pool")
    assert (net.blobs["pool"].data ** 2).sum() > 1.1 * before


def test_forward_backward_all(net):
    inputs, diffs = data(5), {"score": rng.normal(size=(5, 2))}
    values, gradients = net.forward_backward_all(["conv"], ["mul"], **inputs, **diffs)
    assert values["score"].shape == (5, 2) and values["conv"].shape == (5, 5, 2, 2)
    assert {k: v.shape for k, v in gradients.items()} == {
        "data": (5, 3, 4, 4), "scale": (5, 5), "mul": (5, 5),
    }  # fmt: skip
    w = net.params["ip"][0].data
    np.testing.assert_allclose(gradients["mul"], np.float32(diffs["score"]) @ w, rtol=1e-5)
    for i in range(5):
        net.forward(**{k: v[[i, i]] for k, v in inputs.items()})
        alone = net.backward(score=diffs["score"][[i, i]])
        np.testing.assert_allclose(gradients["data"][i], alone["data"][0], rtol=1e-4, atol=1e-6)


def test_batches_need_rows_of_one_number(net):
    for verb in (net.forward_all, net.forward_backward_all):
        with pytest.raises(NetError, match="one row a sample, found none"):
            verb()
        with pytest.raises(NetError, match="data: 5, scale: 2"):
            verb(data=data(5)["data"], scale=data(2)["scale"])


def test_single_numbers_are_rows_of_their_own(write):
    text = 'layer { name: "sum" type: "Reduction" bottom: "x" top: "sum" }'
    net = caffe.Net(write('input: "x" input_shape { dim: 2 dim: 3 } ' + text), caffe.TEST)
    out = net.forward_all(x=np.ones((4, 3)))
    np.testing.assert_array_equal(out["sum"], [6, 6])


def test_gradients_of_parameters_add_up_until_cleared(write):
    net = caffe.Net(write(TRAIN), caffe.TEST)
    net.forward()
    net.backward()
    once = net.params["ip"][0].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once, rtol=1e-6)
    diff = net.params["ip"][0].diff
    net.clear_param_diffs()
    assert once.any() and not diff.any()


def test_callbacks(net):
    calls = []
    for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, when)(lambda layer, when=when: calls.append((when, layer)))
    net.forward(start="mul")
    net.backward(start="ip", end="ip")
    assert calls == [
        ("before_forward", 5), ("after_forward", 5), ("before_forward", 6), ("after_forward", 6),
        ("before_backward", 6), ("after_backward", 6),
    ]  # fmt: skip


def test_set_input_arrays(write, net):
    memory = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
        memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }"""
    fed = caffe.Net(write(memory), caffe.TEST)
    images, labels = np.float32(rng.normal(size=(4, 1, 2, 3))), np.float32([0, 1, 2, 3])
    for shaped in (labels, labels.reshape(4, 1, 1, 1)):
        fed.set_input_arrays(images, shaped)
        for k in (0, 2, 0):
            out = fed.forward()
            np.testing.assert_array_equal(out["data"], images[k : k + 2])
            np.testing.assert_array_equal(out["label"].ravel(), labels[k : k + 2])
    with pytest.raises(RuntimeError, match="first layer is of type MemoryData, found Input"):
        net.set_input_arrays(images, labels)
    with pytest.raises(RuntimeError, match="multiple of batch_size 2"):
        fed.set_input_arrays(images[:3], labels[:3])
    with pytest.raises(RuntimeError, match=r"\(4, 1, 3, 2\)"):
        fed.set_input_arrays(images.reshape(4, 1, 3, 2), labels)
