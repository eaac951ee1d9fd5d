"""Kernels, threads and forks. Each case runs in a process of its own."""

import importlib.metadata
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from demitasse.engine.kernels.cpu import convolution, pooling
from demitasse.engine.kernels.geometry import ConvGeometry, PoolGeometry

WORK = """
import os, sys, threading
import numpy as np

def work(seed=0):
    from demitasse.engine.kernels.cpu import convolution
    from demitasse.engine.kernels.geometry import ConvGeometry
    rng = np.random.default_rng(seed)
    g = ConvGeometry(2, 3, 4, (9, 8), (9, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    x = rng.standard_normal(g.in_shape).astype(np.float32)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    y, dx = np.empty(g.out_shape, np.float32), np.empty_like(x)
    for _ in range(20):
        convolution.forward(x, weight, None, y, g)
        convolution.backward_data(y, weight, dx, g)
    return float(y.sum()), float(dx.sum())

def in_child():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() == expected else 3)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"the child ended with status {status}"

def in_threads(count=4):
    results = [None] * count
    def run(i):
        results[i] = work(i)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert results == [work(i) for i in range(count)], results
"""

HIDE_TBB = """
import ctypes
load = ctypes.CDLL
def missing(name, *args, **kwargs):
    if name and "tbb" in os.path.basename(str(name)):
        raise OSError(f"{name}: hidden by this test")
    return load(name, *args, **kwargs)
ctypes.CDLL = missing
"""


def run(code, **environment):
    """The last line that a Python process prints, or a failed test with its output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "OMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", WORK + code], env=env | environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return (result.stdout.splitlines() or [""])[-1]


def has_tbb():
    try:
        return importlib.metadata.version("tbb")
    except importlib.metadata.PackageNotFoundError:
        return None


LAYER = "import numba; print(numba.threading_layer())"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity"
)


@needs_fork
def test_fork_after_use_and_before():
    use = run("expected = work(); in_child(); in_child(); assert work() == expected\n" + LAYER)
    assert use == ("tbb" if has_tbb() else "workqueue")
    run("import caffe, ast\nexpected = ast.literal_eval(os.environ['EXPECTED']); in_child()",
        EXPECTED=run("print(work())"))  # fmt: skip


@needs_fork
def test_fork_after_threads():
    run("in_threads(); expected = work(); in_child(); in_threads()", NUMBA_NUM_THREADS="2")


@needs_fork
def test_without_tbb():
    code = HIDE_TBB + "in_threads(); expected = work(); in_child(); in_threads()\n" + LAYER
    assert run(code, NUMBA_NUM_THREADS="2") == "workqueue"


def test_environment_limits_the_threads():
    count = "work(); import numba; print(numba.get_num_threads())"
    assert run(count, OMP_NUM_THREADS="1") == "1"
    assert run(count, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="2") == "2"
    assert run(count, OMP_NUM_THREADS="1,1") == "1"
    assert run(count, OMP_NUM_THREADS="none") == run(count)


@needs_affinity
def test_affinity_limits_the_threads():
    pin = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    count = "work(); import numba; print(numba.get_num_threads())"
    assert run(pin + count) == "1"
    assert run(pin + count, OMP_NUM_THREADS="64") == "1"


def test_opencv_runs_on_one_thread(tmp_path):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.zeros((9, 9, 3), np.uint8))
    count = "\nimport cv2; print(cv2.getNumThreads())"
    for reader in (
        f"import caffe; caffe.io.load_image({path!r})",
        f"from demitasse.detection.datasets.image_files import read_image; read_image({path!r})",
        "from demitasse.detection import images, config\n"
        "images.prepare_image(np.zeros((9, 9, 3)), config.Config(), 9, 9)",
    ):
        assert run(reader + count, OMP_NUM_THREADS="2") == "1"
    # A program's own choice stays.
    first = f"import caffe; caffe.io.load_image({path!r})\nimport cv2; cv2.setNumThreads(2)\n"
    assert run(first + f"caffe.io.load_image({path!r})" + count) == "2"


def test_a_chosen_threading_layer_is_kept():
    assert run("work()\n" + LAYER, NUMBA_THREADING_LAYER="workqueue") == "workqueue"


def test_threads_of_this_process():
    conv = ConvGeometry(1, 4, 4, (12, 12), (12, 12), (3, 3), (1, 1), (1, 1), (1, 1))
    pool = PoolGeometry((12, 12), (6, 6), (2, 2), (2, 2), (0, 0))

    def work(seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(conv.in_shape).astype(np.float32)
        weight = rng.standard_normal((4, 4, 3, 3)).astype(np.float32)
        y, z = np.empty_like(x), np.empty((1, 4, 6, 6), np.float32)
        picks = np.empty(z.shape, np.int32)
        convolution.forward(x, weight, None, y, conv)
        pooling.max_forward(y, pool, z, picks)
        pooling.max_backward(z, picks, pool, y)
        return y

    results = {}

    def repeat(seed):
        results[seed] = [work(seed) for _ in range(20)]

    threads = [threading.Thread(target=repeat, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for seed in range(4):
        alone = work(seed)
        assert len(results[seed]) == 20
        for result in results[seed]:
            np.testing.assert_array_equal(result, alone)
