"""Sums of products along rows of a matrix, for Numba kernels; what holds for `simd` holds here."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import INDEX, LANES, Memory, lanes_below

_VECTORS = 4  # the sum of a row is made in so many vectors
_STEP = _VECTORS * LANES
_AHEAD = 512  # how many elements further a row is fetched while it is read
SUMS = LANES  # numbers a row that are left to be added up


def _dots(rows):
    def generate(context, builder, signature, arguments):
        a, place, pitch, x, count, sums, sums_place = arguments
        number = count.type
        a = Memory(context, builder, signature.args[0], a, place)
        x = Memory(context, builder, signature.args[3], x, ir.Constant(number, 0))
        sums = Memory(context, builder, signature.args[5], sums, sums_place)
        starts = [builder.mul(ir.Constant(number, row), pitch) for row in range(rows)]

        def add(totals, first, masks, ahead):
            results = []
            for v in range(_VECTORS):
                at = builder.add(first, ir.Constant(number, v * LANES))
                right = x.load(at, masks[v])
                for start in starts:
                    here = builder.add(start, at)
                    if ahead:
                        a.prefetch(builder.add(here, ir.Constant(number, _AHEAD)))
                    left = a.load(here, masks[v])
                    product = builder.fmul(left, right, flags=("contract",))
                    total = totals[len(results)]
                    results.append(builder.fadd(total, product, flags=("contract",)))
            return results

        entry = builder.block
        test, body, after = (builder.append_basic_block(n) for n in ("test", "dots", "after"))
        whole = builder.sub(count, builder.srem(count, ir.Constant(number, _STEP)))
        builder.branch(test)
        builder.position_at_end(test)
        i = builder.phi(number)
        i.add_incoming(ir.Constant(number, 0), entry)
        totals = [builder.phi(a.vector) for _ in range(rows * _VECTORS)]
        for total in totals:
            total.add_incoming(ir.Constant(a.vector, None), entry)
        builder.cbranch(builder.icmp_signed("<", i, whole), body, after)
        builder.position_at_end(body)
        for total, value in zip(totals, add(totals, i, [None] * _VECTORS, True)):
            total.add_incoming(value, body)
        i.add_incoming(builder.add(i, ir.Constant(number, _STEP)), body)
        builder.branch(test)
        builder.position_at_end(after)
        rest = builder.trunc(builder.sub(count, whole), INDEX)
        lefts = [builder.sub(rest, ir.Constant(INDEX, v * LANES)) for v in range(_VECTORS)]
        totals = add(totals, whole, [lanes_below(builder, left) for left in lefts], False)
        for row in range(rows):
            total, *others = totals[row::rows]
            for other in others:
                total = builder.fadd(total, other)
            sums.store(total, ir.Constant(number, row * SUMS))
        return context.get_dummy_value()

    @intrinsic
    def dots(typing, a, place, pitch, x, count, sums, sums_place):
        i = types.intp
        return types.void(a, i, i, x, i, sums, i), generate

    return dots


# For one or four rows of a, of `count` elements, pitch apart, the first at `place`: SUMS numbers a
# row, from sums_place on, whose sum is that of the row times x. They do not depend on which of the
# two is called.
one_dot, four_dots = _dots(1), _dots(4)
