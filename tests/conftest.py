"""What tests of several folders use."""

import logging

import pytest


@pytest.fixture
def log_as_it_was():
    """For tools, which set up the log of their process."""
    logger = logging.getLogger("demitasse")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
