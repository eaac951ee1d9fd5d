"""Vector instructions for Numba kernels: what the modules `simd_*` are written with.

LLVM vectorises most loops by itself, but it neither transposes blocks nor keeps a product's sums in
registers. The functions of these modules write the instructions that do, for LANES neighbours at
once. They are called from kernels and compiled into them.

    simd_transpose    blocks of LANES rows to columns
    simd_tiles        transforms of square tiles
    simd_copy         copies of elements that lie apart
    simd_products     products of matrices
    simd_norm         normalisation
    simd_sums         sums over rows

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

INDEX = ir.IntType(32)


def lane_numbers(values):
    # A vector of integers, one a lane.
    return ir.Constant(ir.VectorType(INDEX, len(values)), list(values))


def splat(builder, scalar):
    # The scalar in every lane.
    empty = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(INDEX, 0))
    return builder.shuffle_vector(first, empty, lane_numbers([0] * LANES))


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
    return builder.icmp_signed("<", lane_numbers(range(LANES)), splat(builder, count))


class Value:
    """A vector in a register: what arithmetic is written with."""

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


# ---- for kernels


@intrinsic
def flush(typing):
    """Let what was written past the caches be seen by all threads."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def prefetch(typing, a, place):
    """Fetch the line of the cache that has this element of a, which need not exist."""

    def generate(context, builder, signature, arguments):
        memory = Memory(context, builder, signature.args[0], *arguments)
        memory.prefetch(ir.Constant(arguments[1].type, 0))
        return context.get_dummy_value()

    return types.void(a, types.intp), generate
