"""Tokens of protobuf's text format, by one regular expression, and errors about a place in it."""

import re

from .errors import ModelFileError

_TOKEN = re.compile(
    r"""[ \t\r\n\f\v]*(?:
      (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol>[{}<>\[\]:;,-])
    | (?P<number>\.?[0-9][0-9A-Za-z_.]*(?:(?<=[eE])[+-][0-9A-Za-z_.]*)?)
    | (?P<string>"[^"\\\n\0]*(?:\\[^\n\0][^"\\\n\0]*)*+" | '[^'\\\n\0]*(?:\\[^\n\0][^'\\\n\0]*)*+')
    | (?P<comment>\#[^\n]*)
    | (?P<end>\Z)
    | (?P<stray>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})"
    rb"|([abfnrtv\\'\"?])|)"
)
_SIMPLE_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"\\": b"\\", b"'": b"'", b'"': b'"', b"?": b"?",
}  # fmt: skip


class Tokens:
    """A text, and the token of it that is to be read next.

    Attributes:
        source: what errors call the text.
        kind: "name", "number", "string", "symbol" or "end".
        token: its characters.
        start: its position in the text.
    """

    def __init__(self, text: str, source):
        self.text = text
        self.source = source
        self.matches = _TOKEN.finditer(text)
        self.advance()

    def advance(self) -> None:
        """Moves to the next token."""
        match = next(self.matches)
        while match.lastgroup == "comment":
            match = next(self.matches)
        self.kind = match.lastgroup
        self.token = match.group(self.kind)
        self.start = match.start(self.kind)
        if self.kind == "stray":
            self.fail_at_stray()

    def accept(self, symbol: str) -> bool:
        """Consumes `symbol` if it is next."""
        if self.token == symbol and self.kind == "symbol":
            self.advance()
            return True
        return False

    def fail(self, expected, found=None, hint="", start=None):
        """Raises the error for the present token, or for what is at `start`."""
        start = self.start if start is None else start
        line = self.text.count("\n", 0, start) + 1
        column = start - self.text.rfind("\n", 0, start)
        raise ModelFileError(
            f"{self.source}:{line}:{column}", expected, found or self.found(), hint
        )

    def found(self) -> str:
        return "the end of the file" if self.kind == "end" else shorten(self.token)

    def fail_at_stray(self):
        if self.token in "\"'":
            self.fail(
                "a string", "no closing quote on its line", "Close it, or join several strings."
            )
        if self.token == "\0":
            self.fail("text", "a NUL byte", "The file is binary or damaged.")
        self.fail("a field, a value or a bracket", repr(self.token))

    def unescape(self, text: str) -> bytes:
        """Resolves C's escapes, octal, \\x, \\u and \\U."""
        try:
            raw = text.encode()
            return raw if b"\\" not in raw else _ESCAPE.sub(_unescape_one, raw)
        except ValueError:
            self.fail("a string", "an escape (\\...) that means nothing", "Write \\\\ for \\.")


def _unescape_one(match) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal or hexadecimal:
        return bytes([int(octal, 8) if octal else int(hexadecimal, 16)])
    if short or long:
        return chr(int(short or long, 16)).encode()
    if simple is None:
        raise ValueError("no such escape")
    return _SIMPLE_ESCAPES[simple]


def shorten(text: str) -> str:
    """A long text by its beginning and its length."""
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
