"""Arrays that behave as CuPy's do, on the host: whatever CuPy would refuse, they refuse.

They are for tests of the device path where there is no GPU (see strict_device.py).
"""

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_SCALARS = (bool, int, float, np.generic, str, type(None), type(Ellipsis), np.dtype, type)
# Their results have shapes that only the values tell, or go to the host within CuPy.
_WAITING = {"nonzero", "flatnonzero", "argwhere", "bincount", "unique", "array_equal"}
# What the layers may use of CuPy beside its ufuncs, with the keywords that CuPy has.
_FUNCTIONS = {
    "abs", "all", "any", "arange", "argmax", "argmin", "argsort", "argwhere", "array_equal",
    "ascontiguousarray", "atleast_1d", "bincount", "broadcast_to", "clip", "concatenate", "copyto",
    "count_nonzero", "cumsum", "dot", "einsum", "empty", "empty_like", "expand_dims",
    "flatnonzero", "flip", "full", "full_like", "matmul", "max", "mean", "min", "moveaxis",
    "nonzero", "ones", "ones_like", "prod", "repeat", "reshape", "round", "squeeze", "stack",
    "sum", "swapaxes", "take", "take_along_axis", "tensordot", "tile", "transpose", "unique",
    "vdot", "where", "zeros", "zeros_like",
}  # fmt: skip
_NAMES = {
    "bool_", "float16", "float32", "float64", "inf", "int8", "int32", "int64", "intp", "nan",
    "newaxis", "pi", "uint8", "uint32", "uint64",
}  # fmt: skip


class StrictArray(NDArrayOperatorsMixin):
    """A device array whose memory is NumPy's, hidden in `held`.

    Raises TypeError where a NumPy array would be mixed with it or made of it. Reading a number
    (`float(a)`, `if a:`, a boolean mask as an index) is counted as waiting for the device.
    """

    __slots__ = ("device", "held")
    __hash__ = None

    def __init__(self, held, device):
        self.held = np.asarray(held)
        self.device = device

    # ---- what it is

    shape = property(lambda self: self.held.shape)
    dtype = property(lambda self: self.held.dtype)
    size = property(lambda self: self.held.size)
    ndim = property(lambda self: self.held.ndim)
    nbytes = property(lambda self: self.held.nbytes)
    itemsize = property(lambda self: self.held.itemsize)
    strides = property(lambda self: self.held.strides)
    flags = property(lambda self: self.held.flags)
    T = property(lambda self: self._wrap(self.held.T))

    def __len__(self):
        return len(self.held)

    def __repr__(self):
        return f"StrictArray(shape={self.shape}, dtype={self.dtype})"

    # ---- to the host

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "a device array is not converted to a NumPy array without being asked: use "
            "blob.data, or device.to_host(array)"
        )

    def _number(self, convert):
        self.device.note("wait")
        return convert(self.held)

    def __bool__(self):
        return self._number(bool)

    def __int__(self):
        return self._number(int)

    def __float__(self):
        return self._number(float)

    def item(self, *args):
        """A number of it, which waits for the device."""
        return self._number(lambda held: held.item(*args))

    def tolist(self):
        """All of it, which waits for the device."""
        return self._number(np.ndarray.tolist)

    def get(self, out=None):
        """A NumPy copy, which waits for the device."""
        return self.device.to_host(self, out)

    # ---- indices

    def __getitem__(self, key):
        if _masks(key):
            self.device.note("wait")  # for the number of elements
        return self._wrap(self.held[_inner(key, "index")])

    def __setitem__(self, key, value):
        if _masks(key):
            self.device.note("wait")  # CuPy counts the elements here as well
        self.held[_inner(key, "index")] = _inner(value, "assigned value")

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    # ---- functions

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            return NotImplemented
        return self.device.call(ufunc, inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        own = getattr(self.device.xp, function.__name__, None)
        if own is None:
            raise TypeError(f"StrictArray has no {function.__name__} (strict_array._FUNCTIONS)")
        return own(*args, **kwargs)

    def _wrap(self, result):
        return StrictArray(result, self.device)


def _method(name):
    def method(self, *args, **kwargs):
        if name in _WAITING:
            self.device.note("wait")
        return self.device.call(getattr(np.ndarray, name), (self, *args), kwargs)

    method.__name__ = name
    method.__doc__ = f"As numpy.ndarray.{name}."
    return method


for _name in (
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumsum", "dot", "fill",
    "max", "mean", "min", "nonzero", "prod", "ravel", "repeat", "reshape", "round", "squeeze",
    "sum", "swapaxes", "take", "transpose", "view",
):  # fmt: skip
    setattr(StrictArray, _name, _method(_name))


class StrictModule:
    """What layers get as `xp`: NumPy's functions of the names that CuPy has, on StrictArrays."""

    ndarray = StrictArray

    def __init__(self, device):
        self._device = device

    def __getattr__(self, name):
        if name in _NAMES:
            return getattr(np, name)
        function = getattr(np, name, None)
        if name not in _FUNCTIONS and not isinstance(function, np.ufunc):
            raise AttributeError(f"strict_array: no {name}; if CuPy has it, add it there")
        own = _Function(self._device, name, function)
        setattr(self, name, own)
        return own

    def asarray(self, values, dtype=None):
        """A device array of host values; an upload, unless it is one already."""
        if isinstance(values, StrictArray):
            return values if dtype is None else values.astype(dtype, copy=False)
        return self._device.to_device(np.asarray(values, dtype))

    array = asarray


class _Function:
    """One function of `StrictModule`."""

    def __init__(self, device, name, function):
        self.device, self.name, self.function = device, name, function

    def __call__(self, *args, **kwargs):
        if self.name in _WAITING or (self.name == "where" and len(args) == 1):
            self.device.note("wait")
        result = self.device.call(self.function, args, kwargs)
        if self.name in ("empty", "empty_like") and result.dtype.kind == "f":
            result.held.fill(np.nan)  # whoever reads what nobody wrote shall see it
        return result

    def at(self, array, indices, values):
        """`ufunc.at`. NOTE: CuPy adds in any order, so sums of floats differ from run to run."""
        inner = (_inner(v, "argument") for v in (array, indices, values))
        self.function.at(*inner)


def call(device, function, args, kwargs):
    """The result of a NumPy function on StrictArrays and numbers, as a StrictArray."""
    inner = [_inner(a, "argument") for a in args]
    inner_kwargs = {k: _inner(v, f"argument {k}") for k, v in kwargs.items()}
    out = kwargs.get("out")
    result = function(*inner, **inner_kwargs)
    if out is not None:
        return out[0] if isinstance(out, tuple) else out
    if isinstance(result, (tuple, list)):
        return type(result)(StrictArray(r, device) for r in result)
    return None if result is None else StrictArray(result, device)


def _inner(value, what):
    """What NumPy shall see of an argument; host arrays are refused."""
    if isinstance(value, StrictArray):
        return value.held
    if isinstance(value, (tuple, list)):
        return type(value)(_inner(v, what) for v in value)
    if isinstance(value, (slice, *_SCALARS)):
        return value
    raise TypeError(
        f"{what} of type {type(value).__name__} where the device needs one of its own arrays: "
        "copy it there with device.to_device(array)"
    )


def _masks(key):
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, StrictArray) and k.dtype == bool for k in keys)
