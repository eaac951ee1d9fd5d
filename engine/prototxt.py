"""Prototxt: protobuf's text format, read into Caffe's messages and written from them.

NOTE: protobuf has a parser for this format too. It takes quadratic time on some short inputs (a
string of backslashes), much memory on others, reports no list of valid names, and its messages
change with its versions; here the parser is our own, with the grammar of the C++ one that Caffe
uses, because a prototxt is untrusted input.
"""

import os
import re
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from .errors import ModelFileError
from .files import atomic_write, foreign_kind, looks_like_text, open_file, read_limited
from .proto import caffe_pb2
from .textparser import Parser
from .upgrade import upgrade_net, upgrade_solver

MAX_TEXT_BYTES = 16 * 2**20
"""The longest prototxt that is read; the largest published ones have 0.3 MB."""

MAX_BINARY_BYTES = 2**31 - 1
"""The longest binary message, which is protobuf's own limit."""


def parse_text(text, message_class, source="<string>"):
    """Parses prototxt into a new message.

    Args:
        text: a str, or bytes in UTF-8 (comments may be in any encoding).
        message_class: a class of caffe_pb2.
        source: what errors call the text, usually its path.

    Raises:
        ModelFileError: it is not a valid message; says source:line:column, the unknown field or
            enum value, the message it is in, and the nearest known names.
    """
    if isinstance(text, str):
        text = text.removeprefix("\ufeff")
    else:
        text = _decode(bytes(text), source)
    if len(text) > MAX_TEXT_BYTES:
        raise ModelFileError(
            source,
            f"a prototxt of at most {MAX_TEXT_BYTES} characters",
            f"{len(text)}",
            "Keep weights in a .caffemodel.",
        )
    return Parser(text, source).parse(message_class())


def read_text(path, message_class):
    """Reads a prototxt file into a new message of `message_class`, as it stands (no upgrade)."""
    what = f"a prototxt ({message_class.DESCRIPTOR.name} in text form)"
    data = read_limited(path, what, MAX_TEXT_BYTES)
    kind = foreign_kind(data[:32])
    if kind:
        raise ModelFileError(path, what, kind)
    if b"\0" in data[:4096] or (data and not looks_like_text(data[:64])):
        raise ModelFileError(
            path,
            what,
            "a binary file",
            "If it is a .caffemodel, give it as the weights, beside the .prototxt of the net.",
        )
    return parse_text(data, message_class, source=os.fspath(path))


def read_net(path):
    """Reads a net's prototxt and brings it to the current format.

    Returns:
        A NetParameter with `layer` entries only; see upgrade.upgrade_net.
    """
    return upgrade_net(read_text(path, caffe_pb2.NetParameter), os.fspath(path))


def read_solver(path):
    """Reads a solver's prototxt and brings it to the current format.

    As in Caffe, a missing snapshot_prefix becomes the path without its extension, and one that is a
    folder gets the file's stem appended.

    Returns:
        A SolverParameter.
    """
    solver = upgrade_solver(read_text(path, caffe_pb2.SolverParameter), os.fspath(path))
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = os.path.splitext(os.fspath(path))[0]
    elif "\0" not in solver.snapshot_prefix and os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, Path(path).stem)
    return solver


def format_text(message) -> str:
    """Returns a message as prototxt."""
    return text_format.MessageToString(message, as_utf8=True)


def write_text(message, path) -> None:
    """Writes a message as prototxt; the file appears whole or not at all."""
    with atomic_write(path) as file:
        file.write(format_text(message).encode())


def read_binary(path, message_class):
    """Reads a file in protobuf's binary form into a message, as it stands.

    For weights and solver states use caffemodel and solverstate, which do not build message
    objects for millions of numbers.

    Raises:
        ModelFileError: the file is missing, foreign, truncated or damaged.
    """
    what = f"a binary {message_class.DESCRIPTOR.name}"
    with open_file(path, what) as file:
        head = file.read(64)
        if os.fstat(file.fileno()).st_size > MAX_BINARY_BYTES:
            raise ModelFileError(path, f"{what} of less than 2 GB", "a larger file")
        data = head + file.read()
    kind = foreign_kind(head)
    if kind:
        raise ModelFileError(path, what, kind)
    message = message_class()
    try:
        message.ParseFromString(data)
    except DecodeError:
        hint = "It may be text: check the path." if looks_like_text(head) else ""
        found = "bytes that are none (truncated or damaged, or another kind of file)"
        raise ModelFileError(path, what, found, hint) from None
    return message


def write_binary(message, path) -> None:
    """Writes a message in protobuf's binary form; the file appears whole or not at all."""
    with atomic_write(path) as file:
        file.write(message.SerializeToString())


def _decode(data: bytes, source) -> str:
    """UTF-8 to str; where that fails, the comments are blanked and it is tried once more."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        data = _NOT_CODE.sub(_blank_comment, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ModelFileError(
            f"{source}:{line}:{column}",
            "text in UTF-8",
            f"the byte 0x{data[error.start]:02x}",
            "Save the file as UTF-8.",
        ) from None


_NOT_CODE = re.compile(rb""""(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'|#[^\n]*""")


def _blank_comment(match) -> bytes:
    text = match.group()
    return b"#" + b" " * (len(text) - 1) if text.startswith(b"#") else text
