"""Blocks of vectors for Numba kernels: transposition, transforms of tiles, copies.

LLVM vectorises most loops by itself, but does not transpose blocks. The functions here write the
instructions that do, for LANES neighbours at once. They are called from kernels and compiled into
them. Products of matrices are in `simd_products`.

Arrays must be C-contiguous, of float32 or float64. Places in them are flat indices, which are not
checked; what lies `pitch` or `step` apart is counted in elements.
"""

from llvmlite import ir
from numba.core import cgutils, codegen, types
from numba.extending import intrinsic

# AVX-512 has 32 registers of 16 floats; others have 16 of 8, or 32 of 4. A product keeps the sums
# of ROWS rows and PANEL columns in registers.
_LARGE = "+avx512f" in codegen.get_host_cpu_features()
LANES = 16 if _LARGE else 8
ROWS = 6
VECTORS = 4 if _LARGE else 2
PANEL = VECTORS * LANES
LINE = 64  # bytes
_AHEAD = 64  # how many elements further an image is fetched while it is read

INDEX = ir.IntType(32)


def _lanes(values):
    return ir.Constant(ir.VectorType(INDEX, len(values)), list(values))


def splat(builder, scalar):
    # The scalar in every lane.
    empty = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(INDEX, 0))
    return builder.shuffle_vector(first, empty, _lanes([0] * LANES))


class Memory:
    """Writes the instructions that load and store vectors of one array."""

    def __init__(self, context, builder, kind, array, index):
        self.builder = builder
        element = context.get_value_type(kind.dtype)
        self.size = context.get_abi_sizeof(element)
        self.vector = ir.VectorType(element, LANES)
        self.data = context.make_array(kind)(context, builder, array).data
        self.index = index

    def place(self, offset=None):
        index = self.index if offset is None else self.builder.add(self.index, offset)
        return self.builder.gep(self.data, [index])

    def load(self, offset=None, mask=None):
        place = self.builder.bitcast(self.place(offset), self.vector.as_pointer())
        if mask is None:
            return self.builder.load(place, align=self.size)
        values = [place, ir.Constant(INDEX, self.size), mask, ir.Constant(self.vector, None)]
        return self._masked("load", self.vector, values)

    def store(self, value, offset=None, mask=None, stream=False):
        # Shorter vectors would not fill a line of the cache, and parts of lines go to memory
        # slowly.
        stream = stream and _LARGE
        place = self.builder.bitcast(self.place(offset), self.vector.as_pointer())
        if mask is not None:
            values = [value, place, ir.Constant(INDEX, self.size), mask]
            self._masked("store", ir.VoidType(), values)
        elif stream:
            written = self.builder.store(value, place, align=LINE)
            flag = self.builder.module.add_metadata([ir.Constant(INDEX, 1)])
            written.set_metadata("nontemporal", flag)
        else:
            self.builder.store(value, place, align=self.size)

    def prefetch(self, offset, write=False):
        place = self.place(offset)
        kind = ir.FunctionType(ir.VoidType(), [place.type, *[INDEX] * 3])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        # Whether it will be written, to be kept in all caches, data.
        flags = (int(write), 3, 1)
        self.builder.call(function, [place, *(ir.Constant(INDEX, flag) for flag in flags)])

    def _masked(self, name, result, values):
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(result, [value.type for value in values]),
            f"llvm.masked.{name}.v{LANES}f{8 * self.size}.p0",
        )
        return self.builder.call(function, values)


def lanes_below(builder, count):
    # Of each lane: whether its number is below `count`.
    return builder.icmp_signed("<", _lanes(range(LANES)), splat(builder, count))


# ---- transposition


def _transposed(builder, rows):
    # Rows i and i + half interleave; after log2(LANES) such rounds, rows are columns.
    half = LANES // 2
    low = _lanes([lane for i in range(half) for lane in (i, LANES + i)])
    high = _lanes([lane for i in range(half, LANES) for lane in (i, LANES + i)])
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


# ---- transforms of tiles


class Value:
    """A vector in a register: what the arithmetic of a transform is written with."""

    def __init__(self, builder, value):
        self.builder = builder
        self.value = value

    def _number(self, number):
        element = ir.Constant(self.value.type.element, number)
        return ir.Constant(self.value.type, [element] * LANES)

    # "contract" lets a product and a sum become one instruction.
    def __add__(self, other):
        total = self.builder.fadd(self.value, other.value, flags=("contract",))
        return Value(self.builder, total)

    def __sub__(self, other):
        difference = self.builder.fsub(self.value, other.value, flags=("contract",))
        return Value(self.builder, difference)

    def __rmul__(self, number):
        product = self.builder.fmul(self._number(number), self.value, flags=("contract",))
        return Value(self.builder, product)

    def relu(self):
        """x where x > 0, else 0 * x + 0, which keeps NaN (as the ReLU layer does)."""
        b, x, zero = self.builder, self.value, self._number(0)
        rest = b.fadd(b.fmul(x, zero), zero)
        return Value(b, b.select(b.fcmp_ordered(">", x, zero), x, rest))


