"""cuDNN, through NVIDIA's nvidia-cudnn-frontend (1.28), which is imported at first use.

Where it is missing or does not load, that is said once, and convolutions go another way.
"""

import ctypes
import functools
import importlib
import logging
import threading

log = logging.getLogger("demitasse.device")

OLDEST = (
    91000  # cuDNN 9.10: its first with kernels for CUDA 13's GPUs in all engines asked for here
)
_INSTALL = 'pip install "nvidia-cudnn-frontend==1.28.0" nvidia-cudnn-cu13'
# What cuDNN and its frontend look for by name alone; without cublasLt cuDNN ends the process.
_NEEDED = ("cudart", "cublasLt", "nvrtc")


class Library:
    """cuDNN on one device.

    Attributes:
        frontend: the module `cudnn` of nvidia-cudnn-frontend.
        xp: of the device.
    """

    def __init__(self, frontend, device):
        self.frontend = frontend
        self.device = device
        self.xp = device.xp
        self._local = threading.local()

    def options(self):
        """What a graph is made with beside its data types."""
        return {"handle": self.handle()}

    def handle(self):
        """The calling thread's handle, set to the device's current stream."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            self.device.activate()
            handle = self._local.handle = self.frontend.create_handle()
        stream = self.device.stream()
        self.frontend.set_stream(handle, 0 if stream is None else stream.ptr)
        return handle


_substitutes = {}  # device -> frontend, of tests


def substitute(device, *frontend):
    """Have a device use another frontend: a test's stand-in, None for none; or its own again."""
    _substitutes[device] = frontend[0] if frontend else _imported(device)
    library_of.cache_clear()


@functools.cache
def library_of(device):
    """The `Library` of a device, or None where there is none."""
    frontend = _substitutes[device] if device in _substitutes else _imported(device)
    return None if frontend is None else Library(frontend, device)


def _imported(device):
    if not hasattr(device.xp, "cuda"):
        return None
    try:
        for name in _NEEDED:
            _preload(name)
        frontend = importlib.import_module("cudnn")
        found = frontend.backend_version()
    except Exception as error:  # of loaders and of the module itself, of any type
        log.warning(
            "cuDNN cannot be used (%s: %s): convolutions go through im2col and cuBLAS, which is "
            "slower. To install it: %s", type(error).__name__, error, _INSTALL,
        )  # fmt: skip
        return None
    if found < OLDEST:
        log.warning(
            "cuDNN %d is too old (%d is needed): convolutions go through im2col and cuBLAS, which "
            "is slower. To install it: %s", found, OLDEST, _INSTALL,
        )  # fmt: skip
        return None
    log.info("cuDNN %d, frontend %s", found, frontend.__version__)
    return frontend


def _preload(name):
    """Load a library of CUDA from NVIDIA's wheels, where the system's loader does not look."""
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")  # CuPy depends on it
    except ModuleNotFoundError:
        for version in ("13", "12"):
            try:
                return ctypes.CDLL(f"lib{name}.so.{version}")
            except OSError:
                continue
        raise
    return pathfinder.load_nvidia_dynamic_lib(name)
