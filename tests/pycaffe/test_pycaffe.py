"""caffe.Net and its blobs, as programs written for pycaffe use them."""

from collections import OrderedDict

import numpy as np
import pytest

import caffe
from caffe import _caffe
from demitasse.engine.errors import NetError

DEPLOY = """
name: "small"
layer { name: "in" type: "Input" top: "data" top: "scale"
        input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 5 kernel_size: 3
                            weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }
layer { name: "mul" type: "Eltwise" bottom: "flat" bottom: "scale" top: "mul"
        eltwise_param { operation: PROD } }
layer { name: "ip" type: "InnerProduct" bottom: "mul" top: "score"
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
force_backward: true
"""
TRAIN = """
name: "train"
layer { name: "data" type: "DummyData" top: "x" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" include { phase: TRAIN } }
layer { name: "big" type: "InnerProduct" bottom: "ip" top: "big"
        include { min_level: 1 } inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
        loss_weight: 2 exclude { stage: "deploy" } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { stage: "deploy" } }
"""
rng = np.random.default_rng(0)


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path, which is a str as programs have it."""

    def write(text, name="net.prototxt"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def net(write):
    caffe.set_random_seed(1)
    yield caffe.Net(write(DEPLOY), caffe.TEST)
    caffe.set_random_seed(None)


def data(n=2):
    return {"data": rng.normal(size=(n, 3, 4, 4)), "scale": rng.normal(size=(n, 5))}


# ---- constructors


def test_every_form_of_the_constructor(write, tmp_path):
    model, weights = write(TRAIN), str(tmp_path / "w.caffemodel")
    first = caffe.Net(model, caffe.TRAIN)
    first.save(weights)
    nets = [
        caffe.Net(model, weights, caffe.TRAIN),
        caffe.Net(model, caffe.TRAIN, weights=weights),
        caffe.Net(model, caffe.TRAIN, 0, None, weights),
        caffe.Net(network_file=model, phase=caffe.TRAIN, level=0, stages=[], weights=weights),
        caffe.Net(tmp_path / "net.prototxt", 0, weights=tmp_path / "w.caffemodel"),
    ]
    for net in nets:
        np.testing.assert_array_equal(net.params["ip"][0].data, first.params["ip"][0].data)


def test_phase_level_and_stages(write):
    model = write(TRAIN)
    assert list(caffe.Net(model, caffe.TRAIN).layer_dict) == ["data", "ip", "drop", "loss"]
    assert list(caffe.Net(model, caffe.TEST).layer_dict) == ["data", "ip", "loss"]
    levels = caffe.Net(model, caffe.TEST, level=1)
    assert "big" in levels.blobs and "ip_ip_0_split_1" in levels.blobs
    deploy = caffe.Net(model, caffe.TEST, stages=["deploy"])
    assert deploy.outputs == ["label", "prob"]
    assert list(caffe.Net(model, 1, 1, ["deploy"]).blobs)[-1] == "prob"


def test_constructor_errors_are_runtime_errors_as_in_pycaffe(write, tmp_path):
    with pytest.raises(RuntimeError, match=r"nowhere\.prototxt.*no such file"):
        caffe.Net("nowhere.prototxt", caffe.TEST)
    with pytest.raises(RuntimeError, match=r"nowhere\.caffemodel.*no such file"):
        caffe.Net(write(TRAIN), "nowhere.caffemodel", caffe.TEST)
    with pytest.raises(NetError, match=r"a phase, found only weights, 'TEST'"):
        caffe.Net(write(TRAIN), "TEST")
    with pytest.raises(NetError, match=r"a phase.*caffe\.TEST"):
        caffe.Net(write(TRAIN))
    with pytest.raises(NetError, match="found 2"):
        caffe.Net(write(TRAIN), 2)


# ---- what is in it


def test_names(net):
    assert net.name == "small"
    assert net.inputs == ["data", "scale"] and net.outputs == ["score"]
    assert list(net.blobs) == ["data", "scale", "conv", "pool", "flat", "mul", "score"]
    assert isinstance(net.blobs, OrderedDict) and isinstance(net.params, OrderedDict)
    assert {k: [b.shape for b in v] for k, v in net.params.items()} == {
        "conv": [(5, 3, 3, 3), (5,)],
        "ip": [(2, 5), (2,)],
    }
    assert net.top_names["in"] == ["data", "scale"] and net.bottom_names["in"] == []
    assert net.bottom_names["mul"] == ["flat", "scale"] and net.top_names["relu"] == ["conv"]
    assert list(net.layer_dict) == list(net._layer_names) == list(net.top_names)
    assert [layer.type for layer in net.layers][:3] == ["Input", "Convolution", "ReLU"]
    assert net.layers[1] is net.layer_dict["conv"]
    assert net.layers[1].blobs[0] is net.params["conv"][0]


def test_old_names_that_programs_use(net, write):
    assert net._blob_names == list(net.blobs) and net._blobs == list(net.blobs.values())
    assert net._inputs == [0, 1] and net._outputs == [6]
    assert net._bottom_ids(5) == [4, 1] and net._top_ids(0) == [0, 1]
    trained = caffe.Net(write(TRAIN), caffe.TRAIN)
    assert trained.blob_loss_weights == {"x": 0, "label": 0, "ip": 0, "loss": 2}
    assert trained._blob_loss_weights == [0, 0, 0, 2]
    assert trained._forward(0, 3) == pytest.approx(2 * float(trained.blobs["loss"].data), rel=1e-6)
    trained._backward(3, 0)
    assert trained.params["ip"][0].diff.any()
    net.name = "mine"  # fast-rcnn's tools do so
    assert net.name == "mine"


def test_types_have_the_names_of_pycaffes_module(net):
    for blobs in net.params.values():
        assert type(blobs) is caffe._caffe.BlobVec
    assert isinstance(net, _caffe.Net) and isinstance(net.blobs["data"], _caffe.Blob)
    from caffe._caffe import Layer, RawBlobVec, layer_type_list

    assert Layer is caffe.Layer and layer_type_list is caffe.layer_type_list
    bottom = RawBlobVec()
    bottom.append(net.blobs["data"])
    assert len(bottom) == 1 and bottom[0] is net.blobs["data"]


# ---- blobs


def test_blobs(net):
    blob = net.blobs["data"]
    assert blob.shape == (2, 3, 4, 4) and list(blob.shape) == [2, 3, 4, 4] and blob.count == 96
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 4, 4)
    assert blob.data.dtype == blob.diff.dtype == np.float32
    assert (net.blobs["scale"].height, net.blobs["scale"].width) == (1, 1)
    held = blob.data
    blob.data[...] = 3
    blob.data[0] += 1
    blob.diff.flat = np.arange(96)
    assert (held[0] == 4).all() and (held[1] == 3).all() and blob.diff[1, 2, 3, 3] == 95
    with pytest.raises(AttributeError):
        blob.data = held
    blob.reshape(1, np.int64(3), 2, 2)
    assert blob.data.shape == blob.diff.shape == (1, 3, 2, 2)
    blob.reshape()
    assert blob.shape == () and blob.data.shape == () and blob.count == 1
    for shape in [(-1, 2), (1 << 20, 1 << 20), (2.5,), ("a",)]:
        with pytest.raises(NetError, match="blob: expected"):
            blob.reshape(*shape)
    blob.reshape(1, 2, 3, 4, 5)
    with pytest.raises(NetError, match="at most 4 axes"):
        blob.num  # noqa: B018


def test_arrays_survive_their_net(write):
    net = caffe.Net(write(TRAIN), caffe.TRAIN)
    blobs = [*net.blobs.values(), *net.params["ip"]]
    del net
    assert np.isfinite(sum(b.data.sum() + b.diff.sum() for b in blobs))


def test_new_input_sizes_reach_the_outputs(net):
    net.blobs["data"].reshape(7, 3, 9, 6)
    net.blobs["scale"].reshape(7, 5)
    net.reshape()
    assert net.blobs["conv"].shape == (7, 5, 7, 4) and net.blobs["score"].shape == (7, 2)
    assert net.forward()["score"].shape == (7, 2)


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


# ---- weights


def test_copy_from_reports(write, tmp_path):
    weights = str(tmp_path / "w.caffemodel")
    source = caffe.Net(write(TRAIN), caffe.TEST, level=1)
    source.save(weights)
    net = caffe.Net(write(TRAIN.replace('"ip" type', '"ip2" type')), caffe.TEST, level=1)
    report = net.copy_from(weights)
    assert (report.copied, report.skipped, report.missing) == (["big"], ["ip"], ["ip2"])
    np.testing.assert_array_equal(net.params["big"][0].data, source.params["big"][0].data)


def test_a_wrong_shape_says_both_shapes_and_what_to_do(write, tmp_path):
    weights = str(tmp_path / "w.caffemodel")
    caffe.Net(write(TRAIN), caffe.TEST).save(weights)
    net = caffe.Net(write(TRAIN.replace("num_output: 3", "num_output: 4")), caffe.TEST)
    with pytest.raises(RuntimeError) as error:
        net.copy_from(weights)
    text = str(error.value)
    assert "layer 'ip', parameter 0" in text and "(4, 3)" in text and "(3, 3)" in text
    assert "another name" in text


def test_files_of_weights(write, tmp_path):
    net, other = (caffe.Net(write(TRAIN), caffe.TEST) for _ in range(2))
    for name in ("w.caffemodel", "w.caffemodel.h5", "any_name"):
        path = str(tmp_path / name)
        other.params["ip"][0].data[...] = 0
        if name == "w.caffemodel":
            net.save(path)
            other.copy_from(path)
        else:
            net.save_hdf5(path)
            other.load_hdf5(path) if name == "any_name" else other.copy_from(path)
        np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)
    message = caffe.proto.caffe_pb2.NetParameter.FromString(
        (tmp_path / "w.caffemodel").read_bytes()
    )
    saved = {layer.name: layer for layer in message.layer}["ip"]
    assert list(saved.blobs[0].shape.dim) == [3, 3]
    np.testing.assert_array_equal(saved.blobs[0].data, net.params["ip"][0].data.ravel())


def test_shared_weights_are_one_memory(write):
    train, test = caffe.Net(write(TRAIN), caffe.TRAIN), caffe.Net(write(TRAIN), caffe.TEST)
    test.share_with(train)
    train.params["ip"][0].data[...] = 5
    assert (test.params["ip"][0].data == 5).all()
    wrong = caffe.Net(write(TRAIN.replace("num_output: 3", "num_output: 2")), caffe.TEST)
    with pytest.raises(NetError, match=r"layer 'ip'.*\(2, 3\).*\(3, 3\)"):
        wrong.share_with(train)


# ---- Python layers


class Scale(caffe.Layer):
    """Multiplies by a parameter and by a number in param_str."""

    def __init__(self, param, *args, **kwargs):
        super().__init__(param, *args, **kwargs)
        self.calls = []

    def setup(self, bottom, top):
        self.by = eval(self.param_str)["by"]
        assert self.param_str_ == self.param_str and self.phase in (caffe.TRAIN, caffe.TEST)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 1
        self.param = self.name = self.device = self.random = "names that users take"

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].data[...] = self.by * self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.calls.append(list(propagate_down))
        self.blobs[0].diff[0] += self.by * (top[0].diff * bottom[0].data).sum()
        bottom[0].diff[...] = self.by * self.blobs[0].data[0] * top[0].diff


def test_a_python_layer_learns_and_is_reached_through_the_net(write, tmp_path):
    text = f"""force_backward: true input: "x" input_shape {{ dim: 2 dim: 3 }}
    layer {{ name: "py" type: "Python" bottom: "x" top: "y"
        python_param {{ module: "{__name__}" layer: "Scale" param_str: "{{'by': 3}}" }} }}
    layer {{ name: "sum" type: "Reduction" bottom: "y" top: "sum" loss_weight: 1 }}"""
    net = caffe.Net(write(text), caffe.TRAIN)
    assert net.forward(x=np.ones((2, 3)))["sum"] == 18
    net.backward()
    assert (net.blobs["x"].diff == 3).all() and net.params["py"][0].diff[0] == 18
    assert type(net.params["py"]) is caffe._caffe.BlobVec
    assert net.layers[1].calls == ["forward", [True]]
    net.params["py"][0].data[...] = 2
    net.save(str(tmp_path / "w.caffemodel"))
    again = caffe.Net(write(text), str(tmp_path / "w.caffemodel"), caffe.TEST)
    assert again.forward(x=np.ones((2, 3)))["sum"] == 36


def test_an_exception_in_a_python_layer_comes_through(write, monkeypatch):
    def setup(self, bottom, top):
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(Scale, "setup", setup)
    text = f"""input: "x" input_shape {{ dim: 1 }} layer {{ name: "py" type: "Python" bottom: "x"
        top: "y" python_param {{ module: "{__name__}" layer: "Scale" }} }}"""
    with pytest.raises(ZeroDivisionError, match="mine"):
        caffe.Net(write(text), caffe.TEST)
