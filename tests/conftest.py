"""What tests of several folders use."""

import logging

import pytest

from demitasse.engine.device import gpu_device
from demitasse.engine.errors import DeviceError
from demitasse.engine.kernels.cuda import host
from demitasse.engine.strict_device import StrictDevice


def pytest_collection_modifyitems(items):
    """Skip tests marked `gpu` where there is none, with what is missing as the reason."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    try:
        gpu_device(0)
    except DeviceError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture
def strict_device():
    """A device that runs the CUDA text on the host; skips where it cannot be compiled."""
    if host.compiler() is None:
        pytest.skip("no C++ compiler to compile the CUDA text with: install g++")
    return StrictDevice()


@pytest.fixture
def log_as_it_was():
    """For tools, which set up the log of their process."""
    logger = logging.getLogger("demitasse")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
