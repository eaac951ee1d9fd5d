"""Command-line flags as Caffe's programs read them (gflags): `-flag=value`, `--flag value`,
`-flag`, `-noflag`.

One parser for the command `caffe` and for all of tools/: declare `Flag`s, call `parse`, and
decorate a `main` with `@command`, which turns bad input into one line and an exit status.
"""

import functools
import sys
from dataclasses import dataclass
from types import SimpleNamespace

from demitasse.engine.errors import DemitasseError, closest, describe

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class FlagError(DemitasseError, ValueError):
    """A command line that its program does not understand."""


class HelpRequest(Exception):
    """Raised for `-help`; its text is the program's usage."""


@dataclass(frozen=True)
class Flag:
    """One flag. The type of `default` (bool, int, float, str) is the type of its values; a
    flag whose default is a tuple may be given several times and collects texts in a list."""

    name: str
    default: bool | int | float | str | tuple
    help: str = ""

    @property
    def kind(self):
        return str if isinstance(self.default, tuple) else type(self.default)

    def read(self, text):
        """The value that `text` stands for; raises FlagError when it stands for none."""
        if self.kind is bool:
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
        else:
            try:
                return self.kind(text)
            except ValueError:
                pass
        raise FlagError(f"flag -{self.name}", _KINDS[self.kind], repr(text))


def parse(argv, flags, usage=""):
    """Read a command line.

    Args: `argv`, the words after the program's name; `flags`, the `Flag`s it knows; `usage`,
    shown by `-help` and kept for `usage_error`.
    Returns: a namespace with an attribute for each flag, and the list of the other words. As in
    gflags, flags and other words may mix, `--` ends the flags, the last of a repeated flag wins,
    and `-` and `_` are the same inside a name.
    Raises: FlagError, which names the closest flag; HelpRequest.
    """
    known = {flag.name: flag for flag in flags}
    values = {
        name: list(flag.default) if isinstance(flag.default, tuple) else flag.default
        for name, flag in known.items()
    }
    words, rest = list(argv), []
    while words:
        word = words.pop(0)
        if word == "--":
            rest += words
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        flag, value = _read_flag(word, words, known, usage)
        if isinstance(flag.default, tuple):
            values[flag.name].append(value)
        else:
            values[flag.name] = value
    return SimpleNamespace(**values), rest


def _read_flag(word, words, known, usage):
    """The flag that `word` names and its value, which may be taken from the `words` after it."""
    name, has_value, text = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if name in ("help", "h") and name not in known:
        raise HelpRequest(usage_text(usage, known.values()))
    if name.startswith("no") and name not in known and not has_value:
        negated = known.get(name[2:])
        if negated is not None and negated.kind is bool:
            return negated, False
    if name not in known:
        hint = closest(name, known) or f"Known flags: {', '.join('-' + n for n in known)}."
        raise FlagError("command line", "a known flag", repr(word), hint)
    flag = known[name]
    if has_value:
        return flag, flag.read(text)
    if flag.kind is bool:
        return flag, True
    if not words:
        raise FlagError(f"flag -{name}", f"{_KINDS[flag.kind]} after it", "the end of the line")
    return flag, flag.read(words.pop(0))


def usage_text(usage, flags):
    """A program's `usage` and one line for each flag."""
    lines = [usage] if usage else []
    for flag in flags:
        text = str(flag.default).lower() if flag.kind is bool else flag.default
        default = "" if flag.default in ((), "") else f" (default: {text})"
        lines.append(f"  -{flag.name}: {flag.help}{default}")
    return "\n".join(lines)


def usage_error(usage, expected, words):
    """The FlagError for a wrong number of `words` beside the flags."""
    found = " ".join(map(repr, words)) or "none"
    return FlagError("command line", expected, found, f"Usage: {usage}")


def command(main):
    """Decorator for a `main(argv)`: fills `argv` from `sys.argv`, makes the exit status an
    integer, prints a DemitasseError or OSError as one line on stderr (status 1) and help on
    stdout (status 0)."""

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(sys.argv[1:] if argv is None else argv) or 0
        except HelpRequest as request:
            print(request)
            return 0
        except DemitasseError as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            print(f"error: {_describe_os_error(error)}", file=sys.stderr)
        return 1

    return run


def _describe_os_error(error):
    if error.filename is None:
        return str(error)
    found = error.strerror or str(error)
    return describe(error.filename, "a file to read or to write", found, "Check the path.")
