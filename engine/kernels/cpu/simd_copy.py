"""Copies of elements that lie apart, for Numba kernels; what holds for `simd` holds here."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import INDEX, LANES, Memory, lane_numbers, lanes_below


def _every(builder, vectors):
    # Lanes 0, step, 2 * step, ... of `step` vectors, a power of two, laid end to end.
    while len(vectors) > 1:
        even = lane_numbers(range(0, 2 * LANES, 2))
        pairs = zip(vectors[::2], vectors[1::2])
        vectors = [builder.shuffle_vector(a, b, even) for a, b in pairs]
    return vectors[0]


def _copy(step):
    firsts = range(0, step * LANES, LANES)  # elements at which vectors begin
    end = (LANES - 1) * step + 1  # what follows the last element that a whole vector needs

    def whole(builder, source, target, number):
        places = [ir.Constant(number, first) for first in firsts]
        vectors = [source.load(place) for place in places[:-1]]
        # Elements behind the last one may not exist.
        rest = None if step == 1 else lanes_below(builder, ir.Constant(INDEX, end - firsts[-1]))
        target.store(_every(builder, [*vectors, source.load(places[-1], rest)]))

    def part(builder, source, target, number, low, high, count):
        apart = ir.Constant(INDEX, step)
        begin = builder.mul(low, apart)
        after = builder.sub(builder.mul(high, apart), ir.Constant(INDEX, step - 1))
        vectors = []
        for first in firsts:
            below, inside = (
                lanes_below(builder, builder.sub(bound, ir.Constant(INDEX, first)))
                for bound in (begin, after)
            )
            mask = builder.and_(inside, builder.not_(below))
            vectors.append(source.load(ir.Constant(number, first), mask))
        target.store(_every(builder, vectors), mask=lanes_below(builder, count))

    def generate(context, builder, signature, arguments):
        source = Memory(context, builder, signature.args[0], *arguments[:2])
        target = Memory(context, builder, signature.args[2], *arguments[2:4])
        number = arguments[1].type
        low, high, count = (builder.trunc(value, INDEX) for value in arguments[4:])
        ends = zip((low, high, count), (0, LANES, LANES))
        low_is, high_is, count_is = (
            builder.icmp_signed("==", value, ir.Constant(INDEX, end)) for value, end in ends
        )
        # Without masks where none are needed: they take time, and not every processor has them.
        full = builder.and_(low_is, builder.and_(high_is, count_is))
        with builder.if_else(full) as (then, otherwise):
            with then:
                whole(builder, source, target, number)
            with otherwise:
                part(builder, source, target, number, low, high, count)
        return context.get_dummy_value()

    @intrinsic
    def copy(typing, a, a_place, b, b_place, low, high, count):
        i = types.intp
        return types.void(a, i, b, i, i, i, i), generate

    return copy


# Write `count` elements of b, at most LANES: those numbered [low, high) from a, where they lie 1, 2
# or 4 apart, the first one at a_place, and 0 for the others. No others are read.
copy_lanes, copy_second, copy_fourth = _copy(1), _copy(2), _copy(4)
