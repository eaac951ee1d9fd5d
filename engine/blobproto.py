"""BlobProto, Caffe's message for an array, to and from NumPy without a Python object per value.

Arrays are read as views of the file and written from their own memory.
"""

import math
from dataclasses import dataclass

import numpy as np

from .errors import ModelFileError
from .files import atomic_write
from .proto import caffe_pb2
from .wire import (
    FIXED32,
    FIXED64,
    LEN,
    VARINT,
    Scanner,
    encode_length,
    encode_varint,
    open_scanner,
    signed,
)

MAX_AXES = 32
"""Caffe's limit on the number of axes (kMaxBlobAxes)."""

_MAX_COUNT = 2**59
# Field numbers of BlobProto: the old four-axis shape, and the values with their types.
_LEGACY = {1: "num", 2: "channels", 3: "height", 4: "width"}
_SHAPE = 7
_VALUES = {
    5: ("data", np.dtype("<f4")),
    6: ("diff", np.dtype("<f4")),
    8: ("double_data", np.dtype("<f8")),
    9: ("double_diff", np.dtype("<f8")),
}


@dataclass
class BlobData:
    """An array as a file holds it.

    Attributes:
        shape: its shape; four axes where `legacy`.
        data: float32 or float64, of that shape. It is a read-only view of the file, possibly at an
            address that is no multiple of 4: copy it, do not compute with it.
        diff: the same for the gradient, or None if the file has none.
        legacy: True if the file gives the shape as num, channels, height and width. Caffe then
            takes leading axes of 1 to be absent when it compares shapes.
    """

    shape: tuple
    data: np.ndarray
    diff: np.ndarray | None = None
    legacy: bool = False


# --------------------------------------------------------------------------------------- reading


def scan_blob(scan: Scanner, start: int, end: int) -> BlobData:
    """Reads the BlobProto between two positions of a scanned file.

    Raises:
        ModelFileError: the shape is absurd or disagrees with the number of values.
    """
    legacy, dims, has_dims, chunks = {}, [], False, {}
    position = start
    while position < end:
        at = position
        number, wire, value, position = scan.field(at, end)
        if number in _LEGACY:
            scan.expect(at, wire, VARINT, _LEGACY[number])
            legacy[number] = signed(value)
        elif number == _SHAPE:
            scan.expect(at, wire, LEN, "shape")
            dims += _scan_dims(scan, value, position)
            has_dims = True
        elif number in _VALUES:
            chunk, position = _scan_values(scan, at, number, wire, value, position, end)
            chunks.setdefault(number, []).append(chunk)
    if legacy:
        dims = [legacy.get(number, 0) for number in _LEGACY]
    shape = _checked_shape(scan, start, dims)
    data = _choose(chunks, 8, 5)
    diff = _choose(chunks, 9, 6)
    if data is None:
        data = np.empty(0, "<f4")
    _check_count(scan, start, shape, data, "values", has_dims or bool(legacy))
    if diff is not None:
        _check_count(scan, start, shape, diff, "gradient values", True)
        diff = diff.reshape(shape)
    return BlobData(shape, data.reshape(shape), diff, bool(legacy))


def _scan_dims(scan, position: int, end: int) -> list[int]:
    """The BlobShape between two positions: dims packed into one field, or one field each."""
    dims = []
    while position < end:
        at = position
        number, wire, value, position = scan.field(at, end)
        if number != 1:
            continue
        if wire == VARINT:
            dims.append(signed(value))
            continue
        scan.expect(at, wire, LEN, "shape.dim")
        while value < position:
            dim, value = scan.varint(value, position)
            dims.append(signed(dim))
            if len(dims) > MAX_AXES:
                break
    return dims


def _scan_values(scan, at, number, wire, value, following, end):
    """One packed field of values, or a run of unpacked ones; returns (view, next position)."""
    name, dtype = _VALUES[number]
    if wire == LEN:
        length = following - value
        if length % dtype.itemsize:
            expected = f"a multiple of {dtype.itemsize} bytes for {name}"
            scan.fail(at, expected, f"{length}", "The file is damaged.")
        return np.frombuffer(scan.buffer[value:following], dtype), following
    scan.expect(at, wire, FIXED32 if dtype.itemsize == 4 else FIXED64, name)
    if value - at != 1:  # a tag written longer than needed: legal, and nobody does it
        return np.frombuffer(scan.buffer[value:following], dtype), following
    run = _run_of_tags(scan.buffer[at:end], np.dtype([("tag", "u1"), ("value", dtype)]))
    return run["value"], at + run.nbytes


