"""The transforms of Winograd's F(4x4, 3x3): images to tiles and back.

The arrays and the mathematics are described in `winograd`; the weights' transforms are in
`winograd_weights`. Everything is done for LANES channels at once, each of which is a lane of all
vectors.
"""

from collections import namedtuple

from numba import njit

from .simd import LANES
from .simd_norm import normalise_lanes
from .simd_tiles import tile_transform
from .simd_transpose import (
    transpose,
    transpose_ahead,
    transpose_from,
    transpose_gated,
    transpose_gated_stream,
    transpose_gated_to,
    transpose_stream,
    transpose_to,
)

# A convolution: channels of one group, sizes, padding, and the tiles of 4x4 that cover the output.
Sizes = namedtuple(
    "Sizes", "batch group inputs outputs height width out_height out_width pad_y pad_x down across"
)


def sizes(geometry, turned=False):
    """The `Sizes` of a convolution, or if `turned` of the one that is its data's gradient."""
    g = geometry
    ends = (g.channels, g.in_size), (g.num_output, g.out_size)
    (inputs, size), (outputs, out_size) = ends[::-1] if turned else ends
    pad = tuple(2 - p for p in g.pad) if turned else g.pad
    tiles = (-(-n // 4) for n in out_size)
    return Sizes(
        g.batch, g.group, inputs // g.group, outputs // g.group, *size, *out_size, *pad, *tiles
    )  # fmt: skip


def apart(count):
    """An odd number of lines of the cache, for at least `count` elements.

    Places that far apart do not compete for the same few places of the cache.
    """
    return (-(-count // LANES) | 1) * LANES


# Columns of input are kept in a ring while tiles are taken from it. Its first two are repeated
# behind its end, for the tile that goes round.
_RING = 2 * LANES
_RING_ROW = (_RING + 2) * LANES
SCRATCH = max(6 * _RING_ROW, 4 * LANES * LANES)  # elements that a transform needs for itself
_TILES = LANES // 4  # tiles that LANES columns make

# ---- the transform of a tile


def _input_line(d0, d1, d2, d3, d4, d5):
    # B^T d
    a, b, c, d = d4 - 4 * d2, d3 - 4 * d1, d4 - d2, 2 * (d3 - d1)
    return 4 * d0 - 5 * d2 + d4, a + b, a - b, c + d, c - d, 4 * d1 - 5 * d3 + d5


def _output_line(m0, m1, m2, m3, m4, m5):
    # A^T m
    a, b, c, d = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + a + c, b + 2 * d, a + 4 * c, b + 8 * d + m5


def _slope_line(y0, y1, y2, y3):
    # A y
    a, b, c, d = y0 + y2, y1 + y3, y0 + 4 * y2, 2 * y1 + 8 * y3
    return y0, a + b, a - b, c + d, c - d, y3


_input_tile = tile_transform(_input_line, 6)
_output_tile = tile_transform(_output_line, 6)
_rectified_tile = tile_transform(_output_line, 6, finish=lambda value: value.relu())
_slope_tile = tile_transform(_slope_line, 4)

# Of this element of m, A^T m A takes one part for each output: the bias is added to it.
BIAS = 7

# ---- images


@njit(inline="always")
def padded(channels):
    """The number of channels, rounded up to LANES."""
    return (channels + LANES - 1) // LANES * LANES


@njit(inline="always")
def _run(tile, last, s):
    # The tiles from `tile` on that lie side by side: image, row, column, and how many they are.
    row, column = tile // s.across, tile % s.across
    return row // s.down, row % s.down, column, min(s.across - column, last - tile)


@njit
def _columns(x, plane, channels, height, width, top, left, rows, ring, column):
    # ring[row, column + j, lane] = x[lane, top + row, left + j] for LANES columns; 0 outside.
    area = height * width
    whole = channels >= LANES and left >= 0 and left + LANES <= width
    for row in range(rows):
        y = top + row
        place = plane + y * width + left
        target = row * _RING_ROW + column * LANES
        if y < 0 or y >= height:
            transpose_from(x, 0, 0, ring, target, LANES, 0, 0, 0)
        elif whole:
            transpose_ahead(x, place, area, ring, target, LANES)
        else:
            transpose_from(x, place, area, ring, target, LANES, channels, -left, width - left)


@njit
def transform_input(x, s, g, c, first, last, ring, v, place, pitch, step):
    """v = B^T d B for the tiles [first, last) and LANES channels of group g from c on.

    The 36 elements of a tile are `step` apart in v, neighbouring tiles `pitch`.
    """
    tile = first
    while tile < last:
        n, r, t, count = _run(tile, last, s)
        plane = ((n * s.group + g) * s.inputs + c) * s.height * s.width
        top, left = 4 * r - s.pad_y, 4 * t - s.pad_x
        channels, done = s.inputs - c, 0
        for j in range(0, 4 * count + 2, LANES):
            _columns(x, plane, channels, s.height, s.width, top, left + j, 6, ring, j % _RING)
            if j % _RING == 0:
                for row in range(6):
                    for i in range(row * _RING_ROW, row * _RING_ROW + 2 * LANES):
                        ring[i + _RING * LANES] = ring[i]
            while done < count and 4 * done + 6 <= j + LANES:
                column = 4 * done % _RING * LANES
                _input_tile(ring, column, _RING_ROW, LANES, v, place, 6 * step, step)
                place += pitch
                done += 1
        tile += count


@njit
def transform_slopes(dy, s, g, k, first, last, ring, m, place, pitch, step):
    """m = A dy A^T for the tiles [first, last) and LANES channels of group g from k on."""
    channels = s.outputs - k
    tile = first
    while tile < last:
        n, r, t, count = _run(tile, last, s)
        plane = ((n * s.group + g) * s.outputs + k) * s.out_height * s.out_width
        for done in range(0, count, _TILES):
            left = 4 * (t + done)
            _columns(dy, plane, channels, s.out_height, s.out_width, 4 * r, left, 4, ring, 0)
            for i in range(0, 4 * LANES * min(_TILES, count - done), 4 * LANES):
                _slope_tile(ring, i, _RING_ROW, LANES, m, place, 6 * step, step)
                place += pitch
        tile += count


@njit
def _write_gated(lines, source, y, target, area, rows, columns, whole, past, gate):
    if not whole:
        transpose_gated_to(lines, source, LANES, y, target, area, rows, 0, columns, gate)
    elif past:
        transpose_gated_stream(lines, source, LANES, y, target, area, gate)
    else:
        transpose_gated(lines, source, LANES, y, target, area, gate)


@njit
def transform_output(
    m, place, pitch, step, s, g, k, first, last, rectify, norm, gate, stream, lines, y
):  # fmt: skip
    """y = A^T m A, or max(., 0) of it, for the tiles [first, last) and LANES channels from k on.

    `norm`: (4, group, channels), by which y is normalised before the maximum is taken; or empty.
    `gate`: an array like y, where y is times 0 unless this is positive; or an empty one.
    `stream`: past the caches where a run of tiles begins at a multiple of LANES, for rows of y
    that are aligned.
    """
    area, channels, row_step = s.out_height * s.out_width, s.outputs - k, LANES * LANES
    plain = norm.size == 0
    tile = first
    while tile < last:
        n, r, t, count = _run(tile, last, s)
        corner = ((n * s.group + g) * s.outputs + k) * area + 4 * r * s.out_width + 4 * t
        past = stream and t % _TILES == 0
        for done in range(0, count, _TILES):
            for i in range(0, 4 * LANES * min(_TILES, count - done), 4 * LANES):
                if rectify and plain:
                    _rectified_tile(m, place, 6 * step, step, lines, i, row_step, LANES)
                else:
                    _output_tile(m, place, 6 * step, step, lines, i, row_step, LANES)
                place += pitch
            if not plain:
                at, apart_ = g * norm.shape[2] + k, norm.shape[1] * norm.shape[2]
                normalise_lanes(lines, 0, lines, 0, 4 * row_step, norm, at, apart_, rectify)
            high = min(s.out_width - 4 * (t + done), 4 * (count - done))
            for row in range(min(4, s.out_height - 4 * r)):
                source, target = row * row_step, corner + row * s.out_width + 4 * done
                whole, rows = high >= LANES and channels >= LANES, min(channels, LANES)
                if gate.size > 0:
                    _write_gated(lines, source, y, target, area, rows, high, whole, past, gate)
                elif not whole:
                    transpose_to(lines, source, LANES, y, target, area, rows, 0, high)
                elif past:
                    transpose_stream(lines, source, LANES, y, target, area)
                else:
                    transpose(lines, source, LANES, y, target, area)
        tile += count