def tile_transform(line, size, finish=None, stream=False):
    """A function for kernels that transforms a square tile, in both directions.

    Args:
        line: the transform of one line of the tile, `size` values to several; a Python function of
            sums, differences and products with numbers.
        finish: applied to each result.
        stream: the results are written past the caches. Each must be at a multiple of LINE bytes
            in memory, and `flush` must follow before another thread reads them.

    Returns:
        f(a, a_place, a_row, a_column, b, b_place, b_row, b_column): reads vectors from a, of which
        each lane is a tile of its own, and writes the results to b. Rows and columns of vectors
        are *_row and *_column apart.
    """

    def generate(context, builder, signature, arguments):
        source = Memory(context, builder, signature.args[0], *arguments[:2])
        target = Memory(context, builder, signature.args[4], *arguments[4:6])

        def places(count, row, column):
            rows = [builder.mul(row, ir.Constant(row.type, i)) for i in range(count)]
            columns = [builder.mul(column, ir.Constant(row.type, i)) for i in range(count)]
            return [[builder.add(r, c) for c in columns] for r in rows]

        grid = places(size, *arguments[2:4])
        tile = [[Value(builder, source.load(place)) for place in row] for row in grid]
        for _ in range(2):
            # What is made of each column is a row of the next round, so that both axes get a turn.
            tile = [line(*column) for column in zip(*tile)]
        for row, values in zip(places(len(tile), *arguments[6:]), tile):
            for place, value in zip(row, values):
                result = finish(value) if finish else value
                target.store(result.value, place, stream=stream)
        return context.get_dummy_value()

    @intrinsic
    def transform(typing, a, a_place, a_row, a_column, b, b_place, b_row, b_column):
        i = types.intp
        return types.void(a, i, i, i, b, i, i, i), generate

    return transform


@intrinsic
def flush(typing):
    """Let what was written past the caches be seen by all threads."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


# ---- copies


def _every(builder, vectors, step):
    # Lanes 0, step, 2 * step, ... of `step` vectors, a power of two, laid end to end.
    while len(vectors) > 1:
        even = _lanes(range(0, 2 * LANES, 2))
        pairs = zip(vectors[::2], vectors[1::2])
        vectors = [builder.shuffle_vector(a, b, even) for a, b in pairs]
    return vectors[0]


def _copy(step):
    def generate(context, builder, signature, arguments):
        source = Memory(context, builder, signature.args[0], *arguments[:2])
        target = Memory(context, builder, signature.args[2], *arguments[2:4])
        places = [ir.Constant(arguments[1].type, first) for first in range(0, step * LANES, LANES)]
        count = builder.trunc(arguments[4], INDEX)
        # The last element that is read is the last one that is copied.
        span = builder.mul(builder.sub(count, ir.Constant(INDEX, 1)), ir.Constant(INDEX, step))
        full = builder.icmp_signed("==", count, ir.Constant(INDEX, LANES))
        # Without masks where none are needed: not every processor has them.
        whole = builder.and_(full, ir.Constant(ir.IntType(1), step == 1))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                target.store(source.load())
            with otherwise:
                rests = [builder.sub(span, ir.Constant(INDEX, k.constant - 1)) for k in places]
                masks = [lanes_below(builder, rest) for rest in rests]
                vectors = [source.load(*pair) for pair in zip(places, masks)]
                target.store(_every(builder, vectors, step), mask=lanes_below(builder, count))
        return context.get_dummy_value()

    @intrinsic
    def copy(typing, a, a_place, b, b_place, count):
        i = types.intp
        return types.void(a, i, b, i, i), generate

    return copy


# Copy `count` elements, at least one and at most LANES, that lie 1, 2 or 4 apart in a, to b.
copy_lanes, copy_second, copy_fourth = _copy(1), _copy(2), _copy(4)


@intrinsic
def prefetch(typing, a, place):
    """Fetch the line of the cache that has this element of a, which need not exist."""

    def generate(context, builder, signature, arguments):
        memory = Memory(context, builder, signature.args[0], *arguments)
        memory.prefetch(ir.Constant(arguments[1].type, 0))
        return context.get_dummy_value()

    return types.void(a, types.intp), generate
