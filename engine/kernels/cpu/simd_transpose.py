"""Transposition of blocks of LANES rows for Numba kernels; what holds for `simd` holds here."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import INDEX, LANES, Memory, lane_numbers, lanes_below

_AHEAD = 64  # how many elements further an image is fetched while it is read


def _transposed(builder, rows):
    # Rows i and i + half interleave; after log2(LANES) such rounds, rows are columns.
    half = LANES // 2
    low = lane_numbers([lane for i in range(half) for lane in (i, LANES + i)])
    high = lane_numbers([lane for i in range(half, LANES) for lane in (i, LANES + i)])
    for _ in range(LANES.bit_length() - 1):
        pairs = list(zip(rows[:half], rows[half:]))
        rows = [builder.shuffle_vector(a, b, lanes) for a, b in pairs for lanes in (low, high)]
    return rows


def _steps(builder, pitch):
    return [builder.mul(pitch, ir.Constant(pitch.type, row)) for row in range(LANES)]


def _bounded(builder, steps, rows, low, high):
    # Steps and masks of LANES rows: lanes [low, high) of the first `rows`, none of the others.
    # The others stay at the first row, because a masked access to memory that does not exist is
    # slow.
    low, high = (builder.trunc(number, INDEX) for number in (low, high))
    zero, below = ir.Constant(rows.type, 0), builder.not_(lanes_below(builder, low))
    for row, step in enumerate(steps):
        inside = builder.icmp_signed(">", rows, ir.Constant(rows.type, row))
        end = builder.select(inside, high, ir.Constant(INDEX, 0))
        yield builder.select(inside, step, zero), builder.and_(below, lanes_below(builder, end))


def _signature(a, b, bounds):
    index = types.intp
    return types.void(a, index, index, b, index, index, *(index,) * bounds)


def _gated(builder, value, gate):
    # `value` where the gate is positive, else 0 * value, which keeps NaN (as ReLU's gradient does).
    zero = ir.Constant(value.type, None)
    return builder.select(builder.fcmp_ordered(">", gate, zero), value, builder.fmul(value, zero))


def _transpose(masked_load, masked_store, add, ahead=0, stream=False, gated=False):
    def generate(context, builder, signature, arguments):
        if gated:
            *arguments, gate = arguments
            gate = Memory(context, builder, signature.args[-1], gate, arguments[4])
        source = Memory(context, builder, signature.args[0], *arguments[:2])
        target = Memory(context, builder, signature.args[3], *arguments[3:5])
        reads, writes = (
            [(step, None) for step in _steps(builder, pitch)]
            for pitch in (arguments[2], arguments[5])
        )
        if masked_load:
            reads = _bounded(builder, [step for step, _ in reads], *arguments[6:])
        if masked_store:
            writes = _bounded(builder, [step for step, _ in writes], *arguments[6:])
        for step, _ in reads if ahead else ():
            source.prefetch(builder.add(step, ir.Constant(step.type, ahead)))
        rows = [source.load(step, mask) for step, mask in reads]
        for row, (step, mask) in zip(_transposed(builder, rows), writes):
            value = builder.fadd(row, target.load(step, mask)) if add else row
            value = _gated(builder, value, gate.load(step, mask)) if gated else value
            target.store(value, step, mask, stream)
        return context.get_dummy_value()

    return generate


@intrinsic
def transpose(typing, a, a_place, a_pitch, b, b_place, b_pitch):
    """Transpose LANES rows of LANES elements: from a, rows a_pitch apart, to b."""
    return _signature(a, b, 0), _transpose(False, False, False)


@intrinsic
def transpose_ahead(typing, a, a_place, a_pitch, b, b_place, b_pitch):
    """As `transpose`, for long rows that are read from left to right."""
    return _signature(a, b, 0), _transpose(False, False, False, ahead=_AHEAD)


@intrinsic
def transpose_stream(typing, a, a_place, a_pitch, b, b_place, b_pitch):
    """As `transpose`, past the caches, to rows of b at multiples of LINE bytes; then `flush`."""
    return _signature(a, b, 0), _transpose(False, False, False, stream=True)


@intrinsic
def transpose_from(typing, a, a_place, a_pitch, b, b_place, b_pitch, rows, low, high):
    """As `transpose`, with 0 for all but elements [low, high) of the first `rows` rows of a.

    The others are not read.
    """
    return _signature(a, b, 3), _transpose(True, False, False)


@intrinsic
def transpose_to(typing, a, a_place, a_pitch, b, b_place, b_pitch, rows, low, high):
    """As `transpose`, but only elements [low, high) of the first `rows` rows of b are written."""
    return _signature(a, b, 3), _transpose(False, True, False)


@intrinsic
def transpose_gated(typing, a, a_place, a_pitch, b, b_place, b_pitch, gate):
    """As `transpose`, times 0 where `gate`, an array like b, is not positive."""
    return types.void(*_signature(a, b, 0).args, gate), _transpose(False, False, False, gated=True)


@intrinsic
def transpose_gated_stream(typing, a, a_place, a_pitch, b, b_place, b_pitch, gate):
    """As `transpose_gated`, in the way of `transpose_stream`."""
    generate = _transpose(False, False, False, stream=True, gated=True)
    return types.void(*_signature(a, b, 0).args, gate), generate


@intrinsic
def transpose_gated_to(typing, a, a_place, a_pitch, b, b_place, b_pitch, rows, low, high, gate):
    """As `transpose_gated`, in the way of `transpose_to`."""
    return types.void(*_signature(a, b, 3).args, gate), _transpose(False, True, False, gated=True)


@intrinsic
def transpose_add_to(typing, a, a_place, a_pitch, b, b_place, b_pitch, rows, low, high):
    """As `transpose_to`, but added to what b holds."""
    return _signature(a, b, 3), _transpose(False, True, True)
