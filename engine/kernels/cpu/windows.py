"""Maxima and sums over windows of an image, for LANES neighbouring windows at once.

What LLVM makes of the plain loops is slow: rows are short, and a maximum that remembers its place
is no reduction it knows. So the instructions are written here, for the few kinds of window that
nets use: KINDS, as (stride, width of the window) along a row.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16
KINDS = ((2, 2), (2, 3), (1, 3))

_INDEX = ir.IntType(32)
_NUMBERS = ir.VectorType(_INDEX, LANES)


def _constant(values):
    return ir.Constant(_NUMBERS, list(values))


def _splat(builder, scalar):
    kind = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _INDEX(0))
    return builder.shuffle_vector(first, first, _constant([0] * LANES))


def _suffix(vector):
    letter = "i" if isinstance(vector.element, ir.IntType) else "f"
    bits = {"i32": 32, "float": 32, "double": 64}[str(vector.element)]
    return f"v{LANES}{letter}{bits}.p0", bits // 8


class _Row:
    """The loads of one row of an image, with `fill` for what lies beside it."""

    def __init__(self, builder, pointer, left, width, stride, fill):
        self.builder, self.pointer, self.stride = builder, pointer, stride
        self.kind, self.fill = fill.type, fill
        self.left, self.width = left, _splat(builder, builder.trunc(width, _INDEX))

    def masks(self, column):
        """For each vector to load from `column` of the windows on: which lanes lie inside."""
        b = self.builder
        first = b.trunc(b.add(self.left, ir.IntType(64)(column)), _INDEX)
        places = [
            b.add(_splat(b, first), _constant(range(low, low + LANES)))
            for low in range(0, self.stride * LANES, LANES)
        ]
        # Unsigned: what lies left of the row is large.
        return [b.icmp_unsigned("<", place, self.width) for place in places]

    def load(self, start, column, masks):
        """Elements `column`, and the next ones too with a stride of 2, of the windows: [vectors].

        `start` is the flat index at which the row begins.
        """
        b = self.builder
        name, size = _suffix(self.kind)
        result, pointer = self.kind, self.kind.as_pointer()
        mask_kind = ir.VectorType(ir.IntType(1), LANES)
        function = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(result, [pointer, _INDEX, mask_kind, result]),
            f"llvm.masked.load.{name}",
        )  # fmt: skip
        first = b.add(b.add(start, self.left), ir.IntType(64)(column))
        vectors = []
        for k, mask in enumerate(masks):
            place = b.gep(self.pointer, [b.add(first, ir.IntType(64)(k * LANES))])
            vectors.append(b.call(function, [b.bitcast(place, pointer), _INDEX(size), mask,
                                             self.fill]))  # fmt: skip
        if len(vectors) == 1:
            return vectors
        return [b.shuffle_vector(*vectors, _constant(range(k, k + 2 * LANES, 2))) for k in range(2)]

    def columns(self, start, masks, count):
        """The first `count` elements of each window, one after the other."""
        for column in range(0, count, self.stride):
            yield from self.load(start, column, masks[column])[: count - column]


def _store(builder, vector, pointer, count):
    # The first `count` lanes to memory.
    name, size = _suffix(vector.type)
    place = builder.bitcast(pointer, vector.type.as_pointer())
    full = builder.icmp_signed(">=", count, count.type(LANES))
    with builder.if_else(full, likely=True) as (whole, part):
        with whole:
            builder.store(vector, place, align=size)
        with part:
            lanes = _splat(builder, builder.trunc(count, _INDEX))
            mask = builder.icmp_signed("<", _constant(range(LANES)), lanes)
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [vector.type, place.type, _INDEX, mask.type]),
                f"llvm.masked.store.{name}",
            )
            builder.call(function, [vector, place, _INDEX(size), mask])


def _pointer(context, builder, kind, array):
    return context.make_array(kind)(context, builder, array).data


def make_maximum(stride, columns, lowest):
    """A function for kernels: maxima of LANES windows and which elements they are.

    f(x, image, width, top, bottom, left, y, argmax, place, count, keep) goes over rows [top,
    bottom) of the image that begins at the flat index `image` of x, and over `columns` columns
    from `left + stride * lane` on; those outside of [0, width) do not count. The first of equals
    wins, and NaN never does. The results of the first `count` windows go to y[place:], and if
    `keep` is 1 (else 0) the winners, row * width + column or -1, to argmax[place:] (int32). All
    arrays are flat.
    """

    def generate(context, builder, signature, arguments):
        x, image, width, top, bottom, left, y, argmax, place, count, keep = arguments
        b, kinds = builder, signature.args
        element = context.get_value_type(kinds[0].dtype)
        worst = ir.Constant(ir.VectorType(element, LANES), [lowest] * LANES)
        row = _Row(b, _pointer(context, b, kinds[0], x), left, width, stride, worst)
        masks = [row.masks(column) for column in range(columns)]
        steps = _constant(range(0, stride * LANES, stride))
        y_place = b.gep(_pointer(context, b, kinds[6], y), [place])

        def scan(best, where=None):
            with cgutils.for_range_slice(b, top, bottom, top.type(1)) as (h, _):
                start = b.mul(h, width)
                if where:
                    first = _splat(b, b.trunc(b.add(start, left), _INDEX))
                    first = b.add(first, steps)
                values = row.columns(b.add(image, start), masks, columns)
                for column, value in enumerate(values):
                    held = b.load(best)
                    above = b.fcmp_ordered(">", value, held)
                    b.store(b.select(above, value, held), best)
                    if where:
                        numbers = b.add(first, _constant([column] * LANES))
                        b.store(b.select(above, numbers, b.load(where)), where)
            _store(b, b.load(best), y_place, count)

        with b.if_else(b.icmp_signed("!=", keep, keep.type(0))) as (with_places, without):
            best = cgutils.alloca_once(b, worst.type)
            where = cgutils.alloca_once(b, _NUMBERS)
            with with_places:
                b.store(worst, best)
                b.store(_constant([-1] * LANES), where)
                scan(best, where)
                target = b.gep(_pointer(context, b, kinds[7], argmax), [place])
                _store(b, b.load(where), target, count)
            with without:
                b.store(worst, best)
                scan(best)
        return context.get_dummy_value()

    @intrinsic
    def maximum(typing, x, image, width, top, bottom, left, y, argmax, place, count, keep):
        i = types.intp
        return types.void(x, i, i, i, i, i, y, argmax, i, i, i), generate

    return maximum


def make_total(stride, columns):
    """A function for kernels: sums over LANES windows, arguments as in `make_maximum`."""

    def generate(context, builder, signature, arguments):
        x, image, width, top, bottom, left, y, place, count = arguments
        b, kinds = builder, signature.args
        element = context.get_value_type(kinds[0].dtype)
        zero = ir.Constant(ir.VectorType(element, LANES), [0.0] * LANES)
        row = _Row(b, _pointer(context, b, kinds[0], x), left, width, stride, zero)
        masks = [row.masks(column) for column in range(columns)]
        total = cgutils.alloca_once_value(b, zero)
        with cgutils.for_range_slice(b, top, bottom, top.type(1)) as (h, _):
            start = b.add(image, b.mul(h, width))
            for value in row.columns(start, masks, columns):
                b.store(b.fadd(b.load(total), value), total)
        _store(b, b.load(total), b.gep(_pointer(context, b, kinds[6], y), [place]), count)
        return context.get_dummy_value()

    @intrinsic
    def add_up(typing, x, image, width, top, bottom, left, y, place, count):
        i = types.intp
        return types.void(x, i, i, i, i, i, y, i, i), generate

    return add_up


def make_cell_maximum(vectors, lowest):
    """A function for kernels: maxima over a window, of `vectors * LANES` channels side by side.

    f(x, first, rows, columns, pitch, width, number, y, argmax, place) goes over the `columns` cells
    of each of `rows` rows; a cell is that many channels of the flat array x, the first is at
    `first`, and rows are `pitch` elements apart. A cell's number is that of the first, `number`,
    and grows by `width` a row. To y[place:] go the maxima, to argmax[place:] (int32) the numbers of
    the cells they are from, or -1; ties and NaN as in `make_maximum`.
    """

    def generate(context, builder, signature, arguments):
        x, first, rows, columns, pitch, width, number, y, argmax, place = arguments
        b, kinds = builder, signature.args
        element = context.get_value_type(kinds[0].dtype)
        worst = ir.Constant(ir.VectorType(element, LANES), [lowest] * LANES)
        none = _constant([-1] * LANES)
        size = _suffix(worst.type)[1]
        source = _pointer(context, b, kinds[0], x)
        best = [cgutils.alloca_once_value(b, worst) for _ in range(vectors)]
        where = [cgutils.alloca_once_value(b, none) for _ in range(vectors)]
        one = rows.type(1)
        for variables, initial in ((best, worst), (where, none)):
            for variable in variables:
                b.store(initial, variable)
        with cgutils.for_range_slice(b, rows.type(0), rows, one) as (h, _):
            start, row = b.add(first, b.mul(h, pitch)), b.add(number, b.mul(h, width))
            with cgutils.for_range_slice(b, rows.type(0), columns, one) as (w, _):
                numbers = _splat(b, b.trunc(b.add(row, w), _INDEX))
                cell = b.add(start, b.mul(w, w.type(vectors * LANES)))
                for v in range(vectors):
                    address = b.gep(source, [b.add(cell, cell.type(v * LANES))])
                    value = b.load(b.bitcast(address, worst.type.as_pointer()), align=size)
                    held = b.load(best[v])
                    above = b.fcmp_ordered(">", value, held)
                    b.store(b.select(above, value, held), best[v])
                    b.store(b.select(above, numbers, b.load(where[v])), where[v])
        for v in range(vectors):
            target = b.add(place, place.type(v * LANES))
            all_lanes = place.type(LANES)
            y_place = b.gep(_pointer(context, b, kinds[7], y), [target])
            _store(b, b.load(best[v]), y_place, all_lanes)
            where_place = b.gep(_pointer(context, b, kinds[8], argmax), [target])
            _store(b, b.load(where[v]), where_place, all_lanes)
        return context.get_dummy_value()

    @intrinsic
    def maximum(typing, x, first, rows, columns, pitch, width, number, y, argmax, place):
        i = types.intp
        return types.void(x, i, i, i, i, i, i, y, argmax, i), generate

    return maximum
