"""3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308).

The output is cut into tiles of 4x4. With the matrices A, B and G of the paper, a tile of output
channel k is a sum over input channels c, of tiles d of 6x6 that overlap by two,

    Y = A^T [ sum_c (G w G^T) * (B^T d B) ] A        (* element by element)

which is 36 products for 16 numbers where the direct way takes 144. For each of the 36 elements,
the sum is a product of matrices, (tiles, C) by (C, K). The gradient of the data is the same with
weights transposed and turned by 180 degrees; that of the weights is

    dw = G^T [ sum over tiles (B^T d B) * (A dy A^T) ] G

with 36 products of matrices, (C, tiles) by (tiles, K). Blocks of tiles are small enough for what
one thread computes to stay in its cache. The arrays, with C and K rounded up to LANES:

    v    transformed input     (36, tiles, C)
    m    transformed output    (36, tiles, K)
    u    transformed weights   (group, 36, K in panels, C, PANEL)
    du   their gradient        (36, C, K)

The results are those of the direct way up to rounding: about 1e-5 of the largest in float32.
"""

import math
from collections import namedtuple

import numba
from numba import njit, prange

from . import parallel_njit
from .denormals import flush_denormals, restore_denormals
from .simd import LANES, LINE, PANEL, ROWS, flush
from .simd_products import multiply
from .winograd_slopes import backward_weight
from .winograd_tiles import (
    BIAS,
    SCRATCH,
    apart,
    padded,
    sizes,
    transform_input,
    transform_output,
)  # fmt: skip
from .winograd_weights import transform_panel
from .workspace import workspace

__all__ = ["backward_data", "backward_weight", "forward", "suits"]

