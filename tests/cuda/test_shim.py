"""CUDA text on the host: grids, barriers, exchanges, and what is refused."""

import numpy as np
import pytest

from demitasse.engine.errors import DeviceError
from demitasse.engine.kernels.cuda import host, launch

TEXT = r"""
#define NAMED(name) extern "C" __global__ void name
template <class T> __global__ void of_any_type(T *x) { *x = T(1); }

extern "C" __global__ void places(int *out) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] += block * threads + thread;
}

NAMED(reversed)(const float *x, float *out) {
    extern __shared__ float values[];
    for (int turn = 0; turn < 3; turn++) {
        values[threadIdx.x] = turn ? out[threadIdx.x] : x[threadIdx.x];
        __syncthreads();
        out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
        __syncthreads();
    }
}

NAMED(sums)(const double *x, double *out, int n) {
    __shared__ double parts[32];
    double whole = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) whole += x[i];
    double most = block_max(whole, parts);
    whole = block_sum(whole, parts);
    if (threadIdx.x == 0) out[0] = whole, out[1] = most;
}

NAMED(lanes)(int *out) {
    int lane = threadIdx.x % 32, *own = out + 8 * threadIdx.x;
    own[0] = __shfl_down_sync(0xffffffffu, lane, 3);
    own[1] = __shfl_up_sync(0xffffffffu, lane, 3);
    own[2] = __shfl_xor_sync(0xffffffffu, lane, 5);
    own[3] = __shfl_sync(0xffffffffu, lane, 7);
    own[4] = __popc(__ballot_sync(0xffffffffu, lane % 3 == 0));
    own[5] = __any_sync(0xffffffffu, lane == 9) + 2 * __all_sync(0xffffffffu, lane < 9);
    own[6] = __syncthreads_count(threadIdx.x < 40);
    own[7] = __syncthreads_or(threadIdx.x == 63) + 2 * __syncthreads_and(threadIdx.x < 63);
}

NAMED(apart)(int n) {
    if ((int)threadIdx.x < n) __syncthreads();
}

NAMED(racing)(int *out) {
    extern __shared__ int values[];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];  // a barrier is missing
}

NAMED(halves)(const half_t *x, float *wider, half_t *back) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    wider[i] = wide(x[i]);
    narrow(wider[i], back[i]);
}

NAMED(nearest)(const float *x, half_t *out, unsigned short *upper) {
    narrow(x[threadIdx.x], out[threadIdx.x]);
    bfloat_t kept;
    narrow(x[threadIdx.x], kept);
    upper[threadIdx.x] = kept.bits;
}
"""


@pytest.fixture(scope="module")
def kernel():
    """`kernel(name)` is one of the text above."""
    if host.compiler() is None:
        pytest.skip("no C++ compiler to compile the CUDA text with: install g++")
    return host.compile_module(launch.source("prelude.cuh") + TEXT, ("-DREAL=float",)).get_function


def test_every_thread_of_every_block_runs_once(kernel):
    out = np.zeros(2 * 3 * 4 * 5 * 3 * 2, np.int32)
    kernel("places")((2, 3, 4), (5, 3, 2), (out,))
    np.testing.assert_array_equal(out, np.arange(out.size))


def test_barriers_and_dynamic_shared_memory(kernel):
    x, out = np.arange(96, dtype=np.float32), np.zeros(96, np.float32)
    kernel("reversed")((1,), (96,), (x, out), shared_mem=x.nbytes)
    np.testing.assert_array_equal(out, x[::-1])


def test_sums_of_a_block(kernel):
    x, out = np.random.default_rng(0).random(1000), np.zeros(2)
    kernel("sums")((1,), (128,), (x, out, np.int32(1000)))
    parts = [x[k::128].sum() for k in range(128)]
    np.testing.assert_allclose(out, [x.sum(), max(parts)], rtol=1e-14)


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_exchanges_between_lanes(kernel, order):
    out = np.zeros((64, 8), np.int32)
    if order == "backwards":
        with host.backwards():
            kernel("lanes")((1,), (64,), (out,))
    else:
        kernel("lanes")((1,), (64,), (out,))
    lane = np.arange(64) % 32
    np.testing.assert_array_equal(out[:, 0], np.where(lane + 3 < 32, lane + 3, lane))
    np.testing.assert_array_equal(out[:, 1], np.where(lane >= 3, lane - 3, lane))
    np.testing.assert_array_equal(out[:, 2], lane ^ 5)
    np.testing.assert_array_equal(out[:, 3:], np.tile([7, 11, 1, 40, 1], (64, 1)))


