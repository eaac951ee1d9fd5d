"""Normalisation of rows; what holds for `simd` holds here."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import INDEX, LANES, Memory, Value, lanes_below, splat


def _normalised(builder, x, coefficients, relu):
    # Rounded after each operation, as by one layer after the other: nothing is contracted.
    centre, factor, scale, offset = coefficients
    x = builder.fmul(builder.fsub(x, centre), factor)
    x = builder.fadd(builder.fmul(x, scale), offset)
    return builder.select(relu, Value(builder, x).relu().value, x)


def _normalise(read):
    def generate(context, builder, signature, arguments):
        x, x_place, c, place, count, norm, k, step, relu = arguments
        x = Memory(context, builder, signature.args[0], x, x_place)
        c = Memory(context, builder, signature.args[2], c, place)
        norm = Memory(context, builder, signature.args[5], norm, k)
        steps = (builder.mul(ir.Constant(step.type, q), step) for q in range(4))
        coefficients = [read(builder, norm, offset) for offset in steps]
        lanes = ir.Constant(count.type, LANES)
        whole = builder.sdiv(count, lanes)
        with cgutils.for_range(builder, whole) as loop:
            at = builder.mul(loop.index, lanes)
            c.store(_normalised(builder, x.load(at), coefficients, relu), at)
        at = builder.mul(whole, lanes)
        rest = builder.sub(count, at)
        with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(rest.type, 0))):
            mask = lanes_below(builder, builder.trunc(rest, INDEX))
            c.store(_normalised(builder, x.load(at, mask), coefficients, relu), at, mask)
        return context.get_dummy_value()

    @intrinsic
    def normalise(typing, x, x_place, c, place, count, norm, k, step, relu):
        i = types.intp
        return types.void(x, i, c, i, i, norm, i, i, types.boolean), generate

    return normalise


# c = (x - centre) * factor * scale + offset, for `count` elements from their places on, and
# max(., 0) of it if `relu`; x may be c. The coefficient q of the four is norm[k + q * step], or
# that of each lane.
normalise_to = _normalise(lambda b, norm, offset: splat(b, b.load(norm.place(offset))))
normalise_lanes = _normalise(lambda b, norm, offset: norm.load(offset))
