"""Window files: images and labelled windows in them, as R-CNN wrote them for WindowData."""

from dataclasses import dataclass

import numpy as np

from ..engine.errors import DataError


@dataclass(slots=True)
class WindowImage:
    """An image of a window file, with the shape that the file claims."""

    path: str
    channels: int
    height: int
    width: int


@dataclass(slots=True)
class Window:
    """A labelled window: box corners inclusive, `overlap` with its object, number of its image."""

    image: int
    label: int
    overlap: float
    x1: int
    y1: int
    x2: int
    y2: int
    line: int  # of the window file, for errors


def read_window_file(path):
    """Parse a window file into a list of `WindowImage`s and a list of `Window`s.

    The file repeats, in words separated by white space:

        # image_index            counting from 0
        image_path
        channels
        height
        width
        num_windows
        class_index overlap x1 y1 x2 y2        num_windows times

    Raises DataError with the line number of what is wrong.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            words = _Words(path, f)
            images, windows = [], []
            while (mark := words.next()) is not None:
                if mark != "#":
                    words.fail("'#' before the next image", repr(mark))
                index = words.number(int, "an image index")
                if index != len(images):
                    words.fail(f"image index {len(images)} (they count from 0)", index)
                images.append(_read_image(words))
                for _ in range(words.number(int, "a number of windows")):
                    windows.append(_read_window(words, index))
    except OSError as e:
        raise DataError(path, "a window file", e.strerror or str(e)) from None
    if not images:
        raise DataError(path, "a window file with at least one image", "none")
    return images, windows


def _read_image(words):
    name = words.word("an image path")
    return WindowImage(
        name, *(words.number(int, what) for what in ("channels", "a height", "a width"))
    )


def _read_window(words, image):
    label = words.number(int, "a class index")
    # In single precision, as the thresholds are that it is compared with: 0.6 is at least 0.6.
    overlap = float(np.float32(words.number(float, "an overlap")))
    box = [words.number(int, what) for what in ("x1", "y1", "x2", "y2")]
    return Window(image, label, overlap, *box, words.line)


class _Words:
    """The words of a text file one by one, with line numbers for errors."""

    def __init__(self, path, file):
        self.path = path
        self.line = 0
        self._lines = file
        self._words = iter(())

    def next(self):
        """The next word, or None at the end."""
        while (word := next(self._words, None)) is None:
            text = next(self._lines, None)
            if text is None:
                return None
            self.line += 1
            self._words = iter(text.split())
        return word

    def word(self, what):
        """The next word, of which there must be one."""
        word = self.next()
        if word is None:
            self.fail(what, "the end of the file")
        return word

    def number(self, kind, what):
        """The next word as an int or a float."""
        word = self.word(what)
        try:
            return kind(word)
        except ValueError:
            self.fail(what, repr(word))

    def fail(self, expected, found):
        """Raise a DataError that names the line."""
        raise DataError(f"{self.path}:{self.line}", expected, found)
