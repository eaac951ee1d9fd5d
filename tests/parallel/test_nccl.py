"""NCCL: one rank on a GPU; and without one, what is asked of CuPy, by a stand-in for it."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rank_work

from demitasse.engine import device as devices
from demitasse.engine.device import CpuDevice
from demitasse.engine.errors import DeviceError
from demitasse.engine.kernels.cuda import nccl
from demitasse.solvers.parallel import ALONE
from demitasse.solvers.parallel.nccl import NcclCommunicator


class FakeArray(SimpleNamespace):
    """What is read of a cupy.ndarray: size, dtype, data.ptr."""


class FakeCuda:
    """Notes what the streams are asked for, in order."""

    def __init__(self, available=True):
        self.calls = calls = []
        self.current = self._stream("compute")
        self.get_current_stream = lambda: self.current
        self.Stream = lambda non_blocking: self._stream("sums")
        self.Event = lambda disable_timing: SimpleNamespace(after=None)

        class Communicator:
            def __init__(self, size, unique_id, rank):
                calls.append(("connect", size, unique_id, rank))

            def allReduce(self, *args):
                calls.append(("sum", *args))

            def destroy(self):
                calls.append(("destroy",))

        self.nccl = SimpleNamespace(
            available=available, get_unique_id=lambda: bytes(range(128)), NCCL_SUM=0,
            NCCL_FLOAT32=7, NCCL_FLOAT64=8, NcclCommunicator=Communicator, NcclError=RuntimeError,
        )  # fmt: skip

    def _stream(self, name):
        stream = SimpleNamespace(ptr=f"pointer of {name}")

        def record(event):
            self.calls.append(("record", name, event))
            return event

        stream.record = record
        stream.wait_event = lambda event: self.calls.append(("wait", name, event))
        stream.synchronize = lambda: self.calls.append(("synchronize", name))
        return stream


@pytest.fixture
def cuda(monkeypatch):
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    return cuda


def test_a_sum_waits_for_its_gradients_and_the_update_for_the_sum(cuda):
    device = SimpleNamespace(activate=lambda: cuda.calls.append(("activate",)))
    group = nccl.Group(device, nccl.unique_id(), 1, 2)
    array = FakeArray(size=5, dtype=np.dtype("f4"), data=SimpleNamespace(ptr=99))
    ticket = group.begin_sum(array)
    group.wait(ticket)
    group.close()
    kinds = [call[:2] for call in cuda.calls]
    assert kinds == [
        ("activate",), ("connect", 2), ("record", "compute"), ("wait", "sums"), ("sum", 99),
        ("record", "sums"), ("wait", "compute"), ("synchronize", "sums"), ("destroy",),
    ]  # fmt: skip
    assert cuda.calls[1][2:] == (bytes(range(128)), 1)
    assert cuda.calls[4] == ("sum", 99, 99, 5, 7, 0, "pointer of sums")
    assert cuda.calls[2][2] is cuda.calls[3][2] and cuda.calls[5][2] is cuda.calls[6][2]
    assert ticket[0] is array  # its memory is not given away meanwhile


def test_types_that_nccl_does_not_sum(cuda):
    group = nccl.Group(SimpleNamespace(activate=lambda: None), nccl.unique_id(), 0, 1)
    array = FakeArray(size=5, dtype=np.dtype("i4"), data=SimpleNamespace(ptr=99))
    with pytest.raises(DeviceError, match="gradients of float16, bfloat16, float32, float64"):
        group.begin_sum(array)


def test_cupy_without_nccl(cuda):
    cuda.nccl.available = False
    with pytest.raises(DeviceError, match=r"the library NCCL, found none .*nvidia-nccl-cu13"):
        nccl.unique_id()


def test_the_solver_asks_for_sums_of_one_rank_too():
    """With a sum of nothing else, one rank trains as a solver does alone, bit by bit."""
    device = CpuDevice()
    device.kernels.nccl = SimpleNamespace(unique_id=lambda: "", Group=_NoSum)
    solver = rank_work.small_solver(NcclCommunicator(ALONE, device))
    solver.solve()
    assert _NoSum.sums == 6
    check_as_alone(solver)


class _NoSum:
    sums = 0

    def __init__(self, device, unique_id, rank, size):
        assert (unique_id, rank, size) == ("", 0, 1)

    def begin_sum(self, array):
        assert array.size == 83
        _NoSum.sums += 1

    def wait(self, ticket):
        pass


def check_as_alone(solver, **options):
    alone = rank_work.small_solver(**options)
    alone.solve()
    expected = rank_work.weights_of(alone)
    for name, values in rank_work.weights_of(solver).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.gpu
def test_one_rank_on_a_gpu():
    try:
        device = devices.gpu_device(0)
    except DeviceError as error:
        pytest.skip(str(error))
    if not pytest.importorskip("cupy.cuda.nccl").available:
        pytest.skip("CuPy finds no NCCL")
    communicator = NcclCommunicator(ALONE, device)
    values = device.xp.arange(1000, dtype="f4")
    communicator.begin_sum(values).wait()
    np.testing.assert_array_equal(device.to_host(values), np.arange(1000, dtype="f4"))
    solver = rank_work.small_solver(communicator, device=device)
    solver.solve()
    check_as_alone(solver, device=device)
    communicator.close()
