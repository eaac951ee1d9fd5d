"""The parser behind prototxt.parse_text: recursive descent over the tokens of texttokens.

Time and memory are linear in the text. The recursion is as deep as messages nest in caffe.proto,
where no message contains itself.
"""

import functools
import re
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor as Field

from .errors import closest
from .texttokens import Tokens, shorten

MAX_MESSAGES = 250_000
"""The most messages (layers, fillers, shapes ...) in one text: `layer{}` takes 7 bytes of text and
some 600 of memory."""

_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_FLOAT = re.compile(r"(?:0|[1-9][0-9]*|[0-9]*\.[0-9]*|[0-9]+(?=[eE.]))(?:[eE][+-]?[0-9]+)?[fF]?")
_INTEGER_RANGE = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1),
    Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1),
}
_TRUE, _FALSE = ("true", "t", "True"), ("false", "f", "False")
MAX_NUMBER_LENGTH = 400
# Files that are easily given one for the other.
_OTHER_FILE = {"NetParameter": "SolverParameter", "SolverParameter": "NetParameter"}


class Parser(Tokens):
    """Parses one text. `source` is what errors call it."""

    def __init__(self, text: str, source):
        super().__init__(text, source)
        self.messages = 0
        self.enclosing = []  # descriptors of the messages around the present one

    # ---------------------------------------------------------------------------------- messages

    def parse(self, message):
        """Parses the whole text into `message` and returns it."""
        while self.kind != "end":
            self.parse_field(message)
        return message

    def parse_message(self, message, owner: str) -> None:
        """Parses `{ ... }` or `< ... >` into `message`, the value of the field `owner`."""
        opening, start = self.token, self.start
        if not (self.accept("{") or self.accept("<")):
            kind = message.DESCRIPTOR.name
            self.fail(f"{{ to begin {owner} (a {kind})", hint=f"Write {owner} {{ ... }}.")
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            self.fail(f"at most {MAX_MESSAGES} messages", "more", start=start)
        closing = "}" if opening == "{" else ">"
        while not self.accept(closing):
            if self.kind == "end":
                line = self.text.count("\n", 0, start) + 1
                self.fail(f"{closing} to end {owner}, which begins in line {line}")
            self.parse_field(message)

    def parse_field(self, message) -> None:
        """Parses `name: value`, `name: [value, ...]` or `name { ... }`, and a separator if any."""
        descriptor = message.DESCRIPTOR
        name, start = self.token, self.start
        if self.kind != "name":
            self.fail(f"the name of a field of {descriptor.name}")
        field = _fields(descriptor).get(name)
        if field is None:
            self.fail_unknown_field(descriptor, name)
        self.advance()
        if not field.repeated and message.HasField(name):
            self.fail(
                f"{name} once in a {descriptor.name}",
                "it a second time",
                "Remove one of the two.",
                start,
            )
        if not self.accept(":") and field.read is not None:
            self.fail(f": after {name}", hint=f"Write {name}: value.")
        if field.repeated and self.accept("["):
            self.parse_list(message, field)
        else:
            self.parse_value(message, field)
        if not self.accept(","):
            self.accept(";")

    def parse_list(self, message, field) -> None:
        if self.accept("]"):
            return
        self.parse_value(message, field)
        while not self.accept("]"):
            if not self.accept(","):
                self.fail(f", or ] in the list of {field.name}")
            self.parse_value(message, field)

    def parse_value(self, message, field) -> None:
        """Parses one value and stores it in `message`, whose field is unset or repeated."""
        if field.read is None:
            value = getattr(message, field.name)
            if field.repeated:
                value = value.add()
            else:
                value.SetInParent()
            self.enclosing.append(message.DESCRIPTOR)
            self.parse_message(value, field.name)
            self.enclosing.pop()
            return
        value = field.read(self, field)
        if field.repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def fail_unknown_field(self, descriptor, name: str):
        outer = [d.name for d in self.enclosing if name in d.fields_by_name]
        inner = [
            field.name
            for field in descriptor.fields
            if field.message_type and name in field.message_type.fields_by_name
        ]
        other = _OTHER_FILE.get(descriptor.name) if not self.enclosing else None
        if other and name in descriptor.file.message_types_by_name[other].fields_by_name:
            hint = f"It is a field of {other}: perhaps this is another file than you meant."
        elif outer:
            hint = f"It is a field of {outer[-1]}: perhaps a bracket is not closed before it."
        elif inner:
            hint = f"It belongs inside {' or '.join(inner[:4])}."
        else:
            hint = closest(name[:100], descriptor.fields_by_name)
        self.fail(f"a field of {descriptor.name}", repr(shorten(name)), hint)

    # ----------------------------------------------------------------------------------- scalars

    def signed_token(self) -> tuple[bool, str]:
        """Consumes an optional minus; returns whether it was there, and the token after it."""
        negative = self.accept("-")
        return negative, self.token

    def integer_value(self, field) -> int:
        low, high = _INTEGER_RANGE[field.type]
        return self.integer(field, low, high)

    def integer(self, field, low: int, high: int) -> int:
        """A decimal, octal (leading 0) or hexadecimal (0x) number from low to high."""
        start = self.start
        negative, token = self.signed_token()
        if self.kind != "number" or not _INTEGER.fullmatch(token):
            self.fail(f"an integer for {field.name}", start=start, found=self.found())
        base = 16 if token[1:2] in ("x", "X") else 8 if token[0] == "0" else 10
        if base == 8 and not set(token) <= set("01234567"):
            self.fail(f"an octal number for {field.name} (it begins with 0)")
        # 2**64 has 22 octal digits; longer ones are not worth converting.
        value = int(token, base) if len(token.lstrip("0xX")) <= 22 else high + 1
        value = -value if negative else value
        if not low <= value <= high:
            found = shorten(("-" if negative else "") + token)
            self.fail(f"{field.name} from {low} to {high}", found, start=start)
        self.advance()
        return value

    def float_value(self, field) -> float:
        start = self.start
        negative, token = self.signed_token()
        if self.kind == "number" and len(token) < MAX_NUMBER_LENGTH and _FLOAT.fullmatch(token):
            value = float(token.rstrip("fF"))
        elif self.kind == "name" and token.lower() in ("inf", "infinity", "nan"):
            value = float(token)
        else:
            self.fail(f"a number for {field.name}", start=start, found=self.found())
        self.advance()
        return -value if negative else value

    def bool_value(self, field) -> bool:
        if self.kind == "number":
            return bool(self.integer(field, 0, 1))
        if self.kind != "name" or self.token not in _TRUE + _FALSE:
            self.fail(f"true or false for {field.name}")
        value = self.token in _TRUE
        self.advance()
        return value

    def enum_value(self, field) -> int:
        names = field.enum
        if self.kind == "name" and self.token in names:
            value = names[self.token]
        else:
            start = self.start
            if self.kind == "number" or self.token == "-":
                value = self.integer(field, -(2**31), 2**31 - 1)
                if value in names.values():
                    return value
                found = str(value)
            else:
                found = self.found()
            hint = closest(found, names) or "Names are written without quotes, in capitals."
            self.fail(f"{field.name} to be one of {', '.join(names)}", found, hint, start)
        self.advance()
        return value

    def bytes_value(self, field) -> bytes:
        """One or more adjacent string literals."""
        if self.kind != "string":
            self.fail(f"a quoted string for {field.name}", hint="Put it in double quotes.")
        parts = []
        while self.kind == "string":
            parts.append(self.unescape(self.token[1:-1]))
            self.advance()
        return b"".join(parts)

    def string_value(self, field) -> str:
        start = self.start
        try:
            value = self.bytes_value(field).decode()
        except UnicodeDecodeError:
            self.fail(f"{field.name} in UTF-8", "other bytes", start=start)
        return value


_READERS = {
    **dict.fromkeys(_INTEGER_RANGE, Parser.integer_value),
    Field.TYPE_FLOAT: Parser.float_value,
    Field.TYPE_DOUBLE: Parser.float_value,
    Field.TYPE_BOOL: Parser.bool_value,
    Field.TYPE_ENUM: Parser.enum_value,
    Field.TYPE_STRING: Parser.string_value,
    Field.TYPE_BYTES: Parser.bytes_value,
}


class _Field(NamedTuple):
    """What the parser asks of a field, gathered once because descriptors answer slowly."""

    name: str
    type: int
    repeated: bool
    read: object  # the method that reads a scalar; None for a message
    enum: dict | None


@functools.cache
def _fields(descriptor) -> dict[str, _Field]:
    return {field.name: _describe(field) for field in descriptor.fields}


def _describe(field) -> _Field:
    # `label` says it in protobuf 5, `is_repeated` in 6 and later.
    repeated = (
        field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    )
    enum = field.enum_type and {value.name: value.number for value in field.enum_type.values}
    return _Field(field.name, field.type, repeated, _READERS.get(field.type), enum)
