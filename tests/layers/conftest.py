"""What tests of Python layers share beside `python_nets`."""

import sys

import pytest

from demitasse.layers import python


@pytest.fixture
def no_python_layers_allowed(monkeypatch, tmp_path):
    """No module is allowed, none of a test's own stays, and sys.path does not change."""
    monkeypatch.setattr(python, "_allowed", set())
    monkeypatch.delenv(python.ENVIRONMENT_VARIABLE, raising=False)
    path = list(sys.path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    monkeypatch.undo()
    assert sys.path == path
