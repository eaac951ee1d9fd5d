"""Running the kernels of the `.cu` files on the device that holds the arrays."""

import functools
import re
import weakref
from pathlib import Path

import numpy as np

from ...device import device_of

BLOCK = 256  # threads of a block, where a kernel does not ask for another number
NULL = np.uint64(0)  # a pointer to nothing; CuPy takes None for something else

# Sums and products stay apart, so that the order of operations is that of the text on every device;
# what the kernels wait for is memory. CuPy adds -ftz=true: numbers too small to be normal are 0.
OPTIONS = ("-std=c++17", "-fmad=false")

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_NAMES = {
    "float16": "half_t", "bfloat16": "bfloat_t", "float32": "float", "float64": "double",
    "int8": "signed char", "uint8": "unsigned char", "bool": "unsigned char",
    "int16": "short", "uint16": "unsigned short", "int32": "int", "uint32": "unsigned",
    "int64": "long long", "uint64": "unsigned long long",
}  # fmt: skip
_functions = weakref.WeakKeyDictionary()  # device -> {(file, name, options): function}


@functools.cache
def source(file):
    """The text of a file of this folder, in which included files of this folder stand in place.

    Compilers find no files here, and their caches would not see that an included one has changed.
    """
    done = set()

    def text_of(name):
        if name in done:
            return ""
        done.add(name)
        text = (_FOLDER / name).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda found: text_of(found[1]), text)

    return text_of(file)


def options_for(dtype, defines=()):
    """The options of the compiler for kernels whose `real` is of this dtype.

    `defines` are pairs of names and numbers, further macros of the text.
    """
    return (*OPTIONS, f"-DREAL={_NAMES[dtype.name]}", *(f"-D{name}={v}" for name, v in defines))


def launch(file, name, arrays, grid, block, args=(), shared=0, *, dtype=None, defines=()):
    """Run the kernel `name` of the file `file`; it may still run when this returns.

    Args:
        arrays: the kernel's first parameters, C-contiguous arrays of one device (or NULL).
        grid, block: tuples of up to three counts; with an empty grid nothing runs.
        args: its further parameters, NumPy scalars of exactly their types; Python's integers are
            `long long`.
        shared: bytes of dynamic shared memory.
        dtype: what `real` is in the text; that of the first array if None.
        defines: as of `options_for`.
    """
    if not all(grid):
        return
    for array in arrays:
        if array is not NULL and not array.flags.c_contiguous:
            raise ValueError(f"kernel {name} of {file} needs contiguous arrays")
    dtype = arrays[0].dtype if dtype is None else np.dtype(dtype)
    function = _function(device_of(arrays[0]), file, name, dtype, defines)
    function(grid, block, (*arrays, *args), shared_mem=shared)


def _function(device, file, name, dtype, defines):
    known = _functions.get(device)
    if known is None:
        known = _functions[device] = {}
    key = file, name, dtype, defines
    if key not in known:
        known[key] = device.compile(source(file), options_for(dtype, defines)).get_function(name)
    return known[key]


def blocks(count, per_block):
    """How many blocks do `count` things, each at most `per_block`."""
    return -(-count // per_block)


def number(value, array):
    """`value` as a kernel on `array` takes it: halves are computed with as float32."""
    return np.float64(value) if array.dtype == np.float64 else np.float32(value)


def elementwise_grid(array):
    """The grid, in blocks of BLOCK threads, of a pass over `array` as in elementwise.cuh."""
    return (blocks(array.nbytes, 2 * 16 * BLOCK),)
