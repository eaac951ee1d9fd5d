"""Nets of files, as programs for pycaffe have them."""

import pytest
from pycaffe_nets import DEPLOY

import caffe


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path, which is a str as programs have it."""

    def write(text, name="net.prototxt"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def net(write):
    """A net of DEPLOY, with the same weights each time."""
    caffe.set_random_seed(1)
    yield caffe.Net(write(DEPLOY), caffe.TEST)
    caffe.set_random_seed(None)
