"""Machine code on disk belongs to one version of all kernel files."""

import os
import subprocess
import sys

from demitasse.engine.kernels.cpu import blas, sources_digest

SUMS = """
import numpy as np
from demitasse.engine.kernels.cpu import blas, channelwise, lrn, pooling, softmax
rng = np.random.default_rng(0)
vector = rng.standard_normal(12).astype(np.float32)
for count in (7, 100, 300, 3000):
    x = rng.standard_normal((2, 12, count)).astype(np.float32)
    flipped, out, means = x[::-1].copy(), np.empty_like(x), np.empty(12, np.float32)
    softmax.forward(x.reshape(24, count, 1), out.reshape(24, count, 1))
    pooling._means(x[0], means)
    dots = np.empty(12, np.float32)
    blas._dots(x[0], x[1, 0], dots, False)
    near, within = np.empty_like(x), np.empty_like(x)
    numbers = (5, *np.array([0.3, 0.75, 1], np.float32))
    lrn.across_backward(x, flipped, *numbers, near)
    lrn.within_backward(x, flipped, *numbers, within)
    results = [channelwise.totals(x), *channelwise.sums(x, vector, flipped, vector),
               channelwise.slope_sums(x, flipped), out, means, dots, near, within]
    print(*(hash(r.tobytes().hex()) for r in results))
"""


def test_a_kernel_is_stamped_with_all_sources():
    assert blas._products._cache._cache_file._source_stamp[1] == sources_digest()


def test_an_edit_of_any_file_changes_the_stamp(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "kernel.py").write_text("from .helper import f")
        (folder / "helper.py").write_text(f"f = {name!r}")
    assert sources_digest(tmp_path / "one") != sources_digest(tmp_path / "two")


def test_the_first_process_computes_the_same_bits_as_later_ones(tmp_path):
    """A kernel that was just compiled is not the machine code that is read from the cache."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", SUMS], env=env, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    )
    assert first == second and len(first.split()) == 36
