"""Convolution by columns: how it is cut into blocks, and the matrices of one, on every device.

Shapes as in cpu/convolution.py. A block is several images, or a part of one.
"""

from ..device import device_of


def blocks(g, itemsize, limit, join_below=None):
    """Slices (images, positions) that cover the output, whose columns stay below `limit` bytes.

    They are larger where one position's are. A pointwise convolution needs no columns: its images
    are never cut, and they are joined only if they have fewer than `join_below` positions each.
    """
    column = g.kernel_count * g.group * itemsize
    together = max(limit // max(column * g.out_count, 1), 1)
    count = g.out_count
    if g.is_pointwise:
        if join_below is not None and count >= join_below:
            together = 1
    elif together == 1:
        count = max(limit // column, 1)
    for n in range(0, g.batch, together):
        for p in range(0, g.out_count, count):
            yield slice(n, min(n + together, g.batch)), slice(p, min(p + count, g.out_count))


def columns(x, images, positions, g, im2col):
    """What the weights meet in a block: (group, K, images * positions), by the device's im2col."""
    if g.is_pointwise:
        return join(x, images, positions, g.channels, g)
    shape = (g.kernel_count * g.group, images.stop - images.start, positions.stop - positions.start)
    col = device_of(x).xp.empty(shape, x.dtype)
    im2col(x[images], g, col, positions.start)
    return col.reshape(g.group, g.kernel_count, -1)


def join(y, images, positions, channels, g):
    """A block of y (N, channels, *size) as (group, channels/group, images * positions), a view if
    there is one image."""
    count, rows = images.stop - images.start, channels // g.group
    part = y[images].reshape(count, g.group, rows, -1)[..., positions]
    if count == 1:
        return part[0]
    part = device_of(y).xp.ascontiguousarray(part.transpose(1, 2, 0, 3))
    return part.reshape(g.group, rows, -1)
