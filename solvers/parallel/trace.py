"""What ran when, in the form that chrome://tracing and ui.perfetto.dev show."""

import json
import time

from ...engine.files import atomic_write

_MOST = 20000  # spans that are kept


class Trace:
    """Spans of time of one rank. Args: rank: its number.

    Attributes: spans: a list of (row, name, begin, end), times in seconds of one clock.
    """

    def __init__(self, rank=0):
        self.rank = rank
        self.spans = []

    @staticmethod
    def now():
        """The time, in seconds."""
        return time.perf_counter()

    def add(self, row, name, begin, end):
        """Add a span in a row, unless there are too many already."""
        if len(self.spans) < _MOST:
            self.spans.append((row, name, begin, end))

    def write(self, path):
        """Write all spans to a file."""
        first = min((begin for _, _, begin, _ in self.spans), default=0)
        rows = list(dict.fromkeys(row for row, *_ in self.spans))
        events = [
            {"name": "thread_name", "ph": "M", "pid": self.rank, "tid": k, "args": {"name": row}}
            for k, row in enumerate(rows)
        ]
        for row, name, begin, end in self.spans:
            events.append({
                "name": name, "ph": "X", "pid": self.rank, "tid": rows.index(row),
                "ts": round(1e6 * (begin - first), 1), "dur": round(1e6 * (end - begin), 1),
            })  # fmt: skip
        with atomic_write(path) as file:
            file.write(json.dumps({"traceEvents": events}).encode())
