"""The reference cases of tests/golden (see the README there), run through `import caffe`."""

import gc
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from demitasse.engine.device import set_default_device

GOLDEN = Path(__file__).parent / "golden"
USER_MODULE = "golden_pylayers"


def names(kind):
    """The names of the cases of one kind."""
    if kind == "interop":
        return sorted(p.parent.name for p in (GOLDEN / kind).glob("*/case.json"))
    return sorted(p.stem for p in (GOLDEN / kind).glob("*.npz"))


class Case:
    """The arrays of one case, and comparisons that collect what differs."""

    def __init__(self, path, tolerance=None):
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        self.tolerance = float(self.arrays["tol"]) if tolerance is None else float(tolerance)
        self.compared, self.wrong = 0, []

    def __contains__(self, key):
        return key in self.arrays

    def text(self, key):
        return str(self.arrays[key])

    def texts(self, key):
        return [str(s) for s in self.arrays[key]]

    def number(self, key, default=0):
        return int(self.arrays.get(key, default))

    def group(self, prefix):
        """{rest of the key: array} for keys `prefix/rest`."""
        start = prefix + "/"
        return {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}

    def write_files(self):
        for name, content in self.group("file").items():
            Path(name).write_bytes(content.astype(np.uint8).tobytes())

    def equal(self, what, got, expected):
        self.compared += 1
        if list(got) != list(expected):
            self.wrong.append(f"{what}: {list(got)}, expected {list(expected)}")

    def close(self, what, got, expected, tolerance=None):
        self.compared += 1
        tolerance = self.tolerance if tolerance is None else tolerance
        problem = difference(
            np.asarray(got, np.float64), np.asarray(expected, np.float64), tolerance
        )
        if problem:
            self.wrong.append(f"{what}: {problem}")

    def finish(self):
        assert self.compared, "nothing was compared"
        assert not self.wrong, "\n".join(self.wrong)


def difference(got, expected, tolerance):
    """What is different between two float64 arrays, in words; "" if they agree."""
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        return "other values that are not finite"
    got, expected = got[finite], expected[finite]
    if got.size == 0:
        return ""
    error = np.abs(got - expected).max() / max(1e-3, np.abs(expected).max())
    # A NaN in `got` must fail, hence the negated comparison.
    return "" if error <= tolerance else f"relative error {error:.3g} > {tolerance:g}"


@pytest.fixture(autouse=True, params=["cpu", "host", pytest.param("gpu", marks=pytest.mark.gpu)])
def mode(request):
    """The CPU, the GPU's kernels on the host, and the GPU."""
    if request.param == "gpu":
        caffe.set_mode_gpu()
    elif request.param == "host":
        set_default_device(request.getfixturevalue("strict_device"))
    yield request.param
    caffe.set_mode_cpu()


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty working directory, from which a case's own Python layers can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(USER_MODULE, None)
    caffe.allow_python_layers(USER_MODULE)
    yield tmp_path
    sys.modules.pop(USER_MODULE, None)


def param_blob(net, key):
    layer, _, index = key.rpartition("/")
    return net.params[layer][int(index)]


def set_params(net, values):
    for key, array in values.items():
        blob = param_blob(net, key)
        assert blob.data.shape == array.shape, f"parameter {key}: {blob.data.shape}, {array.shape}"
        blob.data[...] = array


def compare_params(case, what, net, prefix, tolerance=None):
    for key, expected in case.group(prefix).items():
        case.close(f"{what} {key}", param_blob(net, key).data, expected, tolerance)


def set_blobs(net, values):
    for name, array in values.items():
        net.blobs[name].data[...] = array


# ---- layers


def build(case):
    Path("net.prototxt").write_text(case.text("prototxt"))
    options = {}
    if "level" in case:
        options["level"] = case.number("level")
    if "stages" in case:
        options["stages"] = case.texts("stages")
    return caffe.Net("net.prototxt", getattr(caffe, case.text("phase")), **options)


def set_inputs(net, inputs):
    """Set the input blobs, reshaping the net first if their shapes are others."""
    changed = [n for n, v in inputs.items() if net.blobs[n].data.shape != v.shape]
    for name in changed:
        net.blobs[name].reshape(*inputs[name].shape)
    if changed:
        net.reshape()
    set_blobs(net, inputs)


def compare_values(case, net):
    for name, expected in case.group("out").items():
        case.close(f"out {name}", net.blobs[name].data, expected)
    compare_params(case, "paramout", net, "paramout")


def compare_gradients(case, net):
    for kind in ("indiff", "diff"):
        for name, expected in case.group(kind).items():
            case.close(f"{kind} {name}", net.blobs[name].diff, expected)
    for key, expected in case.group("paramdiff").items():
        case.close(f"paramdiff {key}", param_blob(net, key).diff, expected)


def run_passes(case, net):
    forwards, backwards = case.number("nforward", 1), case.number("nbackward", 0)
    net.clear_param_diffs()
    for k in range(forwards):
        set_inputs(net, case.group("in"))
        net.forward()
        # Backward after the last pass only, or after each if there are as many.
        if backwards and (backwards == forwards or k == forwards - 1):
            for name, gradient in case.group("topdiff").items():
                net.blobs[name].diff[...] = gradient
            net.backward()


