"""How precisely convolutions and matrix products are computed on a GPU.

The one switch is `Precision.math`: among the settings of a net's context, or for nets without that
setting the environment variable DEMITASSE_PRECISION, which command lines set (`choose`). A CPU
computes in the arrays' own dtype.
"""

import os
import threading
from dataclasses import dataclass, field

from .errors import DeviceError, closest

MATHS = ("float32", "tf32", "float16", "bfloat16")
VARIABLE = "DEMITASSE_PRECISION"


@dataclass(frozen=True)
class Precision:
    """The numbers that factors of products are rounded to; what is stored stays as it is.

    Attributes:
        math: of float32 arrays, how products are computed. All sums are in float32.
            "float32": as they are, without tensor cores. Equal to the CPU to rounding.
            "tf32": factors with 10 bits after the binary point (TensorFloat-32).
            "float16", "bfloat16": convolutions with factors and results of these; matrix products
            as with "tf32", which has the bits of float16 and the range of float32. Training
            with float16 needs a loss scale (`demitasse.solvers.loss_scale`).
            Arrays of float64 and float16 are computed with as they are.
    """

    math: str = field(default_factory=lambda: os.environ.get(VARIABLE, "") or "float32")

    def __post_init__(self):
        if self.math not in MATHS:
            raise DeviceError(
                f"Precision.math, or the environment variable {VARIABLE}",
                f"one of {', '.join(MATHS)}", repr(self.math), closest(self.math, MATHS),
            )  # fmt: skip

    @property
    def tensor_cores(self):
        """Whether float32 factors may be rounded."""
        return self.math != "float32"


def choose(math):
    """Compute with `math` in nets without a setting, here and in processes that are started.

    Raises: DeviceError if it is none of MATHS.
    """
    os.environ[VARIABLE] = Precision(math).math


class _Current(threading.local):
    precision = None


_current = _Current()


def use(precision):
    """Compute with a `Precision` from now on, on this thread; a net says so before each pass."""
    _current.precision = precision


def current():
    """The `Precision` of the pass that runs on this thread, or the default."""
    return _current.precision or Precision()
