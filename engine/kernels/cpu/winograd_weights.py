"""The transforms of Winograd's F(4x4, 3x3): weights and their gradient; see `winograd`."""

import numpy as np
from numba import njit

from .simd import LANES
from .simd_tiles import tile_transform
from .simd_transpose import transpose_add_to, transpose_from, transpose_to


def _weight_line(w0, w1, w2):
    # G w
    a, b, c, d = 1 / 6 * (w0 + w2), 1 / 6 * w1, 1 / 24 * w0 + 1 / 6 * w2, 1 / 12 * w1
    return 1 / 4 * w0, -1 * (a + b), b - a, c + d, c - d, w2


def _weight_slope_line(u0, u1, u2, u3, u4, u5):
    # G^T u
    a, b = 1 / 6 * (u1 + u2), u3 + u4
    c = 1 / 6 * (u2 - u1) + 1 / 12 * (u3 - u4)
    return 1 / 4 * u0 - a + 1 / 24 * b, c, 1 / 6 * b - a + u5


_weight_tile = tile_transform(_weight_line, 3)
_streamed_weight_tile = tile_transform(_weight_line, 3, stream=True)
_weight_slope_tile = tile_transform(_weight_slope_line, 6)


@njit
def transform_panel(weight, s, turned, g, low, high, first, last, stream, u, place, step):
    """u = G w G^T for the output channels [low, high) and the input channels [first, last).

    The weights are (outputs, inputs, 3, 3), or if `turned` they are (inputs, outputs, 3, 3) and
    are turned by 180 degrees first. `stream`: past the caches.
    """
    begin, row, column = (8 * LANES, -3 * LANES, -LANES) if turned else (0, 3 * LANES, LANES)
    output_pitch, input_pitch = (9, s.outputs * 9) if turned else (s.inputs * 9, 9)
    taps = np.empty(2 * LANES * LANES, weight.dtype)
    for d in range(first, last):
        for o in range(low, high, LANES):
            source = g * s.outputs * s.inputs * 9 + o * output_pitch + d * input_pitch
            for j in range(0, 9, LANES):
                transpose_from(
                    weight, source + j, output_pitch, taps, j * LANES, LANES, s.outputs - o,
                    0, 9 - j,
                )  # fmt: skip
            if stream:
                _streamed_weight_tile(taps, begin, row, column, u, place, 6 * step, step)
            else:
                _weight_tile(taps, begin, row, column, u, place, 6 * step, step)
            place += LANES


@njit
def add_slopes(du, place, pitch, step, s, g, low, high, first, last, dw, add):
    """dw += G^T du G for the output channels [low, high) and the input channels [first, last);
    without `add` dw is overwritten.

    du is read from `place` on; input channels are `pitch` apart, the 36 elements `step`.
    """
    taps = np.empty(2 * LANES * LANES, dw.dtype)
    for c in range(first, last):
        for k in range(low, high, LANES):
            source = place + (c - first) * pitch + k - low
            _weight_slope_tile(du, source, 6 * step, step, taps, 0, 3 * LANES, LANES)
            target = ((g * s.outputs + k) * s.inputs + c) * 9
            for j in range(0, 9, LANES):
                taps_place, rows = j * LANES, s.outputs - k
                if add:
                    transpose_add_to(
                        taps, taps_place, LANES, dw, target + j, s.inputs * 9, rows, 0, 9 - j
                    )  # fmt: skip
                else:
                    transpose_to(
                        taps, taps_place, LANES, dw, target + j, s.inputs * 9, rows, 0, 9 - j
                    )  # fmt: skip
