"""Local response normalisation: the CUDA text against the CPU's kernels in double precision."""

import numpy as np
import pytest

from demitasse.engine.kernels.cpu import lrn as cpu

rng = np.random.default_rng(0)


@pytest.mark.parametrize("kind, shape", [("across", (2, 7, 300)), ("within", (3, 9, 20))])
@pytest.mark.parametrize("size, beta", [(5, 0.75), (3, 0.6), (1, 1.0), (101, 0.75)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_both_passes(place, kind, shape, size, beta, dtype):
    numbers = size, np.float64(0.3), np.float64(beta), np.float64(1.5)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    y, dx = (np.empty(shape) for _ in range(2))
    getattr(cpu, f"{kind}_forward")(x.astype(float), *numbers, y)
    getattr(cpu, f"{kind}_backward")(x.astype(float), dy.astype(float), *numbers, dx)
    found, slopes = place.put(np.zeros_like(x), np.zeros_like(x))
    getattr(place.lrn, f"{kind}_forward")(place.put(x), *numbers, found)
    getattr(place.lrn, f"{kind}_backward")(*place.put(x, dy), *numbers, slopes)
    near = {np.float16: 1e-3, np.float32: 1e-5, np.float64: 1e-13}[dtype]
    np.testing.assert_allclose(place.get(found), y, rtol=0, atol=near * abs(y).max())
    np.testing.assert_allclose(place.get(slopes), dx, rtol=0, atol=near * abs(dx).max())
