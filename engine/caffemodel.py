"""Weights files (.caffemodel): a NetParameter whose layers carry their arrays.

Reading maps the file and walks its tags, so that arrays are views of it; writing streams the arrays
from their own memory. Neither builds message objects for millions of numbers.
"""

from collections.abc import Iterable, Iterator

from .blobproto import BlobData, encode_blob, scan_blob, size_of
from .errors import ModelFileError
from .files import atomic_write
from .proto import caffe_pb2
from .upgrade import V1_TYPES
from .upgrade_v0 import V0_TYPES
from .wire import LEN, VARINT, encode_length, open_scanner

MAX_BYTES = 2**31 - 1
"""The longest message that protobuf, and so Caffe, reads."""

_NET_NAME, _NET_LAYERS, _NET_LAYER = 1, 2, 100
# Field numbers of (name, type, blobs) in the three formats of layers, and of V0 inside V1.
_CURRENT = (1, 2, 7)
_V1 = (4, 5, 6)
_V0 = (1, 2, 50)
_V0_IN_V1 = 1
_PADDING = ("", "padding", [])  # a V0 layer that is gone once a net is upgraded
_V1_TYPE_NAMES = {
    value: V1_TYPES[name] for name, value in caffe_pb2.V1LayerParameter.LayerType.items()
}


# --------------------------------------------------------------------------------------- reading


def read_weights(path) -> Iterator[tuple[str, str, list[BlobData]]]:
    """Reads a .caffemodel of any age.

    The whole structure is checked in this call, before any memory is taken for the numbers, whose
    arrays are views of the file: see BlobData.

    Returns:
        An iterator of (layer name, layer type, [BlobData]) in file order. The type is spelt as
        today, and "" where the file has none.

    Raises:
        ModelFileError: the file is missing, of another format, truncated or damaged, or a shape
            disagrees with the number of values; says the byte and the layer.
    """
    scan = open_scanner(path, "a .caffemodel (binary NetParameter)")
    layers, kinds, position = [], set(), 0
    while position < scan.size:
        at = position
        number, wire, value, position = scan.field(at, scan.size)
        if number == _NET_NAME and wire == VARINT:
            hint = "It may be a .solverstate or a mean .binaryproto: give the .caffemodel."
            scan.fail(at, "the net's name", "an integer", hint)
        if number == _NET_LAYER:
            scan.expect(at, wire, LEN, "layer")
            layers.append(_scan_layer(scan, value, position, len(layers), _CURRENT))
        elif number == _NET_LAYERS:
            scan.expect(at, wire, LEN, "layers")
            layers.append(_scan_layer(scan, value, position, len(layers), _V1))
        else:
            continue
        kinds.add(number)
        scan.context = ""
    if len(kinds) > 1:
        expected = "either `layer` (current) or `layers` (old) entries"
        raise ModelFileError(path, expected, "both", "Bring the file to one form.")
    if not layers:
        hint = scan.hint() or "It may be another kind of file: check the path."
        raise ModelFileError(path, "a net with layers", "none", hint)
    return iter([layer for layer in layers if layer is not _PADDING])


def _scan_layer(scan, start: int, end: int, index: int, numbers: tuple):
    """Reads the name, the type and the arrays of the layer between two positions."""
    name_number, type_number, blobs_number = numbers
    name = kind = ""
    blobs = []
    scan.context = f"layer {index}"
    position = start
    while position < end:
        at = position
        number, wire, value, position = scan.field(at, end)
        if number == name_number:
            scan.expect(at, wire, LEN, "the layer's name")
            name = scan.string(value, position, "a layer's name")
            scan.context = f"layer {name!r}"
        elif number == type_number:
            kind = _scan_type(scan, at, wire, value, position, numbers)
        elif number == blobs_number:
            scan.expect(at, wire, LEN, "blobs")
            blobs.append(scan_blob(scan, value, position))
        elif numbers is _V1 and number == _V0_IN_V1:
            scan.expect(at, wire, LEN, "the layer")
            layer = _scan_layer(scan, value, position, index, _V0)
            return _PADDING if layer[1] == "padding" else layer
    return name, kind, blobs


def _scan_type(scan, at, wire, value, end, numbers) -> str:
    if numbers is _V1:
        scan.expect(at, wire, VARINT, "the layer's type")
        return _V1_TYPE_NAMES.get(value, "")
    scan.expect(at, wire, LEN, "the layer's type")
    kind = scan.string(value, end, "a layer's type")
    if numbers is _V0:
        return V1_TYPES[V0_TYPES[kind]] if kind in V0_TYPES else kind
    return kind


# --------------------------------------------------------------------------------------- writing


def write_weights(path, net, blobs: Iterable, diffs: Iterable | None = None) -> None:
    """Writes a .caffemodel that Caffe reads, complete or not at all.

    Args:
        path: the file.
        net: a NetParameter in the current format; arrays in it are left out.
        blobs: for each of its layers a sequence of arrays. It may be a generator: the arrays of
            one layer at a time are held.
        diffs: the same for the gradients, or None to leave them out.

    Raises:
        ModelFileError: the file cannot be written, is longer than 2 GB, or the layers do not match.
    """
    if net.layers:
        raise ModelFileError(path, "a net in the current format", "old `layers` entries")
    head = caffe_pb2.NetParameter()
    for field, value in net.ListFields():
        if field.name != "layer":
            _copy_field(head, field.name, value)
    groups = zip(blobs, diffs, strict=True) if diffs is not None else ((b, None) for b in blobs)
    with atomic_write(path) as file:
        file.write(head.SerializeToString())
        try:
            for layer, (arrays, gradients) in zip(net.layer, groups, strict=True):
                _write_layer(file, layer, arrays, gradients)
                _check_size(path, file.tell())
        except ValueError as error:
            if isinstance(error, ModelFileError):
                raise
            expected = f"arrays for each of the net's {len(net.layer)} layers"
            raise ModelFileError(path, expected, "another number of layers") from error


def _write_layer(file, layer, arrays, gradients) -> None:
    bare = caffe_pb2.LayerParameter()
    bare.CopyFrom(layer)
    bare.ClearField("blobs")
    gradients = [None] * len(arrays) if gradients is None else gradients
    encoded = [encode_blob(data, diff) for data, diff in zip(arrays, gradients, strict=True)]
    parts = [bare.SerializeToString()]
    for buffers in encoded:
        parts += [encode_length(_CURRENT[2], size_of(buffers)), *buffers]
    file.write(encode_length(_NET_LAYER, size_of(parts)))
    for part in parts:
        file.write(part)


def _copy_field(message, name: str, value) -> None:
    target = getattr(message, name)
    if hasattr(target, "MergeFrom"):
        target.MergeFrom(value)
    else:
        setattr(message, name, value)


def _check_size(path, size: int) -> None:
    if size > MAX_BYTES:
        hint = "Save in HDF5 instead (snapshot_format: HDF5, or a name that ends in .h5)."
        raise ModelFileError(path, "weights of less than 2 GB, as Caffe reads", "more", hint)