def _run_of_tags(buffer, record) -> np.ndarray:
    """The records at the front of `buffer` that begin with the same tag as the first one.

    Unpacked values, as early protobuf wrote them, have a tag each. Looking in growing steps keeps
    the time linear where short runs alternate.
    """
    records = np.frombuffer(buffer, record, count=len(buffer) // record.itemsize)
    size = 16
    while True:
        other = records["tag"][:size] != buffer[0]
        if other.any():
            return records[: int(other.argmax())]
        if size >= len(records):
            return records
        size *= 4


def _choose(chunks: dict, *numbers: int):
    """The values of the first of these fields that has any, as one array, or None."""
    for number in numbers:
        parts = [part for part in chunks.get(number, ()) if len(part)]
        if parts:
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
    return None


def _checked_shape(scan, position: int, dims: list) -> tuple:
    if len(dims) > MAX_AXES:
        scan.fail(position, f"a shape of at most {MAX_AXES} axes", "more", "The file is damaged.")
    # A zero among huge axes makes a count of 0, and still an array that NumPy cannot have.
    if any(dim < 0 for dim in dims) or math.prod(dim or 1 for dim in dims) > _MAX_COUNT:
        scan.fail(position, "a shape", f"{tuple(dims)}", "The file is damaged.")
    return tuple(dims)


def _check_count(scan, position: int, shape: tuple, values, what: str, has_shape: bool) -> None:
    count = math.prod(shape)
    if count == len(values):
        return
    says = f"for shape {shape}" if has_shape else "for a blob without a shape"
    hint = "The file is damaged, or holds the structure without the numbers."
    scan.fail(position, f"{count} {what} {says}", f"{len(values)}", hint)


def read_blob(path) -> np.ndarray:
    """Reads a file that holds one BlobProto, such as a mean image (.binaryproto).

    Returns:
        The array, float32 or float64; a mean image has shape (1, channels, height, width).

    Raises:
        ModelFileError: the file is missing, foreign, truncated, or its shape is wrong.
    """
    scan = open_scanner(path, "a binaryproto (BlobProto)")
    return scan_blob(scan, 0, scan.size).data.copy()


def blob_to_array(blob) -> np.ndarray:
    """Returns the values of a BlobProto message as an array of its shape.

    Raises:
        ModelFileError: the shape disagrees with the number of values.
    """
    scan = Scanner(blob.SerializeToString(), "BlobProto", "a BlobProto")
    return scan_blob(scan, 0, scan.size).data.copy()


# --------------------------------------------------------------------------------------- writing


def encode_blob(data, diff=None) -> list:
    """Encodes an array as a BlobProto.

    Args:
        data: an array of any shape. float64 becomes double_data; all else float32.
        diff: None, or the gradient, of the same shape.

    Returns:
        Buffers to be written one after the other; the large ones are the arrays' own memory.
    """
    data = np.asarray(data)
    wide = data.dtype == np.float64
    parts = {8 if wide else 5: data}
    if diff is not None:
        diff = np.asarray(diff)
        if diff.shape != data.shape:
            raise ModelFileError("BlobProto", f"a diff of shape {data.shape}", f"{diff.shape}")
        parts[9 if wide else 6] = diff
    fields = {number: _encode_values(number, part) for number, part in parts.items() if part.size}
    if data.ndim:
        dims = b"".join(map(encode_varint, data.shape))
        dims = encode_length(1, len(dims)) + dims
        fields[_SHAPE] = [encode_length(_SHAPE, len(dims)) + dims]
    return [buffer for number in sorted(fields) for buffer in fields[number]]


def _encode_values(number: int, array: np.ndarray) -> list:
    flat = np.ascontiguousarray(array, _VALUES[number][1]).reshape(-1)
    return [encode_length(number, flat.nbytes), memoryview(flat).cast("B")]


def size_of(buffers) -> int:
    """The number of bytes in a list of buffers."""
    return sum(map(len, buffers))


def array_to_blob(array, diff=None):
    """Returns a BlobProto message with the values of an array, and of its gradient if given."""
    return caffe_pb2.BlobProto.FromString(b"".join(encode_blob(array, diff)))


def write_blob(path, array) -> None:
    """Writes an array as a BlobProto file (.binaryproto), complete or not at all.

    NOTE: the shape is given in its old form, because readers of mean files (Caffe's own, too) ask
    for num, channels, height and width; so it must have at most four axes.
    """
    array = np.asarray(array)
    if array.ndim > 4:
        raise ModelFileError(path, "an array of at most four axes", f"shape {array.shape}")
    blob = array_to_blob(array)
    blob.ClearField("shape")
    names = _LEGACY.values()
    for name, dim in zip(names, (1,) * (4 - array.ndim) + array.shape):
        setattr(blob, name, dim)
    with atomic_write(path) as file:
        file.write(blob.SerializeToString())
