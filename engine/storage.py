"""The memory of blobs: on the host, or on a device with a copy on the host."""

import sys

import numpy as np

from .errors import NetError

_CHUNK = 1 << 16  # elements compared at a time
_SMALL = 1 << 14  # bytes of what is kept on the host too, where it is written there: sizes, labels


class Storage:
    """Memory that grows as needed and may serve several blobs.

    Nothing is allocated before the first access. What is in it then is written by `fill`, a
    function of the flat array: a parameter's filler, say, which is never run if weights are loaded
    over it first. Without one the memory is zero.

    A memory plan (memory.py) may set `pool`, from which memory is then taken with whatever is in
    it, and `gone`, which makes an access an error. `written_on_host` is read by MirroredStorage.
    """

    __slots__ = ("_cleared", "buffer", "device", "dtype", "fill", "gone", "pool", "written_on_host")

    def __init__(self, dtype, device):
        self.dtype = dtype
        self.device = device
        self.buffer = None
        self._cleared = None  # memory that counts as zero and waits for the next access
        self.fill = None
        self.pool = None
        self.gone = False
        self.written_on_host = True

    def reset(self, fill):
        """Forget all values; `fill(flat array)` writes those to come."""
        self.fill = fill
        self.buffer = self._cleared = None

    @property
    def has_memory(self):
        """Whether memory was taken."""
        return self.buffer is not None or self._cleared is not None

    def drop_fill(self):
        """Have the values be zero where memory is taken: the caller writes them."""
        self.fill = None

    def give_back(self):
        """Do without memory until the next access."""
        if self.pool is not None and self.buffer is not None:
            self.pool.give(self.buffer)
        self.buffer = self._cleared = None

    def clear(self):
        """Set all to zero, at the next access."""
        if self.buffer is not None:
            self._cleared, self.buffer = self.buffer, None

    def begin(self, count):
        """Whether `count` elements count as zero; then what they hold must be overwritten now."""
        fresh = self._cleared is not None and self._cleared.size >= count
        if fresh:
            self.buffer, self._cleared = self._cleared, None
        return fresh

    def flat(self, count):
        """The first `count` elements. Growing loses the contents, as in Caffe."""
        if self._cleared is not None:
            if self.begin(count):
                self.device.kernels.copies.clear(self.buffer)
            self._cleared = None
        buffer = self.buffer
        if buffer is None or buffer.size < count:
            _check_kept(self)
            take = self.device.zeros if self.pool is None else self.pool.take
            buffer = self.buffer = take(count, self.dtype)
            if self.fill is not None:
                self.fill(buffer)
        return buffer if buffer.size == count else buffer[:count]


class PartStorage:
    """A range of the values of another blob, which so holds what several write side by side.

    `alone` is the storage that the blob had, and gets back when it changes its shape.
    """

    __slots__ = ("_range", "_whole", "alone")

    def __init__(self, whole, start, count, alone):
        """The `count` elements from `start` on of the Blob `whole`."""
        self._whole = whole
        self._range = slice(start, start + count)
        self.alone = alone

    buffer = property(lambda self: self._whole.data_storage.buffer)
    gone = property(lambda self: self._whole.data_storage.gone)
    has_memory = property(lambda self: self._whole.data_storage.has_memory)

    def drop_fill(self):
        """Nothing: there is none."""

    def flat(self, count):
        """The elements, of which there are `count`."""
        return self._whole.data_storage.flat(self._whole.count)[self._range]


