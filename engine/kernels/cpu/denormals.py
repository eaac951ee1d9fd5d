"""Numbers next to zero count as zero within the products of matrices and convolutions.

Below the smallest normal number (1.2e-38 in float32) processors take a hundred times as long. Such
numbers are common where a softmax is sure of itself: its gradient is one, and so is all that it is
multiplied by on the way down.
"""

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_MACHINE = llvmlite.binding.get_process_triple().split("-")[0]
_BITS = {"x86_64": 0x8040, "aarch64": 1 << 24, "arm64": 1 << 24}.get(_MACHINE)  # results, operands
_NUMBER = types.uint32 if _MACHINE == "x86_64" else types.uint64  # the control register's
_WORD = ir.IntType(_NUMBER.bitwidth)


def _call(builder, name, result, *values):
    kind = ir.FunctionType(result, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, values)


def begin(builder):
    """Write the instructions after which denormal numbers are zero to this thread; returns what
    `end` needs. On processors that are not known, none."""
    if _BITS is None:
        return ir.Constant(_WORD, 0)
    if _MACHINE == "x86_64":
        place = cgutils.alloca_once(builder, _WORD)
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), pointer)
        before = builder.load(place)
    else:
        before = _call(builder, "llvm.aarch64.get.fpcr", _WORD)
    end(builder, builder.or_(before, ir.Constant(_WORD, _BITS)))
    return before


def end(builder, before):
    """Write the instructions after which this thread computes as it did before."""
    if _MACHINE == "x86_64":
        place = cgutils.alloca_once(builder, _WORD)
        builder.store(before, place)
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), pointer)
    elif _BITS is not None:
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), before)


# ---- for kernels, whose tasks begin and end with these


@intrinsic
def flush_denormals(typing):
    """Denormal numbers are zero to this thread from here on; returns what was the case before."""

    def generate(context, builder, signature, arguments):
        return begin(builder)

    return _NUMBER(), generate


@intrinsic
def restore_denormals(typing, before):
    """Undo `flush_denormals`, which has returned `before`."""

    def generate(context, builder, signature, arguments):
        end(builder, *arguments)
        return context.get_dummy_value()

    return types.void(_NUMBER), generate
