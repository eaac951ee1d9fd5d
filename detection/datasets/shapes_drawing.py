"""Paint for the drawn data set: textures, backgrounds, clutter, noise.

A texture is a pattern (h, w) of uint8 and a palette that gives each of the 256 values a colour.
All randomness comes from the generator passed in. Fixed-point arithmetic on bytes instead of
floating point makes an image cheap: it is drawn again each time it is read.
"""

import numpy as np

from ...engine.opencv import cv2

_MIN_CONTRAST = 75  # between the mean colours of an object and of what lies around it
_COLOUR_TRIES = 20
_GOLDEN = (1 + 5**0.5) / 2
_AXES = np.array(
    [(0, 1, _GOLDEN), (0, 1, -_GOLDEN), (1, _GOLDEN, 0), (1, -_GOLDEN, 0), (_GOLDEN, 0, 1),
     (-_GOLDEN, 0, 1)]
) / np.hypot(1, _GOLDEN)  # fmt: skip
"""Along which the two colours of each class's objects differ, whatever their mean is: through
opposite corners of an icosahedron, six directions as far from each other as can be."""


def draw_scene(scene, rng):
    """The image (height, width, 3), BGR uint8, of a shapes.Scene."""
    image = _background(scene.height, scene.width, rng)
    for shape in scene.shapes:
        place, inside = shape.slices(scene.width, scene.height)
        _paint(image[place], shape.mask[inside], shape.label - 1, rng)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 1.0))
    amplitude, gain = rng.uniform(0.0, 0.14), rng.uniform(0.8, 1.2)
    noise = _random_bytes(image.shape, rng)
    offset = rng.uniform(-20, 20) - 127.5 * amplitude + 127.5 * (1 - gain)
    return cv2.addWeighted(image, gain, noise, amplitude, offset)


def _random_bytes(shape, rng):
    return np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape)


def _paint(target, mask, kind, rng):
    """Fill `mask` in `target`, a part of the image, with a class's pattern; it stands out there."""
    height, width = mask.shape
    around = np.array(cv2.mean(target)[:3])
    for _ in range(_COLOUR_TRIES):
        colours = _colours(rng, 90, 160, rng.choice((-1, 1)) * _AXES[kind])
        if np.abs(colours.mean(axis=0) - around).max() >= _MIN_CONTRAST:
            break
    cv2.copyTo(_texture(height, width, colours, rng, _PATTERNS[kind]), mask, target)


def _background(height, width, rng):
    """One texture, regions of others, and clutter of no class."""
    image = _texture(height, width, _colours(rng, 8, 40), rng)
    for _ in range(rng.integers(1, 3)):
        # The finer field makes the edges ragged, so that no region looks like a disc.
        fields = (_field(height, width, 60, rng), _field(height, width, 14, rng))
        field = cv2.addWeighted(fields[0], 0.7, fields[1], 0.3, 0)
        region = cv2.compare(field, int(rng.integers(110, 170)), cv2.CMP_GT)
        cv2.copyTo(_texture(height, width, _colours(rng, 8, 40), rng), region, image)
    for _ in range(rng.integers(0, 6)):
        _blob(image, rng)
    for _ in range(rng.integers(0, 6)):
        _stroke(image, rng)
    return image