class MirroredStorage:
    """A `Storage` on a device other than the host, with a copy on the host for NumPy's users.

    The two are kept in step lazily, as Caffe's SyncedMemory does: either may be the one that is
    valid, or both, or none, and a copy is made when the other one is asked for. `buffer` is the
    device's.

    Whoever asks for the device's array may write into it, so the host's copy is out of date from
    then on; unless it is `written_on_host` alone, as the inputs of a net are, which the user writes
    before every pass.

    A user may keep a NumPy array that was handed out, and write into it at any time. As long as
    somebody holds one, it is compared with what it was when host and device last agreed.
    """

    __slots__ = (
        "_agreed", "_device_valid", "_host_valid", "buffer", "device", "dtype", "fill", "gone",
        "host", "pool", "written_on_host",
    )  # fmt: skip

    def __init__(self, dtype, device):
        self.dtype = dtype
        self.device = device
        self.pool = None
        self.gone = False
        self.written_on_host = False
        self.reset(None)

    def reset(self, fill):
        """Forget all values; `fill(flat NumPy array)` writes those to come."""
        self.fill = fill
        self.buffer = self.host = self._agreed = None
        self._host_valid = self._device_valid = False

    def drop_fill(self):
        """As of `Storage`."""
        self.fill = None

    @property
    def has_memory(self):
        """Whether memory was taken, here or there."""
        return self.buffer is not None or self.host is not None

    # ---- the device's side

    def touch(self, count):
        """Make `buffer` hold the values, at least `count` of them; the caller may change them."""
        if self.host is not None:
            self._notice_changes()
        buffer = self.buffer
        if buffer is None or buffer.size < count:
            self._grow_device(count)
        if not self._device_valid:
            self._bring_to_device(count)
        if not self.written_on_host:
            self._host_valid = False

    def flat(self, count):
        """The device's array of the first `count` elements, to read and to write into."""
        self.touch(count)
        return self.buffer if self.buffer.size == count else self.buffer[:count]

    def write(self, values):
        """Overwrite the first elements by those of a flat host array, on the device."""
        count = values.size
        if self.buffer is None or self.buffer.size < count:
            self._grow_device(count)
        self.device.to_device(values, self.buffer[:count])
        self._device_valid, self._host_valid = True, False
        if values.nbytes <= _SMALL or self._agreed is not None:  # which somebody holds
            if self.host is None or self.host.size < count:
                self.host = np.zeros(count, self.dtype)
            self.host[:count] = values
            self._host_valid = True
            self._agree()

    def _grow_device(self, count):
        """Take memory for the values. Growing loses them, but where the host has them all."""
        if not (self._host_valid and self.host.size >= count):
            self._host_valid = False
        _check_kept(self)
        self.buffer = None  # the old one may go before the new one comes
        take = self.device.zeros if self.pool is None else self.pool.take
        self.buffer = take(count, self.dtype)
        self._device_valid = False

    def _bring_to_device(self, count):
        if self._host_valid and self.host.size >= count:
            self.device.to_device(self.host[:count], self.buffer[:count])
            self._agree()
        elif self.fill is not None:
            values = np.zeros(self.buffer.size, self.dtype)
            self.fill(values)
            self.device.to_device(values, self.buffer)
        elif self._host_valid:  # and too small: growing loses the values
            self.buffer.fill(0)
        self._device_valid = True

    # ---- the host's side

    def host_flat(self, count):
        """The host's array of the first `count` elements, to read and to write into."""
        self._bring_to_host(count)
        self._host_valid, self._device_valid = True, False
        return self.host[:count]

    def host_blank(self, count):
        """As `host_flat`, with arbitrary contents, all of which the caller overwrites."""
        if self.host is None or self.host.size < count:
            self.host = np.zeros(count, self.dtype)
        self._host_valid, self._device_valid = True, False
        return self.host[:count]

    def host_read(self, count):
        """As `host_flat`, but only to read: the device's array stays valid."""
        self._bring_to_host(count)
        self._host_valid = True
        view = self.host[:count]
        view.flags.writeable = False
        return view

    def take(self, values):
        """Have the host's copy be a flat array of what the device has, which somebody has read."""
        if self.host is None or self.host.size < values.size:
            self.host = np.zeros(values.size, self.dtype)
        self.host[: values.size] = values
        self._host_valid = True
        self._agree()

    def _bring_to_host(self, count):
        if self.host is not None:
            self._notice_changes()
        if self._host_valid and self.host.size >= count:
            return
        on_device = self._device_valid and self.buffer is not None and self.buffer.size >= count
        if not on_device:
            _check_kept(self)
        if self.host is None or self.host.size < count:
            self.host = np.zeros(count, self.dtype)
        if on_device:
            if count:
                self.device.to_host(self.buffer[:count], self.host[:count])
            self._agree()
        elif self.fill is not None:
            self.fill(self.host)

    # ---- arrays that users hold

    def _notice_changes(self):
        """If somebody has written into the host's array since both agreed, that counts."""
        if self._agreed is None or (self._host_valid and not self._device_valid):
            return
        if _differ(self.host, self._agreed):
            self._host_valid, self._device_valid = True, False
        elif not self._held():
            self._agreed = None

    def _agree(self):
        self._agreed = self.host.copy() if self._held() else None

    def _held(self):
        """Whether somebody has the host's array, or a view of it."""
        return sys.getrefcount(self.host) > _OWN_REFERENCES


def _check_kept(storage):
    if storage.gone:
        raise NetError(
            "blob", "an array that the net keeps", 'one it has released (keep="minimal")',
            'Build the net with keep="all" to look at it.',
        )  # fmt: skip


def _own_references():
    storage = MirroredStorage(np.dtype(np.float32), None)
    storage.host = np.zeros(1, storage.dtype)
    return sys.getrefcount(storage.host)


_OWN_REFERENCES = _own_references()


def _differ(a, b):
    """Whether arrays of one size differ in any bit."""
    a, b = a.view(np.uint8), b.view(np.uint8)
    step = _CHUNK * 8
    return any(
        not np.array_equal(_words(a[k : k + step]), _words(b[k : k + step]))
        for k in range(0, a.size, step)
    )


def _words(part):
    return part.view(np.uint64) if part.size % 8 == 0 else part
