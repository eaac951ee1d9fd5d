"""Products of matrices for Numba kernels, the sums of which are kept in registers.

What holds for `simd` holds here. LLVM does not find such a loop by itself.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import INDEX, LANES, ROWS, VECTORS, Memory, Value, lanes_below, splat


def _sums(builder, rows, vectors, a, a_row, a_step, b, b_step, depth):
    # a b as vectors, row by row; the builder is left behind the loop over `depth`.
    number = a_row.type
    steps = [builder.mul(ir.Constant(number, row), a_row) for row in range(rows)]
    columns = [ir.Constant(number, LANES * v) for v in range(vectors)]
    entry = builder.block
    body, after = (builder.append_basic_block(name) for name in ("depth", "after"))
    builder.branch(body)
    builder.position_at_end(body)
    d = builder.phi(number)
    d.add_incoming(ir.Constant(number, 0), entry)
    sums = [builder.phi(b.vector) for _ in range(rows * vectors)]
    for phi in sums:
        phi.add_incoming(ir.Constant(b.vector, None), entry)
    b_place, a_place = builder.mul(d, b_step), builder.mul(d, a_step)
    right = [b.load(builder.add(b_place, v)) for v in columns]
    results = []
    for step in steps:
        left = splat(builder, builder.load(a.place(builder.add(a_place, step))))
        for vector in right:
            product = builder.fmul(left, vector, flags=("contract",))
            results.append(builder.fadd(sums[len(results)], product, flags=("contract",)))
    for phi, value in zip(sums, results):
        phi.add_incoming(value, body)
    following = builder.add(d, ir.Constant(number, 1))
    d.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, depth), body, after)
    builder.position_at_end(after)
    return results


def _outputs(builder, rows, vectors, c_row):
    # Where the vectors of c are, row by row: (row, number of the vector, offset).
    for row in range(rows):
        start = builder.mul(ir.Constant(c_row.type, row), c_row)
        for v in range(vectors):
            yield row, v, builder.add(start, ir.Constant(c_row.type, LANES * v))


def _choose(builder, number, cases):
    # Runs cases[number], a function, or nothing if there is none.
    end = builder.append_basic_block("end")
    choice = builder.switch(number, end)
    for key, generate in cases.items():
        block = builder.append_basic_block("case")
        choice.add_case(ir.Constant(number.type, key), block)
        builder.position_at_end(block)
        generate()
        builder.branch(end)
    builder.position_at_end(end)


def _multiply(context, builder, signature, arguments, vectors):
    a, a_place, a_row, a_step, b, b_place, b_step, depth, c, c_place, c_row, _, add = arguments
    a = Memory(context, builder, signature.args[0], a, a_place)
    b = Memory(context, builder, signature.args[4], b, b_place)
    c = Memory(context, builder, signature.args[8], c, c_place)
    sums = _sums(builder, ROWS, vectors, a, a_row, a_step, b, b_step, depth)
    # What c held is added last: sums over blocks of sums round less than one long sum.
    for value, (_, _, place) in zip(sums, _outputs(builder, ROWS, vectors, c_row)):
        held = builder.select(add, c.load(place), ir.Constant(c.vector, None))
        c.store(builder.fadd(value, held), place)


@intrinsic
def multiply(
    typing, a, a_place, a_row, a_step, b, b_place, b_step, depth, c, c_place, c_row, width, add
):
    """c = a b, or c += a b if `add`: ROWS rows, `width` columns, summed over `depth` >= 1.

    Element (r, d) of a is at a_place + r * a_row + d * a_step; row d of b begins at
    b_place + d * b_step, row r of c at c_place + r * c_row. `width` is a multiple of LANES up to
    PANEL.
    """

    def generate(context, builder, signature, arguments):
        cases = {
            v * LANES: lambda v=v: _multiply(context, builder, signature, arguments, v)
            for v in range(1, VECTORS + 1)
        }
        _choose(builder, arguments[11], cases)
        return context.get_dummy_value()

    i = types.intp
    return types.void(a, i, i, i, b, i, i, i, c, i, i, i, types.boolean), generate


def _multiply_to(context, builder, signature, arguments, rows, vectors):
    (
        a, a_place, a_row, a_step, b, b_place, b_step, depth, c, c_place, c_row, _, columns, add,
        bias, bias_place, relu,
    ) = arguments  # fmt: skip
    a = Memory(context, builder, signature.args[0], a, a_place)
    b = Memory(context, builder, signature.args[4], b, b_place)
    c = Memory(context, builder, signature.args[8], c, c_place)
    bias = Memory(context, builder, signature.args[14], bias, bias_place)
    # While the sums are computed, there is time to fetch what they are written to.
    for _, _, place in _outputs(builder, rows, vectors, c_row):
        c.prefetch(place, write=True)
    sums = _sums(builder, rows, vectors, a, a_row, a_step, b, b_step, depth)
    rest = builder.sub(columns, ir.Constant(columns.type, LANES * (vectors - 1)))
    last = lanes_below(builder, builder.trunc(rest, INDEX))
    for value, (row, v, place) in zip(sums, _outputs(builder, rows, vectors, c_row)):
        mask = last if v == vectors - 1 else None
        start = splat(builder, builder.load(bias.place(ir.Constant(c_row.type, row))))
        held = builder.select(add, c.load(place, mask), start)
        value = builder.fadd(value, held)
        value = builder.select(relu, Value(builder, value).relu().value, value)
        c.store(value, place, mask)


@intrinsic
def multiply_to(
    typing, a, a_place, a_row, a_step, b, b_place, b_step, depth, c, c_place, c_row, rows, columns,
    add, bias, bias_place, relu,
):  # fmt: skip
    """As `multiply`, for 1 to ROWS rows and 1 to PANEL columns; then c = max(c, 0) if `relu`.

    Without `add`, row r of c begins as the number bias[bias_place + r]. Of b whole vectors are
    read, of c no more than the columns.
    """

    def generate(context, builder, signature, arguments):
        rows, columns = arguments[11:13]
        kind = rows.type
        # One number for both: rows, then vectors.
        above = builder.add(columns, ir.Constant(kind, LANES - 1))
        vectors = builder.sdiv(above, ir.Constant(kind, LANES))
        number = builder.add(builder.mul(rows, ir.Constant(kind, VECTORS + 1)), vectors)
        cases = {
            r * (VECTORS + 1) + v: lambda r=r, v=v: _multiply_to(
                context, builder, signature, arguments, r, v
            )
            for r in range(1, ROWS + 1)
            for v in range(1, VECTORS + 1)
        }
        _choose(builder, number, cases)
        return context.get_dummy_value()

    i, flag = types.intp, types.boolean
    return types.void(a, i, i, i, b, i, i, i, c, i, i, i, i, flag, bias, i, flag), generate