def _field(height, width, cell, rng):
    """(height, width) uint8: random values `cell` pixels apart and smooth ones between them."""
    cells = _random_bytes((height // cell + 2, width // cell + 2), rng)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)


def _blob(image, rng):
    """A ragged patch, or a few specks, of some texture."""
    height, width = (int(v) for v in rng.integers(16, 90, 2))
    y = int(rng.integers(0, image.shape[0] - height))
    x = int(rng.integers(0, image.shape[1] - width))
    cells = np.zeros((7, 7), np.uint8)
    cells[1:-1, 1:-1] = _random_bytes((5, 5), rng)
    field = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    region = cv2.compare(field, 110, cv2.CMP_GT)
    texture = _texture(height, width, _colours(rng, 15, 60), rng)
    cv2.copyTo(texture, region, image[y : y + height, x : x + width])


def _stroke(image, rng):
    """A line of two or three straight parts that may leave the image."""
    height, width = image.shape[:2]
    points = rng.integers((-20, -20), (width + 20, height + 20), (rng.integers(2, 4), 2))
    colour = [int(v) for v in rng.integers(0, 256, 3)]
    thickness = int(rng.integers(1, 6))
    cv2.polylines(image, [points.astype(np.int32)], False, colour, thickness, cv2.LINE_AA)


# ---- textures


def _colours(rng, low, high, axis=None):
    """Two colours (2, 3) whose distance is `low` to `high`, along `axis` or in any direction."""
    half = rng.uniform(low, high) / 2
    # Where the direction matters, clipping should not turn it by much.
    margin = 25 if axis is None else 40
    middle = rng.uniform(margin, 255 - margin, 3)
    if axis is None:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
    return np.clip([middle - half * axis, middle + half * axis], 0, 255)


def _texture(height, width, colours, rng, make=None):
    """(height, width, 3) uint8 in shades between two colours, of any pattern unless `make`'s."""
    make = make or _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
    pattern, weights = make(height, width, rng)
    shades = colours[0] + weights[:, None] * (colours[1] - colours[0])
    return cv2.applyColorMap(pattern, shades.astype(np.uint8)[:, None])


_STEPS = np.arange(256) / 256
_SMOOTH = 0.5 - 0.5 * np.cos(2 * np.pi * _STEPS)
_SQUARE = (_STEPS >= 0.5).astype(float)
_DOT = (_STEPS >= 0.28).astype(float)  # of distances from the middle of a cell, 0 to 1/2
_LINE = (_STEPS < 0.14).astype(float)  # of distances from the nearest line


def _gradient(height, width, rng):
    period = rng.uniform(1.2, 3.0) * max(height, width)
    return _phase(height, width, period, rng.uniform(0, 2 * np.pi), rng), _SMOOTH


def _stripes(height, width, rng):
    pattern = _phase(height, width, rng.uniform(6, 14), rng.uniform(0, 2 * np.pi), rng)
    return pattern, (_SMOOTH, _SQUARE)[rng.integers(2)]


def _checks(height, width, rng):
    period, angle = rng.uniform(8, 16), rng.uniform(0, 2 * np.pi)
    rows = _phase(height, width, period, angle, rng)
    rows ^= _phase(height, width, period, angle + np.pi / 2, rng)
    return rows, _SQUARE


def _noise(height, width, rng):
    cell = rng.uniform(1.5, 10)
    cells = _random_bytes((int(height / cell) + 2, int(width / cell) + 2), rng)
    way = (cv2.INTER_LINEAR, cv2.INTER_NEAREST)[rng.integers(2)]
    return cv2.resize(cells, (width, height), interpolation=way), _STEPS


def _blocks(height, width, rng):
    cell = rng.uniform(3, 6)
    cells = _random_bytes((int(height / cell) + 2, int(width / cell) + 2), rng)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST), _SQUARE


def _grid(height, width, rng):
    period, angle = rng.uniform(7, 12), rng.uniform(0, 2 * np.pi)
    rows = _phase(height, width, period, angle, rng)
    columns = _phase(height, width, period, angle + np.pi / 2, rng)
    return np.minimum(_distance(rows), _distance(columns)), _LINE


def _dots(height, width, rng):
    period, angle = rng.uniform(8, 14), rng.uniform(0, 2 * np.pi)
    rows = _phase(height, width, period, angle, rng)
    columns = _phase(height, width, period, angle + np.pi / 2, rng)
    return np.maximum(_distance(rows), _distance(columns)), _DOT


def _zigzags(height, width, rng):
    period, angle = rng.uniform(8, 14), rng.uniform(0, 2 * np.pi)
    across = _phase(height, width, 1.5 * period, angle + np.pi / 2, rng)
    return _phase(height, width, period, angle, rng) + _distance(across), _SQUARE


def _distance(phase):
    """Of phases, uint8, from the nearest whole period: 0 to 128."""
    return np.minimum(phase, 0 - phase)


def _phase(height, width, period, angle, rng):
    """(height, width) uint8: where each pixel is in a wave of that period, 256 to a period."""
    across, down = (int(v) for v in 65536 / period * np.array([np.cos(angle), np.sin(angle)]))
    start = int(rng.integers(65536))
    rows = (np.arange(height) * down + start).astype(np.uint16)
    columns = (np.arange(width) * across).astype(np.uint16)
    return ((rows[:, None] + columns) >> 8).astype(np.uint8)


_PATTERNS = (_stripes, _checks, _blocks, _grid, _dots, _zigzags)
"""The pattern of each class's objects, in the order of the classes."""
_BACKGROUNDS = (*_PATTERNS, _noise, _gradient)
