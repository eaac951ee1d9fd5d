"""Protobuf's wire format, walked in place over a mapped file.

A message is a sequence of fields: a tag (field number and wire type, a varint), then a varint, 4 or
8 bytes, or a length and that many bytes. Walking tags and lengths finds a net's weights in a file
without building message objects, which would take seconds and several times the memory.
"""

import mmap
import os
import stat

from .errors import ModelFileError
from .files import foreign_kind, looks_like_text, open_file

VARINT, FIXED64, LEN, FIXED32 = 0, 1, 2, 5
_WIRE_NAMES = {
    VARINT: "an integer",
    FIXED64: "8 bytes",
    LEN: "a string, message or packed list",
    3: "the start of a group",
    4: "the end of a group",
    FIXED32: "4 bytes",
}

MAX_FIELDS = 2_000_000
"""The most fields that are walked in one file, beyond which it is refused as absurd (a real net has
some thousands); it bounds the time that a hostile file can take."""


class Scanner:
    """A buffer of one message, and the errors about it.

    Attributes:
        buffer: a memoryview of the whole file.
        context: what is being read, for errors, for example "layer 'conv1'".
    """

    def __init__(self, buffer, source, what: str):
        self.buffer = memoryview(buffer)
        self.size = len(self.buffer)
        self.source = source
        self.what = what
        self.context = ""
        self.fields_left = MAX_FIELDS

    def fail(self, position: int, expected, found, hint=""):
        """Raises the error about the byte at `position`."""
        where = f"{self.source}, byte {position}"
        where = f"{where}, {self.context}" if self.context else where
        raise ModelFileError(where, expected, found, hint)

    def field(self, position: int, end: int) -> tuple[int, int, int, int]:
        """Reads the field at `position` of a message that ends at `end`.

        Returns:
            (number, wire type, value, position of the next field); value is the integer of a
            varint, and otherwise the position where the content begins.
        """
        self.fields_left -= 1
        if self.fields_left < 0:
            self.fail(position, f"at most {MAX_FIELDS} fields in {self.what}", "more")
        tag, start = self.varint(position, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or number >= 2**29:
            self.fail(position, f"a field of {self.what}", f"field number {number}", self.hint())
        if wire == VARINT:
            value, following = self.varint(start, end)
            return number, wire, value, following
        if wire == LEN:
            length, start = self.varint(start, end)
        elif wire == FIXED32:
            length = 4
        elif wire == FIXED64:
            length = 8
        else:
            found = _WIRE_NAMES.get(wire, f"the unknown wire type {wire}")
            self.fail(position, f"a field of {self.what}", found, self.hint())
        if length > end - start:
            self.fail_short(start, length, end)
        return number, wire, start, start + length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Reads an integer of 1 to 10 bytes; returns it and the position after it."""
        value = shift = 0
        for at in range(position, min(position + 10, end)):
            byte = self.buffer[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at + 1
            shift += 7
        if end - position >= 10:
            self.fail(position, "an integer", "one longer than 10 bytes", self.hint())
        return self.fail_short(position, end - position + 1, end)

    def fail_short(self, position: int, length: int, end: int):
        """Raises the error about content that does not fit."""
        if end == self.size:
            hint = self.hint() or "The file is truncated: copy or download it again."
            self.fail(position, f"{length} more bytes", f"{end - position}, then the end", hint)
        found = f"{end - position} in the message around it"
        self.fail(position, f"{length} more bytes", found, self.hint() or "The file is damaged.")

    def expect(self, position: int, wire: int, wanted: int, name: str) -> None:
        """Raises an error unless a field has the wire type it should have."""
        if wire != wanted:
            expected = f"{_WIRE_NAMES[wanted]} for {name} in {self.what}"
            hint = self.hint() or "It may be another kind of file, or a damaged one."
            self.fail(position, expected, _WIRE_NAMES[wire], hint)

    def string(self, start: int, end: int, name: str) -> str:
        """Decodes the bytes from start to end."""
        try:
            return str(self.buffer[start:end], "utf-8")
        except UnicodeDecodeError:
            self.fail(start, f"{name} in UTF-8", "other bytes", self.hint())

    def hint(self) -> str:
        """What to do about a file that looks like something else, or ""."""
        if looks_like_text(bytes(self.buffer[:64])):
            return "It looks like text (a prototxt, perhaps): check the path."
        return ""


def signed(value: int) -> int:
    """A varint's value as the int32 or int64 it stands for."""
    return value - 2**64 if value >= 2**63 else value


def open_scanner(path, what: str) -> Scanner:
    """Maps a file for scanning; refuses empty ones and formats that begin otherwise.

    Raises:
        ModelFileError: the file is missing, empty, or of another format, which is named.
    """
    with open_file(path, what) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            buffer = file.read()
    if not len(buffer):
        raise ModelFileError(path, what, "an empty file", "Copy or download it again.")
    kind = foreign_kind(buffer[:32])
    if kind:
        raise ModelFileError(path, what, kind, "Check the path.")
    return Scanner(buffer, os.fspath(path), what)


# --------------------------------------------------------------------------------------- writing


def encode_varint(value: int) -> bytes:
    """An integer from 0 to 2**64 - 1, 7 bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_integer(number: int, value: int) -> bytes:
    """An integer field."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value & 0xFFFFFFFFFFFFFFFF)


def encode_length(number: int, length: int) -> bytes:
    """The beginning of a field of `length` bytes, which are to follow."""
    return encode_varint(number << 3 | LEN) + encode_varint(length)
