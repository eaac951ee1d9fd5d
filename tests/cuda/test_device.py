"""Devices: what is missing where there is no GPU, strict arrays, who copies and waits."""

import ctypes
import sys
import types

import numpy as np
import pytest

import demitasse.engine.device as devices
from demitasse.engine import transfers
from demitasse.engine.errors import DeviceError
from demitasse.engine.gpu import _Staging
from demitasse.engine.gradient_check import make_layer
from demitasse.engine.kernels.cuda import host
from demitasse.engine.strict_device import StrictDevice

needs_compiler = pytest.mark.skipif(host.compiler() is None, reason="there is no C++ compiler")


# ---- what is missing


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"cuda error {status}")


def fake_cupy(count=0, status=None, driver=13000, runtime=13010):
    """A module `cupy` that finds `count` GPUs, or fails with `status` when it looks for them."""

    def get_device_count():
        if status is not None:
            raise CUDARuntimeError(status)
        return count

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, getDeviceCount=get_device_count,
            driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime,
        )
    )  # fmt: skip
    return cupy


@pytest.fixture
def install(monkeypatch):
    """Have `import cupy` give a module, or None for none."""
    devices.gpu_device.cache_clear()
    yield lambda cupy: monkeypatch.setitem(sys.modules, "cupy", cupy)
    devices.gpu_device.cache_clear()


@pytest.mark.parametrize(
    ("cupy", "index", "said"),
    [
        (fake_cupy(status=35, driver=0), 0, ["an NVIDIA driver, found none", "nvidia-smi"]),
        (
            fake_cupy(status=35, driver=12040), 0,
            ["driver for CUDA 13.1", "found one for CUDA 12.4", "cupy-cuda12x"],
        ),
        (fake_cupy(status=100), 0, ["an NVIDIA GPU, found a driver that sees none"]),
        (fake_cupy(count=0), 0, ["an NVIDIA GPU, found a driver that sees none"]),
        (fake_cupy(count=2), 2, ["GPU 2: expected a number from 0 to 1, found 2 GPU(s)"]),
        (fake_cupy(count=2), -1, ["GPU -1: expected a number from 0 to 1"]),
        (fake_cupy(status=999), 0, ["CUDA to start, found cuda error 999"]),
    ],
)  # fmt: skip
def test_the_error_says_what_is_missing(install, cupy, index, said):
    install(cupy)
    with pytest.raises(DeviceError) as error:
        devices.gpu_device(index)
    for phrase in said:
        assert phrase in str(error.value)