def test_another_order_shows_a_missing_barrier(kernel):
    forwards, backwards = np.zeros((2, 4), np.int32)
    kernel("racing")((1,), (4,), (forwards,), shared_mem=16)
    with host.backwards():
        kernel("racing")((1,), (4,), (backwards,), shared_mem=16)
    # What was not written yet is all ones.
    assert forwards.tolist() == [-1, -1, 1, 0] and backwards.tolist() == [3, 2, -1, -1]
    out = np.zeros(96, np.float32)
    with host.backwards():
        kernel("reversed")((1,), (96,), (np.arange(96, dtype=np.float32), out), shared_mem=384)
    np.testing.assert_array_equal(out, np.arange(96)[::-1])


def test_a_barrier_that_not_all_come_to_is_an_error(kernel):
    with pytest.raises(DeviceError, match="come to each barrier"):
        kernel("apart")((1,), (64,), (np.int32(3),))
    kernel("apart")((1,), (64,), (np.int32(64),))  # and the next launch is not harmed


def test_halves_are_those_of_numpy(kernel):
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wider, back = np.zeros(x.size, np.float32), np.zeros_like(x)
    kernel("halves")((256,), (256,), (x, wider, back))
    np.testing.assert_array_equal(wider, x.astype(np.float32))
    np.testing.assert_array_equal(back, x)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(1000) * 10.0 ** rng.integers(-9, 6, 1000)).astype(np.float32)
    x[:6] = 65519, 65520, 1 + 2**-11, 1 + 3 * 2**-11, 2**-25, -0.0
    out, upper = np.zeros(1000, np.float16), np.zeros(1000, np.uint16)
    kernel("nearest")((1,), (1000,), (x, out, upper))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, x.astype(np.float16))
    kept = (upper.astype(np.uint32) << 16).view(np.float32)
    assert (np.abs(kept - x) <= np.abs(x) * 2.0**-8).all() and kept[2] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, y: (x, y), "3 arguments"),
        (lambda x, y: (x.astype("f"), y, np.int32(9)), "array of f8"),
        (lambda x, y: (x, y, 9), "of type i4"),
        (lambda x, y: (x, y, 9.0), "NumPy scalar"),
        (lambda x, y: (x[::2], y, np.int32(9)), "contiguous"),
        (lambda x, y: (x, 7, np.int32(9)), "of type f8"),
        (lambda x, y: (x, y, y), "a number"),
    ],
)
def test_arguments_that_do_not_fit_the_parameters(kernel, arguments, message):
    with pytest.raises(DeviceError, match=message):
        kernel("sums")((1,), (32,), arguments(np.zeros(10), np.zeros(2)))


def test_a_result_that_must_not_be_written(kernel):
    out = np.zeros(2)
    out.flags.writeable = False
    with pytest.raises(DeviceError, match="writeable"):
        kernel("sums")((1,), (32,), (np.zeros(10), out, np.int32(9)))


def test_blocks_that_no_gpu_runs(kernel):
    with pytest.raises(DeviceError, match="that a GPU can run"):
        kernel("apart")((1,), (2048,), (np.int32(0),))


def test_names_and_text_that_do_not_exist(kernel):
    for name in ("none", "of_any_type"):
        with pytest.raises(DeviceError, match='extern "C"'):
            kernel(name)
    with pytest.raises(DeviceError, match=r"\by\b.*was not declared"):
        host.compile_module('extern "C" __global__ void f(int x) { y = x; }')


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"Install g\+\+"):
        host.compile_module('extern "C" __global__ void g() {}')


def test_included_files_stand_in_the_text():
    text = launch.source("activations.cu")
    assert '#include "' not in text and text.count("struct half_t") == 1
