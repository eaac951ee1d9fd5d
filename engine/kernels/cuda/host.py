"""CUDA text compiled as host C++ (`shim.h`) and run on NumPy arrays.

It shows that a kernel computes what it should, on a machine without a GPU. It is not made to be
fast. Arguments are checked against the kernel's parameters, which on a GPU nobody does.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

from ...errors import DeviceError

SHIM = Path(__file__).with_name("shim.h")
# Products and sums stay apart, as with NVRTC's --fmad=false; longjmp changes stacks, which the
# hardened one takes for an error.
_FLAGS = (
    "-std=c++17", "-O1", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
)  # fmt: skip
_KERNEL = re.compile(r"SHIM_KERNEL\s+void\s+(\w+)\s*\(")
_TEMPLATE = re.compile(r"template\s*<[^;{}]*>\s*(?:static\s+|inline\s+)*\Z")
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
_DIVERGED = 1  # as in shim.h

_lock = threading.RLock()  # shared memory is static
_backwards = False


def compiler():
    """The C++ compiler: that of the variable CXX, or g++; None if there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


@contextlib.contextmanager
def backwards():
    """Within it, blocks run from the last to the first, and so do the threads of a block.

    A kernel whose results change lacks a barrier, or depends on the order of atomics.
    """
    global _backwards
    with _lock:
        before, _backwards = _backwards, True
        try:
            yield
        finally:
            _backwards = before


def compile_module(source, options=()):
    """A `HostModule` of CUDA text; text that was compiled before in this process is not again.

    Args:
        source: CUDA C++ with `extern "C"` kernels, which includes no files but those of C and C++.
        options: those of NVRTC. Definitions (-D) count, others do not.

    Raises:
        DeviceError: there is no compiler, or it refuses the text.
    """
    defines = tuple(o for o in options if o.startswith(("-D", "--define-macro")))
    return _compile(source, tuple(d.replace("--define-macro=", "-D") for d in defines))


@functools.cache
def _compile(source, defines):
    digest = hashlib.blake2b(repr((source, defines)).encode(), digest_size=12).hexdigest()
    text, program = (_folder() / f"{digest}{end}" for end in (".cpp", ".so"))
    source = _DYNAMIC.sub(r"\1 *\2 = shim::dynamic_shared<\1>();", source)
    text.write_text(f'#include "{SHIM}"\n#line 1 "kernel.cu"\n{source}', encoding="utf-8")
    # Names of kernels are looked for where macros have been replaced.
    expanded = _run("-E", "-P", *_FLAGS, *defines, text)
    names = [
        found[1]
        for found in _KERNEL.finditer(expanded)
        if not _TEMPLATE.search(expanded, 0, found.start())
    ]
    with text.open("a", encoding="utf-8") as file:
        file.write("".join(_ENTRY.replace("NAME", name) for name in dict.fromkeys(names)))
    _run("-shared", "-DSHIM_KERNEL=", *_FLAGS, *defines, text, "-o", program)
    return HostModule(ctypes.CDLL(str(program)))


_ENTRY = """
extern "C" const char *shim_signature_NAME() { return shim::signature(NAME); }
extern "C" int shim_launch_NAME(const unsigned *grid, const unsigned *block, size_t shared,
                                int backwards, void **arguments) {
    auto body = [](void **values) { shim::call(NAME, values); };
    return shim::launch(body, grid, block, shared, backwards != 0, arguments);
}
"""


@functools.cache
def _folder():
    folder = Path(tempfile.mkdtemp(prefix="demitasse-cuda-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return folder


def _run(*arguments):
    if compiler() is None:
        raise DeviceError(
            "kernels on the host", "a C++ compiler", "none",
            "Install g++, or name a compiler in the environment variable CXX.",
        )  # fmt: skip
    done = subprocess.run(
        [compiler(), *map(str, arguments)], capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise DeviceError("kernels on the host", "text that compiles", done.stderr.strip())
    return done.stdout


class HostModule:
    """The kernels of one text, as `cupy.RawModule` gives them."""

    def __init__(self, library):
        self._library = library
        self._functions = {}

    def get_function(self, name):
        """The kernel called `name`, a `HostFunction`."""
        if name not in self._functions:
            self._functions[name] = HostFunction(self._library, name)
        return self._functions[name]


class HostFunction:
    """One kernel: `f(grid, block, arguments, shared_mem=0)` runs it to its end."""

    def __init__(self, library, name):
        if not hasattr(library, f"shim_launch_{name}"):
            raise DeviceError(f"kernel {name}", 'an extern "C" kernel of this name', "none")
        self._name = name
        self._launch = library[f"shim_launch_{name}"]
        self._launch.argtypes = [ctypes.c_void_p] * 2 + [
            ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
        ]  # fmt: skip
        signature = library[f"shim_signature_{name}"]
        signature.restype = ctypes.c_char_p
        self.parameters = signature().decode().split(",")[:-1]

    def __call__(self, grid, block, args, shared_mem=0):
        """Run over a grid and blocks of up to three dimensions.

        `args` are C-contiguous NumPy arrays, NumPy scalars, and integers, which are of 64 bits; a
        null pointer is an integer 0.
        """
        if len(args) != len(self.parameters):
            raise self._error(f"{len(self.parameters)} arguments", len(args))
        values = [self._value(k, *pair) for k, pair in enumerate(zip(args, self.parameters))]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        grid, block = (self._sizes(sizes) for sizes in (grid, block))
        threads = block[0] * block[1] * block[2]
        if not 0 < threads <= 1024 or block[2] > 64 or max(grid[1:]) > 65535 or min(grid) < 1:
            raise self._error("a grid and blocks that a GPU can run", f"{grid[:]}, {block[:]}")
        with _lock:
            failure = self._launch(grid, block, shared_mem, _backwards, pointers)
        if failure == _DIVERGED:
            raise self._error(
                "all threads of a block, or of a warp, to come to each barrier", "some that do not"
            )

    def _sizes(self, sizes):
        return (ctypes.c_uint * 3)(*(*sizes, 1, 1)[:3])

    def _value(self, k, value, parameter):
        # A buffer with what the kernel gets as its parameter of number k.
        kind, code = parameter[0], parameter[1:]
        if isinstance(value, np.ndarray):
            self._check_array(k, value, kind, code)
            return ctypes.c_void_p(value.ctypes.data)
        if isinstance(value, int):
            value = np.int64(value)
        if not isinstance(value, np.generic):
            raise self._error(f"argument {k} to be an array or a NumPy scalar", repr(value))
        given = value.dtype.str[1:]
        if kind == "v":
            fits = given.replace("u", "i") == code.replace("u", "i")
        else:
            fits = given in ("i8", "u8") and value == 0
        if not fits:
            raise self._error(f"argument {k} of type {parameter[1:]}", f"{value!r}")
        return ctypes.create_string_buffer(value.tobytes(), value.nbytes)

    def _check_array(self, k, array, kind, code):
        if kind == "v":
            raise self._error(f"argument {k} to be a number of type {code}", "an array")
        given = array.dtype.str[1:].replace("b1", "u1")
        if code != "?" and given != code.replace("b1", "u1"):
            raise self._error(f"argument {k} to be an array of {code}", f"{array.dtype}")
        if not array.flags.c_contiguous or (kind == "p" and not array.flags.writeable):
            raise self._error(f"argument {k} to be contiguous, and writeable if written", "not")

    def _error(self, expected, found):
        return DeviceError(f"kernel {self._name}", expected, str(found))
