"""Kernels on the host: Numba for loops, BLAS (through NumPy) for matrix products.

Importing this package chooses Numba's threading layer, once for all kernels. Of the three only TBB
survives both a fork after use and calls from several threads; where it is missing, the work queue
is used, which is fork-safe, with one kernel running at a time.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import sys
import threading
import types
from pathlib import Path

from ...cores import thread_limit

PARALLEL_FROM = 1 << 15
"""Elements from which on starting threads pays in a pass over memory (`adaptive_njit`)."""

_TBB = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}.get(sys.platform, "libtbb.so.12")


def _load_tbb():
    """Whether TBB is in the process, loaded from the `tbb` distribution if need be.

    pip puts the library into the environment's own lib folder, where the loader does not look.
    """
    paths = [_TBB]
    try:
        files = importlib.metadata.files("tbb") or ()
        paths += [str(f.locate().resolve()) for f in files if f.name == _TBB]
    except importlib.metadata.PackageNotFoundError:
        pass
    for path in paths:
        try:
            # Global, because Numba's own module finds it by its bare name.
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            return True
        except OSError:
            continue
    return False


# Numba reads its own variable and the process's affinity, when it is imported.
if "numba" not in sys.modules and "NUMBA_NUM_THREADS" not in os.environ and thread_limit():
    os.environ["NUMBA_NUM_THREADS"] = str(thread_limit())

import numba  # noqa: E402

if numba.config.THREADING_LAYER == "default":
    numba.config.THREADING_LAYER = "tbb" if _load_tbb() else "workqueue"

# The work queue aborts the process when two threads use it at once.
_one_at_a_time = numba.config.THREADING_LAYER == "workqueue"
_lock = threading.Lock()


def _new_lock():
    global _lock
    _lock = threading.Lock()


if _one_at_a_time and hasattr(os, "register_at_fork"):
    # Another thread may have held the lock at the moment of the fork.
    os.register_at_fork(after_in_child=_new_lock)


@functools.cache
def sources_digest(folder=Path(__file__).parent):
    """A hash of the kernels' source files."""
    sources = (path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.blake2b(b"\0".join(sources), digest_size=16).hexdigest()


def _stamped(compiled):
    """`compiled`, its machine code on disk being valid only for the present kernels.

    Numba looks at the file of the function alone, and would run code that was compiled with an
    older version of a helper in another file. (Private names: without them, nothing is lost.)
    """
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, sources_digest())
    return compiled


def parallel_njit(function=None, **options):
    """Decorator: compile a kernel whose `numba.prange` loops run on all threads.

    The machine code is cached on disk, other Python threads run meanwhile, and division follows
    IEEE 754 instead of raising. `options` are further ones of `numba.njit`.
    """
    if function is None:
        return functools.partial(parallel_njit, **options)
    options = {"cache": True, "parallel": True, "nogil": True, "error_model": "numpy"} | options
    compiled = _stamped(numba.njit(**options)(function))
    if not _one_at_a_time:
        return compiled

    @functools.wraps(function)
    def call(*args):
        with _lock:
            return compiled(*args)

    return call


def adaptive_njit(function=None, **options):
    """As `parallel_njit`, but few elements, by the size of the first array, stay on one thread."""
    if function is None:
        return functools.partial(adaptive_njit, **options)
    parallel = parallel_njit(function, **options)
    # A function of its own name: Numba's cache tells them apart by nothing else.
    name = f"{function.__name__}_serial"
    twin = types.FunctionType(function.__code__, function.__globals__, name)
    twin.__qualname__, twin.__module__ = name, function.__module__
    serial = _stamped(numba.njit(cache=True, nogil=True, error_model="numpy", **options)(twin))

    @functools.wraps(function)
    def call(array, *args):
        (parallel if array.size >= PARALLEL_FROM else serial)(array, *args)

    return call
