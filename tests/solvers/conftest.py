"""What tests of solvers share beside `tiny_solver`."""

import logging

import pytest


@pytest.fixture
def whole_log(caplog):
    """`caplog` holds what is logged from INFO up."""
    caplog.set_level(logging.INFO, "demitasse")
