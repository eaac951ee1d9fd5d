"""Blobs on a device: NumPy arrays and device arrays agree, and are copied only when they must."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.strategies import booleans, integers

from demitasse.engine import storage, transfers
from demitasse.engine.blob import Blob, read_together
from demitasse.engine.device import gpu_device
from demitasse.engine.errors import NetError
from demitasse.engine.memory import Pool
from demitasse.engine.strict_device import StrictDevice


@pytest.fixture(params=["strict", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    return gpu_device(0) if request.param == "gpu" else StrictDevice()


@pytest.fixture
def blob(device):
    return Blob((2, 3), np.float32, device)


def kinds(log):
    return [t.kind for t in log.iterations[-1]]


def values(blob):
    """What is on the device."""
    return blob.device.to_host(blob.array.copy())


def test_begins_with_zeros_on_both_sides(blob):
    assert not blob.has_data and not blob.has_grad
    assert values(blob).tolist() == [[0, 0, 0]] * 2 and blob.diff.tolist() == [[0, 0, 0]] * 2
    assert isinstance(blob.data, np.ndarray) and not isinstance(blob.array, np.ndarray)


def test_each_side_sees_what_the_other_wrote(blob):
    blob.data[...] = 1
    blob.array[...] += 1
    blob.data[0] += 1
    blob.array[1] *= 5
    assert blob.data.tolist() == [[3, 3, 3], [10, 10, 10]]
    blob.grad[...] = 4
    blob.diff[0, 0] = 7
    assert blob.device.to_host(blob.grad).tolist() == [[7, 4, 4], [4, 4, 4]]


def test_copies_are_made_only_when_asked_for(blob, device):
    with transfers.watch(device) as log:
        blob.data[...] = 1
        blob.data[0] = 2
        assert kinds(log) == []
        blob.array  # noqa: B018
        blob.array  # noqa: B018
        assert kinds(log) == ["upload"]
        blob.host_data  # noqa: B018
        blob.host_data  # noqa: B018
        assert kinds(log) == ["upload", "download"]
        blob.array  # noqa: B018
    assert kinds(log) == ["upload", "download"]  # who only reads does not make the host count


def test_reading_alone_gives_an_array_to_read_alone(blob):
    blob.array[...] = 3
    assert blob.host_data.tolist() == [[3, 3, 3]] * 2
    with pytest.raises(ValueError, match="read-only"):
        blob.host_data[0] = 1
    blob.grad[...] = 4
    assert blob.host_diff.tolist() == [[4, 4, 4]] * 2


def test_an_array_that_is_kept_is_noticed(blob, device):
    kept = blob.data[1:]  # a view of a view
    blob.array[...] = 1
    assert blob.data.tolist() == [[1, 1, 1]] * 2 and kept.tolist() == [[1, 1, 1]]
    blob.array  # noqa: B018
    kept[0, 2] = 9  # after the device has taken the values
    assert values(blob)[1].tolist() == [1, 1, 9]
    kept[0, 0] = 8
    assert blob.data[1].tolist() == [8, 1, 9]
    kept[0, 1] = 7
    del kept  # nobody can write any more, but somebody has
    assert values(blob)[1].tolist() == [8, 7, 9]
    with transfers.watch(device) as log:
        blob.array  # noqa: B018
    assert kinds(log) == []


def test_a_kept_array_does_not_hide_what_the_device_computed(blob):
    kept = blob.data
    for k in range(3):
        blob.array[...] += 1
        assert blob.host_data[0, 0] == k + 1
    assert kept[0, 0] == 3


def test_overwriting_needs_no_download(blob, device):
    blob.array[...] = 1
    with transfers.watch(device) as log:
        blob.set_data(np.arange(6))
        assert blob.data.ravel().tolist() == [0, 1, 2, 3, 4, 5]  # few: kept on the host too
    assert kinds(log) == ["upload"]
    assert values(blob).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_overwriting_on_the_host_needs_no_download(blob, device):
    kept = blob.data
    blob.array[...] = 1
    with transfers.watch(device) as log:
        blob.blank_data[...] = 2
    assert kinds(log) == [] and kept.tolist() == values(blob).tolist() == [[2, 2, 2]] * 2


def test_results_are_read_together(device):
    blobs = [Blob(shape, np.float32, device) for shape in ((2, 2), (3,), (0, 4), (1,))]
    for k, blob in enumerate(blobs):
        blob.array[...] = k
    with transfers.watch(device) as log:
        read_together(blobs)
        assert kinds(log) == ["download"]
        assert [blob.host_data.ravel().tolist() for blob in blobs] == [[0] * 4, [1] * 3, [], [3]]
    assert kinds(log) == ["download"]
    read_together([])
    read_together([Blob((2,))])


def test_a_kept_array_shows_what_set_data_wrote(device, monkeypatch):
    monkeypatch.setattr(storage, "_SMALL", 0)
    blob = Blob((4,), np.float32, device)
    kept = blob.data
    blob.array  # noqa: B018
    blob.set_data([1, 2, 3, 4])
    assert kept.tolist() == [1, 2, 3, 4] and values(blob).tolist() == [1, 2, 3, 4]
    kept[0] = 5
    assert values(blob).tolist() == [5, 2, 3, 4]


def test_what_is_written_on_the_host_alone_stays_there(blob, device):
    blob.data_storage.written_on_host = True
    blob.data[...] = 1
    blob.array  # noqa: B018
    with transfers.watch(device) as log:
        blob.data[...] = 2
        assert kinds(log) == []
        assert values(blob)[0, 0] == 2
    assert kinds(log) == ["upload", "download"]  # the download is `values`


def test_fillers_run_on_the_host_when_first_looked_at(blob, device):
    calls = []

    def fill(flat):
        assert isinstance(flat, np.ndarray)
        calls.append(flat.size)
        flat[...] = np.arange(flat.size)

    blob.fill_data(fill)
    blob.fill_diff(lambda flat: flat.fill(0.5))
    assert not calls
    assert values(blob).ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert blob.data.ravel().tolist() == [0, 1, 2, 3, 4, 5] and calls == [6]
    assert blob.diff[0, 0] == 0.5 and device.to_host(blob.grad)[0, 0] == 0.5
    other = Blob((6,), np.float32, device)
    other.fill_data(fill)
    other.set_data(np.ones(6))
    assert values(other).tolist() == [1] * 6 and calls == [6]


def test_shared_memory_is_shared_on_both_sides(blob, device):
    other = Blob((3, 2), np.float32, device)
    other.share_data(blob)
    blob.data[...] = np.arange(6).reshape(2, 3)
    assert values(other).tolist() == [[0, 1], [2, 3], [4, 5]]
    other.array[0] = 9
    assert blob.data[0].tolist() == [9, 9, 2]


def test_growing_loses_values_and_shrinking_keeps_them(blob):
    blob.data[...] = 1
    blob.reshape(1, 3)
    assert values(blob).tolist() == [[1, 1, 1]]
    blob.reshape(4, 3)
    assert not values(blob).any()
    blob.array[...] = 2
    blob.reshape(2)
    assert blob.data.tolist() == [2, 2]
    blob.reshape(5, 5)
    assert not blob.data.any() and not values(blob).any()


def test_a_released_buffer_is_an_error_to_look_at(blob, device):
    memory = blob.data_storage
    memory.pool = Pool(device)
    blob.array[...] = 1
    memory.pool.give(memory.buffer)
    memory.buffer, memory.gone = None, True
    for look in (lambda: blob.data, lambda: blob.array, lambda: blob.host_data):
        with pytest.raises(NetError, match="keep"):
            look()
    memory.gone = False
    blob.array[...] = 3
    assert blob.data.tolist() == [[3, 3, 3]] * 2


def test_differences_are_found_wherever_they_are():
    a = np.zeros(300001, np.float32)
    for place in (0, 1, 262143, 262144, 300000):
        b = a.copy()
        assert not storage._differ(a, b)
        b[place] = -0.0  # another bit pattern
        assert storage._differ(a, b)


class InStep(RuleBasedStateMachine):
    """A blob, and the array that it ought to be, written from all sides in any order."""

    @initialize()
    def start(self):
        self.blob = Blob((4,), np.float32, StrictDevice())
        self.expected = np.zeros(4, np.float32)
        self.kept = None

    @rule(place=integers(0, 3), value=integers(0, 9))
    def host_writes(self, place, value):
        self.blob.data[place] = self.expected[place] = value

    @rule(place=integers(0, 3), value=integers(0, 9))
    def device_writes(self, place, value):
        self.blob.array[place] = value
        self.expected[place] = value

    @rule(value=integers(0, 9))
    def all_is_overwritten(self, value):
        self.blob.set_data(np.full(4, value))
        self.expected[...] = value

    @rule()
    def keep(self):
        self.kept = self.blob.data

    @rule()
    def let_go(self):
        self.kept = None

    @rule(place=integers(0, 3), value=integers(0, 9))
    def kept_array_is_written(self, place, value):
        # What the device computed since would be lost: it is looked at first, as in Caffe.
        if self.kept is not None:
            self.blob.host_data  # noqa: B018
            self.kept[place] = self.expected[place] = value

    @rule(on_device=booleans())
    def look(self, on_device):
        got = values(self.blob) if on_device else self.blob.host_data
        assert np.array_equal(got, self.expected)


InStep.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestInStep = InStep.TestCase
