"""The text of every kernel compiled by NVIDIA's own compiler, which needs no GPU."""

import ctypes
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest

from demitasse.engine.kernels.cuda import launch

FOLDER = Path(launch.__file__).parent
PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")
LIBRARIES = (re.compile(r"libnvrtc-builtins\.so[.\d]*"), re.compile(r"libnvrtc\.so\.\d+"))
KERNEL = re.compile(r"(?:^KERNEL|__global__ void(?:\s+__launch_bounds__\(\w+\))?)\s+(\w+)\(", re.M)
# As CuPy compiles for an H200.
CUPY = ("-ftz=true", "-arch=sm_90")


@pytest.fixture(scope="module")
def nvrtc():
    """NVRTC of the installed wheel."""
    for package in PACKAGES:
        try:
            files = importlib.metadata.files(package) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        # The first of them first: the second looks for it where the loader does not find it.
        for library in LIBRARIES:
            path = next(file.locate() for file in files if library.fullmatch(file.name))
            loaded = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return loaded
    pytest.skip(f"no NVRTC: pip install {PACKAGES[0]}")


def compiled(nvrtc, text, options):
    """The log of the compiler and the machine code, None if it refuses the text."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None
    )
    assert made == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)

    def read(kind):
        assert getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer) == 0
        return buffer.raw

    log, code = read("ProgramLog").rstrip(b"\0").decode(), None if failed else read("CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log, code


FLOATS = ("float32", "float64", "float16")
# (dtype of `real`, further macros) that the modules pass, where these are not FLOATS and none.
VARIANTS = {
    "copies.cu": [(f"uint{bits}", ()) for bits in (8, 16, 32, 64)],
    "update.cu": [("float32", ()), ("float64", ())],
    "columns.cu": [(dtype, (("AXES", n),)) for dtype in FLOATS for n in (1, 2, 3)],
    "orders.cu": [("float32", (("WORK", work),)) for work in ("float", "half_t", "bfloat_t")],
}
CASES = [
    (file, *variant)
    for file in sorted(path.name for path in FOLDER.glob("*.cu"))
    for variant in VARIANTS.get(file, [(dtype, ()) for dtype in FLOATS])
]


@pytest.mark.parametrize(("file", "dtype", "defines"), CASES)
def test_the_text_compiles_for_an_h200(nvrtc, file, dtype, defines):
    text = launch.source(file)
    log, code = compiled(nvrtc, text, (*launch.options_for(np.dtype(dtype), defines), *CUPY))
    assert code, log
    assert "warning" not in log, log
    names = KERNEL.findall(re.sub(r"^#define.*", "", text, flags=re.MULTILINE))
    assert names and all(name.encode() in code for name in names)


def test_what_is_wrong_is_refused(nvrtc):
    log, code = compiled(nvrtc, "__global__ void f(int x) { y = x; }", CUPY)
    assert code is None and "y" in log
