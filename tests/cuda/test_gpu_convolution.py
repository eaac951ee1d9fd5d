"""Convolution on the device: through columns, and through cuDNN's calls, beside the CPU's."""

import dataclasses

import fake_cudnn
import numpy as np
import pytest
from convolution_cases import CASES, arrays, geometry, reference

from demitasse.engine import precision
from demitasse.engine.device import CPU
from demitasse.engine.kernels.cuda import by_columns, by_cudnn, cudnn_library, cudnn_plans
from demitasse.engine.precision import Precision

NAMES = ("y", "dx", "dw", "db")
# Of the largest result, for factors with 8, 11 or 24 bits.
TOLERANCE = {"float32": 1e-5, "tf32": 3e-3, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.fixture(autouse=True)
def exact():
    """Products of float32 as they are, unless a test says otherwise."""
    precision.use(Precision("float32"))
    yield
    precision.use(None)


@pytest.fixture
def without_cudnn(place):
    """A place that has no cuDNN."""
    cudnn_library.substitute(place.device, None)
    yield place
    cudnn_library.substitute(place.device)


@pytest.fixture
def with_fake(place):
    """A place whose cuDNN is the stand-in, and which remembers no plans."""
    if hasattr(place.device.xp, "cuda"):
        pytest.skip("the stand-in computes on the host")
    cudnn_library.substitute(place.device, fake_cudnn)
    fake_cudnn.graphs.clear()
    yield place
    fake_cudnn.declined.clear()


def results(device, g, dtype=np.float32, relu=False, gate=None, bias=True, algorithm=None):
    """y, dx, dw and db as NumPy arrays; dw and db begin as ones."""
    kernels, put = device.kernels.convolution, device.to_device
    inputs = [np.array(a) for a in arrays(g, dtype)]
    x, weight, b, dy = map(put, inputs)
    y, dx = (put(np.full(shape, 7, dtype)) for shape in (g.out_shape, g.in_shape))
    dw, db = put(np.ones_like(inputs[1])), put(np.ones_like(inputs[2]))
    kernels.forward(x, weight, b if bias else None, y, g, algorithm, relu=relu)
    kernels.backward_data(dy, weight, dx, g, algorithm, gate=None if gate is None else put(gate))
    kernels.backward_weight(x, dy, dw, g, algorithm, db=db)
    return [np.array(device.to_host(a), np.float64) for a in (y, dx, dw, db)]


def check(found, expected, tolerance):
    for name, a, b in zip(NAMES, found, expected):
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error <= tolerance, f"{name} is off by {error:.1e} of the largest"


def gate_of(g):
    return np.random.default_rng(3).standard_normal(g.in_shape)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns(without_cudnn, name, dtype):
    g = CASES[name]
    found = results(without_cudnn.device, g, np.dtype(dtype))
    check(found, reference(g), 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("name", ["3x3", "two images", "groups", "one axis"])
def test_columns_with_relu_and_gate(without_cudnn, name):
    g = CASES[name]
    options = {"relu": True, "gate": gate_of(g).astype(np.float32)}
    found = results(without_cudnn.device, g, **options)
    expected = reference(g, relu=True, gate=gate_of(g))
    check(found, expected, 1e-5)
    assert (found[0] == 0).any() and (found[1] == 0).any()


@pytest.mark.parametrize("name", ["3x3", "groups", "strides", "sticks out"])
def test_the_reference_is_what_the_cpu_computes(name):
    g = CASES[name]
    gate = gate_of(g)
    found = results(CPU, g, np.float64, relu=True, gate=gate)
    check(found, reference(g, relu=True, gate=gate), 1e-12)


@pytest.mark.parametrize("limit", [1, 300, 3000])
@pytest.mark.parametrize("name", ["two images", "groups", "strides", "three axes"])
def test_columns_in_blocks(without_cudnn, name, limit, monkeypatch):
    g = CASES[name]
    monkeypatch.setattr(by_columns, "BLOCK_BYTES", limit)
    found = results(without_cudnn.device, g, np.float64, relu=True)
    check(found, reference(g, relu=True), 1e-13)


def test_nan_passes_a_relu(without_cudnn):
    g = CASES["3x3"]
    device = without_cudnn.device
    x, weight, bias, dy = (device.to_device(a) for a in arrays(g, np.float32))
    bias[2] = np.nan
    y = device.xp.empty(dy.shape, dy.dtype)
    device.kernels.convolution.forward(x, weight, bias, y, g, relu=True)
    assert (np.isnan(device.to_host(y)) == (np.arange(7) == 2)[:, None, None]).all()


@pytest.mark.parametrize("name", ["3x3", "two images"])
def test_add_bias_to_what_is_like_x(without_cudnn, name):
    g = CASES[name]
    device = without_cudnn.device
    x = arrays(g, np.float32)[0]
    bias = np.arange(g.channels, dtype=np.float32)
    y = device.to_device(x.copy())
    device.kernels.convolution.add_bias(y, device.to_device(bias), g)
    assert np.array_equal(device.to_host(y), x + bias[:, None, None])


@pytest.mark.parametrize("math", ["float16", "bfloat16"])
def test_columns_in_halves(without_cudnn, math):
    g = CASES["3x3"]
    precision.use(Precision(math))
    found = results(without_cudnn.device, g)
    check(found, reference(g), TOLERANCE[math])
    bits = found[0].astype(np.float32).view(np.uint32) & (0xFFFF if math == "bfloat16" else 0x1FFF)
    assert not bits.any()


# ---- cuDNN


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("math", precision.MATHS)
def test_cudnn_computes_the_same(with_fake, name, math):
    g, device = CASES[name], with_fake.device
    precision.use(Precision(math))
    options = {"relu": True, "gate": gate_of(g)}
    found = results(device, g, relu=True, gate=gate_of(g).astype(np.float32))
    check(found, reference(g, **options), TOLERANCE[math])
    possible = len(g.kernel) <= 3 and name != "sticks out"
    assert len(fake_cudnn.graphs) == (3 if possible else 0)


@pytest.mark.parametrize("math", ["float32", "tf32"])
@pytest.mark.parametrize("declined", ["bias", "relu", "conv_fprop"])
def test_what_cudnn_declines_is_done_otherwise(with_fake, math, declined):
    g = CASES["two images"]
    precision.use(Precision(math))
    fake_cudnn.declined.append(declined)
    found = results(with_fake.device, g, relu=True)
    check(found, reference(g, relu=True), 1e-5)
    operations = [[node[0] for node in graph.nodes] for graph in fake_cudnn.graphs]
    assert (["conv_fprop"] in operations) == (declined != "conv_fprop")


def test_half_arrays_stay_halves(with_fake):
    g = CASES["groups"]
    found = results(with_fake.device, g, np.float16, relu=True)
    check(found, reference(g, relu=True), 1e-2)
    assert {graph.io_data_type for graph in fake_cudnn.graphs} == {fake_cudnn.data_type.HALF}


def test_plans_are_made_once(with_fake):
    g, device = CASES["3x3"], with_fake.device
    for _ in range(3):
        results(device, g)
    assert [graph.executions for graph in fake_cudnn.graphs] == [3, 3, 3]


def test_least_recently_used_plans_go(with_fake, monkeypatch):
    plans = cudnn_plans.Plans(capacity=2)
    library = cudnn_library.library_of(with_fake.device)
    first, second, third = (_recipe(n) for n in (4, 5, 6))
    plans.get(library, first)
    plans.get(library, second)
    kept = plans.get(library, first)
    plans.get(library, third)
    assert len(plans) == 2 and plans.get(library, first) is kept
    assert len(fake_cudnn.graphs) == 3


def _recipe(size):
    x, w, y = (
        cudnn_plans.channels_first(dim)
        for dim in ((1, 2, size, size), (3, 2, 3, 3), (1, 3, size, size))
    )
    return cudnn_plans.Recipe("forward", x, w, y, (1, 1), (1, 1), (1, 1), "float32", True)


def test_exact_and_rounding_plans(with_fake):
    g, notes = CASES["3x3"], fake_cudnn.numerical_note
    for math in ("float32", "tf32"):
        precision.use(Precision(math))
        results(with_fake.device, g)
    exact, rounding = fake_cudnn.graphs[0], fake_cudnn.graphs[3]
    for graph in (exact, rounding):
        assert notes.NONDETERMINISTIC in graph.notes and notes.DOWN_CONVERT_INPUTS in graph.notes
        assert graph.workspace_limit == cudnn_plans.WORKSPACE
    assert notes.TENSOR_CORE in exact.notes and notes.TENSOR_CORE not in rounding.notes
    assert exact.tensors[0].stride == [5 * 99, 99, 11, 1]
    assert rounding.tensors[0].stride == [5 * 9 * 11, 1, 11 * 5, 5]


def test_bias_and_relu_are_in_the_graph(with_fake):
    results(with_fake.device, CASES["3x3"], relu=True)
    results(with_fake.device, CASES["3x3"], bias=False)
    nodes = [[node[0] for node in graph.nodes] for graph in fake_cudnn.graphs]
    assert nodes == [["conv_fprop", "bias", "relu"], ["conv_dgrad"], ["conv_wgrad"],
                     ["conv_fprop"]]  # fmt: skip


@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_enlarged_images_give_the_same(with_fake, pad, stride):
    g = geometry(1, 3, 4, (70, 133), 3, stride=stride, pad=pad)
    larger = by_cudnn.enlarged(g)
    assert larger.in_size == (70, 144)
    precision.use(Precision("tf32"))
    options = {"relu": True, "gate": gate_of(g)}
    found = results(with_fake.device, g, relu=True, gate=gate_of(g).astype(np.float32))
    check(found, reference(g, **options), 1e-5)
    assert fake_cudnn.graphs[0].tensors[0].dim == [1, 3, 70, 144]


def test_few_sizes_for_all_images():
    sizes = set()
    for longer in range(600, 1001):
        g = geometry(1, 3, 64, (600, longer), 3, pad=1)
        larger = by_cudnn.enlarged(g)
        assert all(n <= m for n, m in zip(g.in_size, larger.in_size))
        assert np.prod(larger.in_size) < 1.2 * np.prod(g.in_size)
        sizes.add(larger.in_size)
    assert len(sizes) <= 10
    several = geometry(16, 3, 64, (227, 227), 3, pad=1)
    assert by_cudnn.enlarged(several) == several


def test_arrays_that_do_not_begin_at_16_bytes(with_fake):
    g, device = CASES["3x3"], with_fake.device
    x, weight, bias, dy = arrays(g, np.float32)
    room = device.to_device(np.zeros(x.size + 1, np.float32))
    inside = room[1:].reshape(x.shape)
    inside[...] = device.to_device(x)
    y = device.to_device(dy)
    w, b = device.to_device(weight), device.to_device(bias)
    device.kernels.convolution.forward(inside, w, b, y, g)
    check([device.to_host(y)], reference(g)[:1], 1e-5)
    assert not any(graph.executions for graph in fake_cudnn.graphs)


def test_nothing_to_do(place):
    g = dataclasses.replace(CASES["3x3"], batch=0)
    y, dx, dw, db = results(place.device, g)
    assert not y.size and not dx.size and (dw == 1).all() and (db == 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("math", precision.MATHS)
def test_real_cudnn(place, name, math):
    if not hasattr(place.device.xp, "cuda"):
        pytest.skip("cuDNN computes on a GPU, not on the host")
    if cudnn_library.library_of(place.device) is None:
        pytest.skip("no nvidia-cudnn-frontend, or no cuDNN")
    g = CASES[name]
    precision.use(Precision(math))
    options = {"relu": True, "gate": gate_of(g)}
    found = results(place.device, g, relu=True, gate=gate_of(g).astype(np.float32))
    check(found, reference(g, **options), TOLERANCE[math])
    again = results(place.device, g, relu=True, gate=gate_of(g).astype(np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(found, again))


def test_a_plan_that_wants_more_than_the_limit_is_not_taken(with_fake, monkeypatch):
    g = CASES["3x3"]
    monkeypatch.setattr(cudnn_plans, "WORKSPACE", 999)  # the stand-in's plans want 1000 bytes
    monkeypatch.setattr(cudnn_plans, "plans", cudnn_plans.Plans())
    monkeypatch.setattr(by_cudnn, "plans", cudnn_plans.plans)
    found = results(with_fake.device, g)
    assert all(graph.executions == 0 for graph in fake_cudnn.graphs)
    check(found, reference(g), TOLERANCE["float32"])
