"""A device whose arrays notice when NumPy computes in double precision beside the layers' own."""

import numpy as np

from demitasse.engine.device import CpuDevice

LIMIT = 8  # elements from which on an array counts: sums over all, and one a channel, do not

seen = []  # of (what was computed, shape)


def plain(value):
    """`value` with all `Watched` arrays in it as NumPy's own."""
    if isinstance(value, Watched):
        return value.view(np.ndarray)
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v) for v in value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def note(what, values):
    """Remember what has given or taken float64 arrays; returns the values, to be watched again."""
    for v in values if isinstance(values, tuple) else (values,):
        if isinstance(v, np.ndarray) and v.dtype == np.float64 and v.size > LIMIT:
            seen.append((what, v.shape))
    return values.view(Watched) if type(values) is np.ndarray else values


class Watched(np.ndarray):
    """An array that every function of NumPy's on it is noted of."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        inputs = plain(inputs)
        note(ufunc.__name__, inputs)
        if out is not None:
            options["out"] = plain(out)
        result = getattr(ufunc, method)(*inputs, **plain(options))
        return out[0] if out is not None else note(ufunc.__name__, result)

    def __array_function__(self, function, types, args, options):
        result = function(*plain(args), **plain(options))
        return options["out"] if "out" in options else note(function.__name__, result)


class _Module:
    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        function = getattr(self._module, name)

        def call(*args, **options):
            args = plain(args)
            note(name, args)
            return note(name, function(*args, **plain(options)))

        return call if callable(function) else function


class _Kernels:
    def __init__(self, kernels):
        self._kernels = kernels

    def __getattr__(self, name):
        return _Module(getattr(self._kernels, name))


class WatchedDevice(CpuDevice):
    """The CPU, with watched arrays."""

    def __init__(self):
        super().__init__()
        self.kernels = _Kernels(self.kernels)

    def zeros(self, count, dtype):
        """As the CPU's."""
        return np.zeros(count, dtype).view(Watched)
