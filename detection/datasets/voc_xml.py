"""PASCAL VOC's annotation files: XML, read safely."""

import os
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

from ...engine.errors import DataError, ModelFileError
from ...engine.files import read_limited
from .record import BACKGROUND, Problem

_MAX_BYTES = 1 << 24
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object: its `number` in the file from 1, its class as spelt there without surrounding
    spaces, the box (xmin, ymin, xmax, ymax) as written (1-based, inclusive)."""

    number: int
    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    def __str__(self):
        return f"{self.name} ({', '.join(f'{v:g}' for v in self.box)})"


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a file says: the name of its image ("" if none), the size (zeros if none), its objects,
    and the problems of those objects that could not be read."""

    path: str
    image: str
    size: tuple[int, int]
    objects: list[VocObject] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, which alone can declare entities that expand without end."""

    def doctype(self, name, pubid, system):
        raise ValueError("a document type declaration")


def read_annotation(path):
    """The Annotation in an XML file.

    Raises: DataError, which names the file, if it is missing, is no XML or not of VOC's form.
    """
    hint = "Restore or remove the file."
    try:
        data = read_limited(path, "an annotation file", _MAX_BYTES)
    except ModelFileError as error:
        raise DataError(str(error)) from None
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(path, "an annotation in XML", str(error), hint) from None
    if root.tag != "annotation":
        raise DataError(path, "an element <annotation>", f"<{root.tag}>", hint)
    image = _text(root, "filename").replace("\\", "/")
    size = tuple(_length(root, f"size/{side}") for side in ("width", "height"))
    annotation = Annotation(path, os.path.basename(image), size)
    for number, element in enumerate(root.iterfind("object"), 1):
        _read_object(annotation, number, element)
    return annotation


def _read_object(annotation, number, element):
    """Append an object to the annotation, or the problem that it has."""
    name = _text(element, "name")
    texts = [_text(element, f"bndbox/{corner}") for corner in _CORNERS]
    reason = None
    if not name or name == BACKGROUND:
        reason = f"{name!r} is no class of an object; left out"
    else:
        try:
            box = tuple(map(float, texts))
        except ValueError:
            found = ", ".join(f"{c} {t!r}" for c, t in zip(_CORNERS, texts))
            reason = f"{name} without a box of four numbers ({found}); left out"
    if reason:
        annotation.problems.append(Problem(annotation.path, number, reason))
        return
    difficult = _text(element, "difficult").lower() in ("1", "true")
    annotation.objects.append(VocObject(number, name, box, difficult))


def _text(element, path):
    """The text of a descendant without surrounding spaces; "" if there is none."""
    return (element.findtext(path) or "").strip()


def _length(root, path):
    """A width or height in pixels; 0 if the file has none that can be true."""
    try:
        return max(0, int(float(_text(root, path))))
    except (ValueError, OverflowError):
        return 0
