"""Images read and prepared ahead in a thread, so that the net that looks at them does not wait."""

import logging
import time
from collections import defaultdict

from ..engine.errors import DataError
from ..layers.prefetch import Prefetcher
from .progress import Display

log = logging.getLogger("demitasse.detection")

_AHEAD = 2  # images


def read_ahead(count, load):
    """Yield load(0), ..., load(count - 1), each computed in a thread while those before are used.

    Where `load` raises DataError, that is yielded in place of a result.
    """

    def load_one(k):
        try:
            return _Item(load(k) if k < count else None)
        except DataError as error:
            return _Item(error)

    prefetcher = Prefetcher(lambda: load_one, depth=_AHEAD)
    try:
        for _ in range(count):
            yield prefetcher.next().value
    finally:
        prefetcher.close()


class _Item:
    """One result, as a Prefetcher takes it: something that it can ask for arrays to measure.

    There are none, because as few as two images need no further limit.
    """

    def __init__(self, value):
        self.value = value

    def __iter__(self):
        return iter(())


class ImageReader:
    """Iterates over a data set's images that can be read: (index, record, prepared image).

    One that cannot be read is named in the log. How long each image took is shown as a `Display`
    does, and in a last line of the log.

    Args:
        dataset: a Dataset; prepare: what is done to an image once it is read, also ahead.
        progress: whether to show anything before that line.
    """

    def __init__(self, dataset, prepare, progress=True):
        self.dataset = dataset
        self.problems = []  # DataErrors
        self._prepare = prepare
        self._progress = progress
        self._seconds = defaultdict(float)
        self._count = 0

    def mark(self, what):
        """Count the time since the last mark (or since the image was handed out) as `what`."""
        now = time.perf_counter()
        self._seconds[what] += now - self._begin
        self._begin = now

    def __iter__(self):
        display = None
        if self._progress:
            name, count = self.dataset.name, len(self.dataset)
            display = Display(name, count, unit="image", leave=False)
        self._begin = time.perf_counter()
        try:
            for i, record, image in self._read():
                yield i, record, image
                if display:
                    display.show(i + 1, self._times())
        finally:
            if display:
                display.close()
        if self._count:
            log.info("%s: %d images, %s", self.dataset.name, self._count, self._times())

    def _read(self):
        records = self.dataset.records
        images = read_ahead(len(records), lambda k: self._prepare(records[k].read()))
        for i, image in enumerate(images):
            self.mark("waiting")
            if isinstance(image, DataError):
                self.problems.append(image)
                log.warning("Left out: %s", image)
            else:
                self._count += 1
                yield i, records[i], image

    def _times(self):
        each = (f"{what} {s / self._count:.3f} s" for what, s in self._seconds.items())
        return ", ".join(each)