@pytest.mark.parametrize("name", names("layers"))
def test_layer(name):
    case = Case(GOLDEN / "layers" / f"{name}.npz")
    case.write_files()
    net = build(case)
    compare_params(case, "paraminit", net, "paraminit")
    set_params(net, case.group("param"))
    if "mem/data" in case:
        arrays = case.group("mem")
        net.set_input_arrays(np.float32(arrays["data"]), np.float32(arrays["label"]))
    run_passes(case, net)

    case.equal("net.inputs", net.inputs, case.texts("inputs"))
    case.equal("net.outputs", net.outputs, case.texts("outputs"))
    if "layer_names" in case:
        case.equal("layer names", net._layer_names, case.texts("layer_names"))
    if "blob_names" in case:
        case.equal("blob names", net.blobs, case.texts("blob_names"))
    compare_values(case, net)
    compare_gradients(case, net)
    case.finish()


# ---- solvers


def step(solver, batches, index):
    set_blobs(solver.net, {name: batch[index] for name, batch in batches.items()})
    solver.step(1)


@pytest.mark.parametrize("name", names("solvers"))
def test_solver(name):
    case = Case(GOLDEN / "solvers" / f"{name}.npz")
    case.write_files()
    Path("net.prototxt").write_text(case.text("net"))
    Path("solver.prototxt").write_text(case.text("solver"))
    solver = caffe.get_solver("solver.prototxt")
    set_params(solver.net, case.group("init"))
    marks = [int(m) for m in case.arrays["marks"]]
    losses, rates = [], []
    for k in range(max(marks)):
        step(solver, case.group("batch"), k)
        losses.append(solver.net.blobs[case.text("loss_blob")].data.item())
        rates.append(solver.lr)
        if k + 1 in marks:
            compare_params(case, f"after {k + 1}", solver.net, f"after{k + 1}")
    case.equal("solver.iter", [solver.iter], [max(marks)])
    case.close("loss", losses, case.arrays["loss"])
    case.close("lr", rates, case.arrays["lr"], 1e-5)
    if case.group("testin"):
        test_net = solver.test_nets[0]
        test_net.share_with(solver.net)
        set_blobs(test_net, case.group("testin"))
        test_net.forward()
        for key, expected in case.group("testout").items():
            case.close(f"test net {key}", test_net.blobs[key].data, expected)
    case.finish()


# ---- files


def check_resume(case, facts):
    """A snapshot of Caffe's is continued, and one of our own loads again."""
    begin, end = facts["iter"], facts["iter"] + facts["more"]
    for state in facts["states"]:
        solver = caffe.get_solver(facts["solver"])
        solver.restore(state)
        case.equal(f"{state} iter", [solver.iter], [begin])
        compare_params(case, state, solver.net, "before", 1e-6)
        for k in range(begin, end):
            step(solver, case.group("batch"), k)
        compare_params(case, state, solver.net, "after")
        solver.snapshot()
        again = caffe.get_solver(facts["solver"])
        again.restore(facts["resnap"])
        case.equal("iter of our own snapshot", [again.iter], [end])
        compare_params(case, "our own snapshot", again.net, "after")


def check_weights(case, facts):
    """Weights load by every way, and those that we write load again."""
    for path in facts["weights"]:
        by_call = caffe.Net(facts["net"], caffe.TEST)
        by_call.copy_from(path)
        compare_params(case, path, by_call, "param", 1e-6)
        for net in (by_call, caffe.Net(facts["net"], caffe.TEST, weights=path)):
            set_blobs(net, case.group("in"))
            net.forward()
            for name, expected in case.group("out").items():
                case.close(f"{path} {name}", net.blobs[name].data, expected)
    net.save("own.caffemodel")
    net.save_hdf5("own.caffemodel.h5")
    for path, load in (("own.caffemodel", "copy_from"), ("own.caffemodel.h5", "load_hdf5")):
        other = caffe.Net(facts["net"], caffe.TEST)
        getattr(other, load)(path)
        compare_params(case, path, other, "param", 1e-6)


def check_forward(case, facts):
    """A net, in old syntax or with a data layer, is run for several passes."""
    net = caffe.Net(facts["net"], getattr(caffe, facts.get("phase", "TEST")))
    for path in facts.get("weights", []):
        net.copy_from(path)
    compare_params(case, "parameter", net, "param", 1e-6)
    for k in range(facts.get("passes", 1)):
        set_blobs(net, case.group("in"))
        net.forward()
        for name, expected in case.group(f"out{k}").items():
            case.close(f"pass {k} {name}", net.blobs[name].data, expected)
    if "layer_types" in facts:
        case.equal("layer types", [layer.type for layer in net.layers], facts["layer_types"])


def check_mean(case, facts):
    blob = caffe.proto.caffe_pb2.BlobProto()
    blob.ParseFromString(Path(facts["file"]).read_bytes())
    case.close("mean", caffe.io.blobproto_to_array(blob), case.arrays["mean"], 1e-6)


def check_hdf5_output(case, facts):
    """HDF5Output has its file complete once the net is gone; HDF5Data reads it back."""
    net = caffe.Net(facts["write"], caffe.TEST)
    set_blobs(net, case.group("in"))
    net.forward()
    del net
    gc.collect()
    net = caffe.Net(facts["read"], caffe.TEST)
    net.forward()
    for name, expected in case.group("out").items():
        case.close(name, net.blobs[name].data, expected)


CHECKS = {
    "resume": check_resume,
    "weights": check_weights,
    "forward": check_forward,
    "mean": check_mean,
    "h5out": check_hdf5_output,
}


@pytest.mark.parametrize("name", names("interop"))
def test_files(name, workplace):
    shutil.copytree(
        GOLDEN / "interop" / name, workplace, dirs_exist_ok=True, copy_function=shutil.copyfile
    )
    if name.startswith("lmdb"):
        pytest.importorskip("lmdb")
    facts = json.loads(Path("case.json").read_text())
    case = Case("expected.npz", facts.get("tol", 1e-6))
    CHECKS[facts["kind"]](case, facts)
    case.finish()