def test_without_cupy_the_error_says_what_to_install(install, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [_No("cupy"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match=r"CuPy, found that it is not installed.*demitasse\[gpu"):
        devices.gpu_device(0)
    assert devices.gpu_count() == 0


class _No:
    """A finder that finds that a module is not there."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_broken_cupy_is_told_from_a_missing_one(install, monkeypatch):
    class Broken(_No):
        def find_spec(self, name, path=None, target=None):
            if name == self.name:
                raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(sys, "meta_path", [Broken("cupy"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match=r"does not load: libcuda\.so\.1"):
        devices.gpu_device(0)


def test_set_mode_gpu_and_the_solver_ask_for_the_gpu(install, tmp_path):
    import caffe
    from demitasse.engine.proto import caffe_pb2
    from demitasse.solvers.factory import device_of

    install(fake_cupy(count=0))
    with pytest.raises(DeviceError, match="GPU 0: expected an NVIDIA GPU"):
        caffe.set_mode_gpu()
    assert devices.default_device() is devices.CPU
    param = caffe_pb2.SolverParameter(solver_mode=caffe_pb2.SolverParameter.GPU, device_id=3)
    with pytest.raises(DeviceError, match="GPU 3"):
        device_of(param)
    assert device_of(caffe_pb2.SolverParameter()) is devices.CPU


# ---- strict arrays


@pytest.fixture
def device():
    return StrictDevice()


@pytest.fixture
def array(device):
    return device.to_device(np.arange(6, dtype=np.float32).reshape(2, 3))


MIXED = {
    "array + host": lambda a, x: a + x,
    "host + array": lambda a, x: x + a,
    "array += host": lambda a, x: a.__iadd__(x),
    "a ufunc": lambda a, x: np.multiply(a, x),
    "a ufunc's out": lambda a, x: np.add(a, a, out=x),
    "xp's function": lambda a, x: a.device.xp.maximum(a, x),
    "a list of both": lambda a, x: a.device.xp.stack([a, x]),
    "assigning": lambda a, x: a.__setitem__(..., x),
    "assigning to the host": lambda a, x: x.__setitem__(..., a),
    "an index": lambda a, x: a[x.astype(int) > 9],
    "np.asarray": lambda a, x: np.asarray(a),
    "np.array of a list": lambda a, x: np.array([a[0], a[1]]),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_mixing_host_and_device_raises(array, mix):
    with pytest.raises((TypeError, ValueError)):
        mix(array, np.ones((2, 3), np.float32))


def test_strict_arrays_compute_as_numpy(device, array):
    xp, x = device.xp, np.arange(6, dtype=np.float32).reshape(2, 3)
    results = {
        "operators": (2 * array - 1, 2 * x - 1),
        "methods": (array.sum(axis=0), x.sum(axis=0)),
        "functions": (xp.where(array > 2, array, 0), np.where(x > 2, x, 0)),
        "NumPy's functions": (np.concatenate([array, array]), np.concatenate([x, x])),
        "a whole sum": (array.sum(), x.sum()),
    }
    for what, (got, expected) in results.items():
        got = device.to_host(got)
        assert got.dtype == expected.dtype and np.array_equal(got, expected), what
    view = array[0]
    view *= 10
    assert device.to_host(array)[0].tolist() == [0, 10, 20]


def test_what_nobody_wrote_is_nan(device):
    assert np.isnan(device.to_host(device.xp.empty((2, 2), np.float32))).all()


def test_names_that_xp_lacks_raise(device):
    with pytest.raises(AttributeError, match="loadtxt"):
        device.xp.loadtxt  # noqa: B018


def test_what_strict_xp_has_cupy_has():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    from demitasse.engine import strict_array

    for name in strict_array._FUNCTIONS | strict_array._NAMES:
        assert hasattr(cupy, name), name
    for name in dir(strict_array.StrictArray):
        if not name.startswith("_") and name not in ("held", "fill"):
            assert hasattr(cupy.ndarray, name), name


@needs_compiler
def test_kernels_take_strict_arrays_alone(device, array):
    text = (
        'extern "C" __global__ void twice(float *x, int n)'
        "{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] *= 2; }"
    )
    twice = device.compile(text).get_function("twice")
    twice((1,), (32,), (array, np.int32(6)))
    assert device.to_host(array).ravel().tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(TypeError, match="argument 0"):
        twice((1,), (32,), (np.zeros(6, np.float32), np.int32(6)))


# ---- who copies and waits

WAITS = {
    "float": lambda a: float(a.sum()),
    "if": lambda a: bool(a.any()),
    "comparison": lambda a: max(1, a[0, 0]),
    "item": lambda a: a[0, 0].item(),
    "get": lambda a: a.get(),
    "to_host": lambda a: a.device.to_host(a),
    "mask": lambda a: a[a > 1],
    "assignment by a mask": lambda a: a.__setitem__(a > 1, 0),
    "nonzero": lambda a: a.device.xp.nonzero(a),
    "flatnonzero": lambda a: np.flatnonzero(a),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_waits_are_counted(device, array, wait):
    with transfers.watch(device) as log:
        wait(array)
    assert [len(iteration) for iteration in log.synchronisations()] == [1]
    assert __file__.endswith("test_device.py") and "test_device.py:" in log.report()
    wait(array)
    assert len(log.iterations[0]) == 1  # nobody watches any more


def test_the_log_names_layer_and_line_by_iteration(device):
    layer, bottom, top = make_layer(
        'type: "Filter"', [np.ones((3, 2)), np.array([1.0, 0, 1])], device=device
    )
    with transfers.watch(device) as log:
        layer.reshape(bottom, top)
        log.next_iteration()
        layer.forward(bottom, top)
    first, second = log.synchronisations()
    assert [(t.kind, t.layer) for t in first] == [("wait", "layer (Filter)")] and not second
    assert "filter.py:" in first[0].place and "reshape" in first[0].place
    assert "iteration 0: 1 transfer(s), 1 synchronisation(s), 0 bytes" in log.report()


def test_an_upload_does_not_wait(device):
    with transfers.watch(device) as log:
        device.to_device(np.zeros(3, np.float32))
    assert [(t.kind, t.size) for t in log.iterations[0]] == [("upload", 12)]
    assert log.synchronisations() == [[]]


# ---- uploads through page-locked memory, on a GPU that is late


class LateGpu:
    """What `_Staging` uses of CuPy. Copies are made only when somebody waits, or `finish` is
    called: whoever changes a buffer before that changes what arrives."""

    def __init__(self):
        self.queue, self.done, self.allocated = [], 0, []
        self.cuda = types.SimpleNamespace(
            get_current_stream=lambda: None, alloc_pinned_memory=self.allocate,
            Event=lambda disable_timing: LateEvent(self),
        )  # fmt: skip

    def allocate(self, size):
        self.allocated.append(PageLocked(size))
        return self.allocated[-1]

    def finish(self, count=None):
        for copy in self.queue[self.done : count]:
            copy()
        self.done = max(self.done, len(self.queue) if count is None else count)

    def array(self, size):
        """A device array, on the host."""
        held = np.zeros(size, np.float32)

        def copy(source, nbytes, stream):
            self.queue.append(lambda: ctypes.memmove(held.ctypes.data, source, nbytes))

        data = types.SimpleNamespace(copy_from_host_async=copy)
        return types.SimpleNamespace(held=held, dtype=held.dtype, shape=held.shape, data=data)


class LateEvent:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self, stream):
        self.place = len(self.gpu.queue)

    done = property(lambda self: self.gpu.done >= self.place)

    def synchronize(self):
        self.gpu.finish(self.place)


class PageLocked(bytearray):
    ptr = property(lambda self: np.frombuffer(self, np.uint8).ctypes.data)

    def size(self):
        return len(self)


def test_uploads_arrive_whatever_happens_to_the_arrays_afterwards():
    gpu = LateGpu()
    staging = _Staging(gpu, LateEvent.synchronize)
    arrived = []
    for k in range(30):
        size = 5 + 7 * k % 40
        given = np.arange(size, dtype=np.float32) + k
        out = gpu.array(size)
        staging.upload(given, out)
        arrived.append((out, given.copy()))
        given[...] = -1
        if k == 20:
            gpu.finish()
    gpu.finish()
    for out, expected in arrived:
        assert np.array_equal(out.held, expected)


def test_page_locked_memory_serves_again():
    gpu = LateGpu()
    staging = _Staging(gpu, LateEvent.synchronize)
    for _ in range(50):
        staging.upload(np.ones(8, np.float32), gpu.array(8))
        gpu.finish()
    assert len(gpu.allocated) == 1
    for _ in range(50):
        staging.upload(np.ones(8, np.float32), gpu.array(8))
    assert len(gpu.allocated) <= staging.BUFFERS


# ---- on a GPU


@pytest.mark.gpu
def test_a_gpu_holds_what_it_is_given():
    gpu = devices.gpu_device(0)
    rng = np.random.default_rng(0)
    for size in (1, 1000, 5, 1 << 20, 0):
        values = rng.standard_normal(size).astype(np.float32)
        given = values.copy()
        there = gpu.to_device(given)
        given[...] = 0  # at once: the caller may
        assert np.array_equal(gpu.to_host(there), values)
        out = np.empty_like(values)
        gpu.to_host(there, out)
        assert np.array_equal(out, values) and devices.device_of(there) is gpu


@pytest.mark.gpu
def test_many_uploads_keep_their_order():
    gpu = devices.gpu_device(0)
    out = gpu.zeros(1 << 18, np.float32)
    sums = []
    for k in range(40):
        gpu.to_device(np.full(1 << 18, k, np.float32), out)
        sums.append(out.sum())
    assert [float(s) / (1 << 18) for s in sums] == list(range(40))


@pytest.mark.gpu
def test_waits_are_counted_on_a_gpu():
    gpu = devices.gpu_device(0)
    array = gpu.to_device(np.arange(6, dtype=np.float32))
    waits = {
        "float": lambda: float(array.sum()), "if": lambda: bool(array.any()),
        "get": lambda: array.get(), "mask": lambda: array[array > 1],
        "nonzero": lambda: gpu.xp.flatnonzero(array), "to_host": lambda: gpu.to_host(array),
    }  # fmt: skip
    for what, wait in waits.items():
        with transfers.watch(gpu) as log:
            wait()
        assert len(log.synchronisations()[0]) == 1, (what, log.report())
    with transfers.watch(gpu) as log:
        gpu.xp.asarray(np.zeros(3, np.float32))
        gpu.to_device(np.zeros(3, np.float32))
    assert [t.kind for t in log.iterations[0]] == ["upload", "upload"]
    assert "get" not in vars(gpu.xp.ndarray)


@pytest.mark.gpu
def test_a_kernel_runs_on_a_gpu():
    gpu = devices.gpu_device(0)
    array = gpu.to_device(np.arange(6, dtype=np.float32))
    text = (
        'extern "C" __global__ void twice(float *x, int n)'
        "{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] *= 2; }"
    )
    gpu.compile(text).get_function("twice")((1,), (32,), (array, np.int32(6)))
    assert gpu.to_host(array).tolist() == [0, 2, 4, 6, 8, 10]
