"""Where kernels of the GPU are tested: on the host, under the shim, and on a GPU if there is one.

Tests marked `gpu` need one and are skipped elsewhere (tests/conftest.py).
"""

import pytest

from demitasse.engine.device import gpu_device


class Place:
    """A device, and arrays to it and back; other attributes are its modules of kernels."""

    def __init__(self, device):
        self.device = device

    def put(self, *arrays):
        """The arrays on the device, one by itself."""
        put = [self.device.to_device(array) for array in arrays]
        return put[0] if len(put) == 1 else put

    def get(self, array):
        """A device array as a NumPy array."""
        return self.device.to_host(array)

    def __getattr__(self, module):
        return getattr(self.device.kernels, module)


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request):
    """A `Place` of each kind of device that runs the CUDA text."""
    if request.param == "gpu":
        return Place(gpu_device(0))
    return Place(request.getfixturevalue("strict_device"))
