"""Blobs: an array and its gradient, with a shape that may change from pass to pass."""

import numpy as np

from .device import CPU
from .errors import NetError
from .storage import MirroredStorage, PartStorage, Storage

MAX_COUNT = 2**31 - 1  # Caffe counts elements in a C int


def check_shape(shape, where="blob"):
    """`shape` as a tuple of ints, or an error before any memory is taken for it."""
    given = shape = tuple(shape)
    try:
        shape = tuple(int(d) for d in given)
    except (TypeError, ValueError, OverflowError):
        raise NetError(where, "a shape of integers", repr(given)) from None
    if shape != given:  # 2.0 will do, 2.5 will not
        raise NetError(where, "a shape of integers", repr(given), "Divide with //.")
    count = 1
    for d in shape:
        if d < 0:
            raise NetError(where, "no negative dimension", f"shape {shape}")
        count *= d or 1  # a dimension of 0 must not hide absurd ones
    if count > MAX_COUNT:
        raise NetError(where, f"at most {MAX_COUNT} elements", f"shape {shape} with {count}")
    return shape


class Blob:
    """A shape with two arrays of it: the values and their gradient.

    `array` and `grad` are the device's arrays, which layers use; `data` and `diff` are NumPy
    arrays that a user may keep and write into. On the CPU they are the same memory; elsewhere a
    `Blob` is a `DeviceBlob`. Memory is taken at first access, so the gradients of a net that only
    runs forward cost nothing.

    `shaped` is False for a blob that still has the shape (0,) that it began with.
    """

    __slots__ = (
        "__weakref__", "_array", "_array_of", "_data", "_diff", "_grad", "_grad_of",
        "count", "device", "dtype", "shape", "shaped",
    )  # fmt: skip

    _storage = Storage

    def __new__(cls, shape=(0,), dtype=np.float32, device=CPU):
        return super().__new__(cls if device.is_host else DeviceBlob)

    def __init__(self, shape=(0,), dtype=np.float32, device=CPU):
        self.dtype = np.dtype(dtype)
        self.device = device
        self._data = self._storage(self.dtype, device)
        self._diff = self._storage(self.dtype, device)
        self.shape = None
        self.reshape(*shape)
        self.shaped = shape != (0,)

    # ---- shape

    def reshape(self, *shape):
        """Set the shape. Values are kept while the memory suffices and lost when it grows."""
        if len(shape) == 1 and not isinstance(shape[0], int):
            shape = tuple(shape[0]) if np.ndim(shape[0]) else shape
        self.shaped = True
        if shape == self.shape:
            return
        self.shape = check_shape(shape)
        count = 1
        for d in self.shape:
            count *= d
        self.count = count
        self._array = self._grad = self._array_of = self._grad_of = None
        if type(self._data) is PartStorage:
            self._data = self._data.alone

    def reshape_like(self, other):
        """Take the shape of another blob."""
        self.reshape(*other.shape)

    @property
    def num_axes(self):
        """The number of dimensions."""
        return len(self.shape)

    def count_from(self, start, stop=None):
        """The product of the dimensions from axis `start` up to, not including, `stop`."""
        count = 1
        for d in self.shape[start:stop]:
            count *= d
        return count

    def _legacy(self, axis):
        if len(self.shape) > 4:
            raise NetError(
                "blob", "at most 4 axes for num, channels, height, width", f"shape {self.shape}",
                "Use blob.shape.",
            )  # fmt: skip
        return self.shape[axis] if axis < len(self.shape) else 1

    num = property(lambda self: self._legacy(0), doc="First of four dimensions (legacy).")
    channels = property(lambda self: self._legacy(1), doc="Second of four dimensions (legacy).")
    height = property(lambda self: self._legacy(2), doc="Third of four dimensions (legacy).")
    width = property(lambda self: self._legacy(3), doc="Last of four dimensions (legacy).")

    # ---- memory

    @property
    def array(self):
        """The values on the device, in this blob's shape."""
        storage = self._data
        view = self._array
        if view is None or self._array_of is not storage.buffer:
            view = self._array = storage.flat(self.count).reshape(self.shape)
            self._array_of = storage.buffer
        return view

    @property
    def grad(self):
        """The gradient on the device, in this blob's shape."""
        storage = self._diff
        view = self._grad
        if view is None or self._grad_of is not storage.buffer:
            view = self._grad = storage.flat(self.count).reshape(self.shape)
            self._grad_of = storage.buffer
        return view

    @property
    def data(self):
        """The values as a NumPy array to read and to write into."""
        return self.array

    @property
    def diff(self):
        """The gradient as a NumPy array to read and to write into."""
        return self.grad

    @property
    def blank_data(self):
        """`data` for those who overwrite it all: nobody waits for what the device has."""
        return self.array

    @property
    def host_data(self):
        """`data` for those who only read: what the device has stays valid."""
        return self.array

    @property
    def host_diff(self):
        """`diff` for those who only read."""
        return self.grad

    @property
    def has_data(self):
        """Whether memory for the values has been taken."""
        return self._data.has_memory

    data_storage = property(lambda self: self._data, doc="The `Storage` of the values.")
    diff_storage = property(lambda self: self._diff, doc="The `Storage` of the gradient.")

    @property
    def has_grad(self):
        """Whether memory for the gradient has been taken."""
        return self._diff.has_memory

    def clear_grad(self):
        """Have the gradient be zero, from its next access on."""
        self._diff.clear()

    def grad_to_add_to(self):
        """`grad` for a layer that adds to it all, and whether it must: otherwise the gradient is
        zero, what the array holds is not, and the layer overwrites it."""
        fresh = self._diff.begin(self.count)
        return self.grad, not fresh

    def fill_data(self, fill):
        """Have `fill(flat NumPy array)` write the values when they are first looked at."""
        self._data.reset(fill)

    def fill_diff(self, fill):
        """Have `fill(flat NumPy array)` write the gradient whenever memory is taken for it."""
        self._diff.reset(fill)

    def set_data(self, values):
        """Overwrite all values by `values`, which has as many; a pending filler is dropped."""
        if not self.has_data:
            self._data.drop_fill()
        self.array[...] = np.asarray(values).reshape(self.shape)

    def share_data(self, other):
        """Use the memory of `other`'s values, which has room for as many."""
        self._check_room(other)
        self._data = other._data

    def share_diff(self, other):
        """Use the memory of `other`'s gradient, which has room for as many."""
        self._check_room(other)
        self._diff = other._diff

    def lie_in(self, other, start):
        """Have the values in the memory of `other`'s, from element `start`, while shapes last."""
        alone = self._data
        values = self.array if self.has_data else None
        self._data = PartStorage(other, start, self.count, alone)
        self._array = self._array_of = None
        if values is not None:
            self.array[...] = values
        alone.give_back()

    def lie_alone(self):
        """Have the values in memory of this blob again, if they were in another's."""
        if type(self._data) is PartStorage:
            values = self.array if self.has_data else None
            self._data = self._data.alone
            self._array = self._array_of = None
            if values is not None:
                self.array[...] = values

    @property
    def lies_in_other(self):
        """Whether the values are in the memory of another blob's."""
        return type(self._data) is PartStorage

    def _check_room(self, other):
        if self.count != other.count:
            raise NetError(
                "sharing blobs", f"equal numbers of elements for shape {self.shape}",
                f"shape {other.shape}",
            )  # fmt: skip

    def __repr__(self):
        return f"Blob(shape={self.shape}, dtype={self.dtype})"


