"""Sums over rows, kept in registers; what holds for `simd` holds here.

The order of additions is written out: see `sums`.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import INDEX, LANES, Memory, lane_numbers, lanes_below, splat

_SUMS = 4  # vectors that are added up side by side, because additions take several cycles


def _across(builder, vector):
    # The sum of the lanes, by halves.
    half = LANES // 2
    while half:
        moved = lane_numbers([(lane + half) % LANES for lane in range(LANES)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, moved))
        half //= 2
    return builder.extract_element(vector, ir.Constant(INDEX, 0))


def _together(builder, vectors):
    while len(vectors) > 1:
        vectors = [builder.fadd(a, b) for a, b in zip(vectors[::2], vectors[1::2])]
    return _across(builder, vectors[0])


class _Totals:
    """Vectors of sums in variables, which LLVM keeps in registers."""

    def __init__(self, builder, vector):
        self.builder = builder
        self.zero = ir.Constant(vector, None)
        self.places = [
            cgutils.alloca_once_value(builder, self.zero) for _ in range(2 * _SUMS)
        ]  # of x, then of x * y
        for place in self.places:  # which are set once only, before any loop around this
            builder.store(self.zero, place)

    def add(self, number, x, y):
        b, (total, dot) = self.builder, self.places[number::_SUMS]
        b.store(b.fadd(b.load(total), x), total)
        product = b.fmul(x, y, flags=("contract",))
        b.store(b.fadd(b.load(dot), product, flags=("contract",)), dot)

    def results(self):
        values = [self.builder.load(place) for place in self.places]
        return [_together(self.builder, values[i : i + _SUMS]) for i in (0, _SUMS)]


def _sum_pairs(builder, count, vector, pairs, read, out):
    # Sums of x and of x * y over `count` elements into `out`, one pair's (x, y) after the other's;
    # read(place, mask) gives the pairs of a vector of elements.
    totals = [_Totals(builder, vector) for _ in range(pairs)]
    zero = ir.Constant(vector, None)

    def add(number, at, mask=None):
        for sums, pair in zip(totals, read(at, mask)):
            if mask is not None:
                pair = [builder.select(mask, value, zero) for value in pair]
            sums.add(number, *pair)

    step = ir.Constant(count.type, _SUMS * LANES)
    blocks = builder.sdiv(count, step)
    with cgutils.for_range(builder, blocks) as loop:
        first = builder.mul(loop.index, step)
        for v in range(_SUMS):
            add(v, builder.add(first, ir.Constant(first.type, v * LANES)))
    first = builder.mul(blocks, step)
    for v in range(_SUMS):  # and what is less than a block
        at = builder.add(first, ir.Constant(first.type, v * LANES))
        rest = builder.sub(count, at)
        with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(rest.type, 0))):
            add(v, at, lanes_below(builder, builder.trunc(rest, INDEX)))
    for offset, value in enumerate(value for sums in totals for value in sums.results()):
        builder.store(value, out.place(ir.Constant(count.type, offset)))


@intrinsic
def sums_to(typing, x, x_place, x_centre, y, y_place, y_centre, count, out, out_place):
    """Sums over `count` elements of x' = x - x_centre and of x' * (y - y_centre), into
    out[out_place] and the next element; all of one dtype."""

    def generate(context, builder, signature, arguments):
        x, x_place, x_centre, y, y_place, y_centre, count, out, out_place = arguments
        kinds = signature.args
        x = Memory(context, builder, kinds[0], x, x_place)
        y = Memory(context, builder, kinds[3], y, y_place)
        out = Memory(context, builder, kinds[7], out, out_place)
        centres = splat(builder, x_centre), splat(builder, y_centre)

        def read(at, mask):
            return [[builder.fsub(m.load(at, mask), c) for m, c in zip((x, y), centres)]]

        _sum_pairs(builder, count, x.vector, 1, read, out)
        return context.get_dummy_value()

    i, number = types.intp, x.dtype
    return types.void(x, i, number, y, i, number, i, out, i), generate


@intrinsic
def norm_sums_to(typing, dz, dz_place, scale, x, x_place, mean, factor, count, out, out_place):
    """Sums over `count` elements, for the gradients of z = scale * y + offset with
    y = (x - mean) * factor, into out[out_place] and the next three elements; all of one dtype:
    dz, dz * y, dy = dz * scale, dy * (x - mean)."""

    def generate(context, builder, signature, arguments):
        dz, dz_place, scale, x, x_place, mean, factor, count, out, out_place = arguments
        kinds = signature.args
        dz = Memory(context, builder, kinds[0], dz, dz_place)
        x = Memory(context, builder, kinds[3], x, x_place)
        out = Memory(context, builder, kinds[8], out, out_place)
        scale, mean, factor = (splat(builder, value) for value in (scale, mean, factor))

        def read(at, mask):
            gradient, centred = dz.load(at, mask), builder.fsub(x.load(at, mask), mean)
            # Each product is rounded, as it is where two layers compute one after the other.
            normal, scaled = builder.fmul(centred, factor), builder.fmul(gradient, scale)
            return [[gradient, normal], [scaled, centred]]

        _sum_pairs(builder, count, x.vector, 2, read, out)
        return context.get_dummy_value()

    i, number = types.intp, x.dtype
    return types.void(dz, i, number, x, i, number, number, i, out, i), generate
