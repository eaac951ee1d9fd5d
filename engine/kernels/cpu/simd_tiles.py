"""Transforms of square tiles for Numba kernels; what holds for `simd` holds here."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import Memory, Value


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