# Tiles of a block: at least so many, and more for more channels, so that u, which passes through
# the caches once a block, does not cost more than the products.
FORWARD_TILES = 24
# No more tiles than this are one block. Its weights are used once, and transformed part by part,
# for _DEPTH input channels, so that u does not leave the cache.
FUSED_TILES, _DEPTH = 64, 64
STREAM_BYTES = 16 << 20  # outputs from this size on are written past the caches
_STEP = math.lcm(ROWS, LANES // 4)  # blocks have a multiple of so many tiles

# What the weights' transforms cost beyond those of a plain product, in the units of `suits`.
_TRANSFORMS = {None: 65, "data": 25, "weight": 50}

_Plan = namedtuple("_Plan", "block blocks parts fused turned relu stream")


def suits(geometry, gradient=None):
    """Whether a convolution can be computed here and is faster so than by a plain product.

    Args:
        gradient: "data" or "weight" to ask for that gradient rather than for the convolution.
    """
    g = geometry
    if g.kernel != (3, 3) or g.stride != (1, 1) or g.dilation != (1, 1):
        return False
    # Lanes without a channel are idle, and the weights' gradient goes group by group.
    least = 16 if g.group > 1 and gradient == "weight" else 3
    if min(g.channels, g.num_output) < least * g.group:
        return False
    # In units of 18 operations, for a pair of channels: 36 products for a tile, against 9 for a
    # position, and what the transforms of the weights take.
    tiles = g.batch * math.prod(-(-n // 4) for n in g.out_size)
    return 4 * tiles + _TRANSFORMS[gradient] <= g.batch * g.out_count


# ---- what layers call, through `convolution`


def forward(x, weight, bias, y, geometry, relu=False, norm=None):
    """y = x convolved with weight, plus bias, normalised, and max(y, 0); see `convolution`."""
    _run(x, weight, bias, y, sizes(geometry), relu, None, False, norm)


def backward_data(dy, weight, dx, geometry, gate=None):
    """dx = the gradient of x: dy convolved with the transposed weight, turned by 180 degrees.

    `gate`: an array like x, where dx is times 0 unless this is positive; None for none.
    """
    _run(dy, weight, None, dx, sizes(geometry, turned=True), False, gate, True)


# ---- plans


def _partition(s, threads):
    """How work is divided: tiles of a block, blocks, and parts of the output channels.

    A function of the sizes and the number of threads alone.
    """
    total, panels = s.batch * s.down * s.across, -(-padded(s.outputs) // PANEL)
    if total <= FUSED_TILES and panels * s.group >= threads:
        blocks, parts = 1, min(padded(s.outputs) // LANES, -(-threads // s.group))
    else:
        most = max(FORWARD_TILES, math.isqrt(s.inputs * s.outputs) * 3 // 16)
        blocks, parts = -(-total // most), 1
        if total * s.group >= threads * FORWARD_TILES:
            # As many blocks for each thread.
            blocks = -(-(-(-blocks * s.group // threads) * threads) // s.group)
        else:
            parts = min(panels, -(-threads // (blocks * s.group)))
    block = -(-total // blocks)
    block = -(-block // _STEP) * _STEP
    return block, -(-total // block), parts


def _run(x, weight, bias, y, s, relu, gate, turned, norm=None):
    if y.size == 0:
        return
    threads = numba.get_num_threads()
    block, blocks, parts = _partition(s, threads)
    inputs, outputs = padded(s.inputs), padded(s.outputs)
    fused = blocks == 1
    stream = (
        y.nbytes >= STREAM_BYTES and s.out_width * y.itemsize % LINE == 0
        and y.ctypes.data % LINE == 0
    )  # fmt: skip
    u, v, m, scratch, offset, coefficients = workspace(
        x.dtype, (threads, 36, apart(_DEPTH * PANEL)) if fused
        else (s.group, 36, apart(s.inputs * outputs)),
        (threads, 36, apart(block * inputs)), (threads, 36, apart(block * outputs)),
        (threads, SCRATCH), (s.group, outputs),
        (4, 0 if norm is None else s.group, outputs),
    )  # fmt: skip
    offset[:, s.outputs :] = 0
    offset[:, : s.outputs] = 0 if bias is None else bias.reshape(s.group, s.outputs)
    if norm is not None:
        coefficients[:, :, s.outputs :] = 0
        coefficients[:, :, : s.outputs] = norm.reshape(4, s.group, s.outputs)
    x, weight, y = x.ravel(), weight.ravel(), y.ravel()
    gate = y[:0] if gate is None else gate.ravel()
    if not fused:
        _transform_weights(weight, s, turned, u)
    plan = _Plan(block, blocks, parts, fused, turned, relu, stream)
    _convolve(x, weight, u, offset, coefficients, gate, y, s, plan, v, m, scratch)


# ---- products


@parallel_njit
def _transform_weights(weight, s, turned, u):
    width = padded(s.outputs)
    panels, chunks = (width + PANEL - 1) // PANEL, (s.inputs + _DEPTH - 1) // _DEPTH
    for job in prange(s.group * panels * chunks):
        g, low = job // chunks // panels, job // chunks % panels * PANEL
        high, first = min(low + PANEL, width), job % chunks * _DEPTH
        place = low * s.inputs + first * (high - low)
        last = min(first + _DEPTH, s.inputs)
        transform_panel(
            weight, s, turned, g, low, high, first, last, True, u[g], place, u.shape[2]
        )  # fmt: skip
        flush()


@parallel_njit
def _convolve(x, weight, u, bias, norm, gate, y, s, plan, v, m, scratch):
    # A task is a block of tiles of one group, for one part of the output channels. Each thread
    # has as many, with arrays of its own.
    slots, tasks = len(v), s.group * plan.blocks * plan.parts
    total, width = s.batch * s.down * s.across, padded(s.outputs)
    depth = padded(s.inputs)
    for slot in prange(slots):
        before = flush_denormals()
        v_, m_, scratch_ = v[slot], m[slot], scratch[slot]
        for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
            g, part = task // plan.parts // plan.blocks, task % plan.parts
            first = task // plan.parts % plan.blocks * plan.block
            last = min(first + plan.block, total)
            # The weights of one block are transformed for it alone, and may be cut anywhere.
            unit = LANES if plan.fused else PANEL
            units = (width + unit - 1) // unit
            low = units * part // plan.parts * unit
            high = min(units * (part + 1) // plan.parts * unit, width)
            u_ = u[slot] if plan.fused else u[g]
            for c in range(0, s.inputs, LANES):
                transform_input(x, s, g, c, first, last, scratch_, v_, c, depth, v.shape[2])
            for t in range(last - first):
                for k in range(low, high):
                    m_[BIAS, t * width + k] = bias[g, k]
            if plan.fused:
                for k in range(low, high, PANEL):
                    _multiply_panel(
                        v_, weight, u_, s, plan, g, k, min(PANEL, high - k), last - first, m_
                    )  # fmt: skip
            else:
                for i in range(36):
                    _multiply_element(v_, u_, s, i, low, high, last - first, m_)
            for k in range(low, high, LANES):
                transform_output(
                    m_, k, width, m.shape[2], s, g, k, first, last, plan.relu, norm, gate,
                    plan.stream, scratch_, y,
                )  # fmt: skip
        flush()
        restore_denormals(before)


@njit
def _multiply_element(v, u, s, i, low, high, tiles, m):
    pitch, width = padded(s.inputs), padded(s.outputs)
    for k in range(low, high, PANEL):
        columns = min(PANEL, width - k)
        for t in range(0, tiles, ROWS):
            multiply(
                v, i * v.shape[1] + t * pitch, pitch, 1,
                u, i * u.shape[1] + k * s.inputs, columns, s.inputs,
                m, i * m.shape[1] + t * width + k, width, columns, i == BIAS,
            )  # fmt: skip


@njit
def _multiply_panel(v, weight, u, s, plan, g, k, columns, tiles, m):
    # m = v u, plus the bias that m holds, for a panel of output channels from k on, whose weights
    # are transformed part by part.
    pitch, width = padded(s.inputs), padded(s.outputs)
    for d in range(0, s.inputs, _DEPTH):
        depth = min(_DEPTH, s.inputs - d)
        transform_panel(
            weight, s, plan.turned, g, k, k + columns, d, d + depth, False, u, 0, u.shape[1]
        )
        for i in range(36):
            for t in range(0, tiles, ROWS):
                multiply(
                    v, i * v.shape[1] + t * pitch + d, pitch, 1,
                    u, i * u.shape[1], columns, depth,
                    m, i * m.shape[1] + t * width + k, width, columns, d > 0 or i == BIAS,
                )  # fmt: skip
