"""Sums of rows into the rows that indices name."""

from .launch import BLOCK, blocks, launch


def add_rows(rows, index, out):
    """out[index[k]] += rows[k] for every k: rows (K, C), index (K,) int64, out (N, C) in C order.

    Equal indices add up, in their order; indices outside of `out` are passed over.
    """
    if rows.size and out.size:
        grid = (blocks(out.size, BLOCK),)
        args = len(index), out.shape[1], out.size
        launch("scatter.cu", "add_rows", (rows, index, out), grid, (BLOCK,), args)