class DeviceBlob(Blob):
    """A blob on another device than the host: NumPy arrays are copies, kept in step (storage.py).

    To look at `data` or `diff` waits for the device, and takes what is written into them there
    before it computes with the blob again.
    """

    __slots__ = ()
    _storage = MirroredStorage

    @property
    def array(self):
        """The values on the device, in this blob's shape."""
        storage = self._data
        storage.touch(self.count)
        view = self._array
        if view is None or self._array_of is not storage.buffer:
            view = self._array = storage.buffer[: self.count].reshape(self.shape)
            self._array_of = storage.buffer
        return view

    @property
    def grad(self):
        """The gradient on the device, in this blob's shape."""
        storage = self._diff
        storage.touch(self.count)
        view = self._grad
        if view is None or self._grad_of is not storage.buffer:
            view = self._grad = storage.buffer[: self.count].reshape(self.shape)
            self._grad_of = storage.buffer
        return view

    @property
    def data(self):
        """The values as a NumPy array to read and to write into."""
        return self._data.host_flat(self.count).reshape(self.shape)

    @property
    def diff(self):
        """The gradient as a NumPy array to read and to write into."""
        return self._diff.host_flat(self.count).reshape(self.shape)

    @property
    def blank_data(self):
        """`data` for those who overwrite it all: nobody waits for what the device has."""
        return self._data.host_blank(self.count).reshape(self.shape)

    @property
    def host_data(self):
        """`data` for those who only read: what the device has stays valid."""
        return self._data.host_read(self.count).reshape(self.shape)

    @property
    def host_diff(self):
        """`diff` for those who only read."""
        return self._diff.host_read(self.count).reshape(self.shape)

    def clear_grad(self):
        """Have the gradient be zero, at once."""
        self.device.kernels.copies.clear(self.grad)

    def grad_to_add_to(self):
        """`grad` for a layer that adds to it all, and that it must."""
        return self.grad, True

    def set_data(self, values):
        """Overwrite all values by `values`, which has as many; a pending filler is dropped."""
        if not self.has_data:
            self._data.drop_fill()
        values = np.asarray(values, self.dtype)
        self._data.write(np.ascontiguousarray(values.reshape(self.shape)).reshape(-1))


def read_together(blobs):
    """Bring the values of several blobs to the host, for whose `host_data` nobody waits then.

    On a GPU this waits once, where looking at one blob after the other waits for each.
    """
    blobs = [blob for blob in blobs if not blob.device.is_host and blob.count]
    if not blobs:
        return
    device = blobs[0].device
    values = device.to_host(device.xp.concatenate([blob.array.reshape(-1) for blob in blobs]))
    start = 0
    for blob in blobs:
        blob.data_storage.take(values[start : start + blob.count])
        start += blob.count


class BlobVec(list):
    """A layer's parameter blobs: a list with pycaffe's `add_blob`.

    Args: `propagate_down`, the layer's list of flags, one a blob; the rest as of `Blob`.
    It keeps what it needs, because users' layers use names like `self.param` for themselves.
    """

    def __init__(self, propagate_down, dtype=np.float32, device=CPU):
        super().__init__()
        self._propagate_down = propagate_down
        self.attach(dtype, device)

    def attach(self, dtype, device):
        """Make blobs of this dtype on this device from now on."""
        self._options = (dtype, device or CPU)

    def add_blob(self, *shape):
        """Append a blob of the given shape, filled with zeros."""
        self.append(Blob(shape, *self._options))
        self._propagate_down.append(True)
