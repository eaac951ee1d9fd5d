"""A training log as two CSV tables, of the training and the test net's outputs (Caffe:
tools/extra/parse_log.py)."""

import csv
import os
import re
import sys
from datetime import datetime

from caffe.flags import Flag, command, parse, usage_error
from demitasse.engine.errors import DataError

USAGE = "parse_log [FLAGS] LOG_FILE OUTPUT_DIR"
FLAGS = (
    Flag("verbose", False, "Say what was written"),
    Flag("delimiter", ",", "The column delimiter of the output files"),
)

_NUMBER = r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|nan|inf)"
_ITERATION = re.compile(r"Iteration (\d+)")
_OUTPUT = re.compile(rf"(Train|Test) net output #\d+: (\S+) = ({_NUMBER})", re.IGNORECASE)
_LEARNING_RATE = re.compile(rf"lr = ({_NUMBER})", re.IGNORECASE)
# I0210 13:39:22.381027 25210 solver.cpp:204] ...; later versions of glog put the year first.
_STAMP = re.compile(r"[IWEF](\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})")


def parse_log(path_to_log):
    """Read a log of `caffe train`.

    Returns: (train, test), each a list of rows: dicts with NumIters, Seconds (since "Solving"),
    LearningRate, and the net's outputs by name.
    NOTE: Caffe's program drops a last row with fewer outputs than the first, and the only row of
    a log with just one; here every row is kept.
    """
    tables = {"train": [], "test": []}
    iteration, learning_rate = None, float("nan")
    clock = _Clock(datetime.fromtimestamp(os.path.getctime(path_to_log)).year)
    with open(path_to_log, encoding="utf-8", errors="replace") as file:
        for line in file:
            seconds = clock.read(line)
            if match := _ITERATION.search(line):
                iteration = float(match[1])
            if iteration is None or seconds is None:
                continue
            if match := _LEARNING_RATE.search(line):
                learning_rate = float(match[1])
            if match := _OUTPUT.search(line):
                rows, name = tables[match[1].lower()], match[2]
                if not rows or rows[-1]["NumIters"] != iteration or name in rows[-1]:
                    head = {"NumIters": iteration, "Seconds": seconds}
                    rows.append({**head, "LearningRate": learning_rate})
                rows[-1][name] = float(match[3])
    for rows in tables.values():
        # The rate is first printed after the first outputs.
        if len(rows) > 1:
            rows[0]["LearningRate"] = rows[1]["LearningRate"]
    return tables["train"], tables["test"]


class _Clock:
    """The seconds since training began, from the stamps of the log's lines."""

    def __init__(self, year):
        self.year = year
        self.start = self.last = None

    def read(self, line):
        """The seconds at a line; None for one without a stamp (or with a garbled one)."""
        match = _STAMP.match(line)
        if not match:
            return None
        year, *rest = match.groups()
        try:
            time = datetime(int(year or self.year), *map(int, rest))
            if self.last is not None and time.month < self.last.month and year is None:
                self.year += 1  # the log runs over New Year
                time = time.replace(year=self.year)
        except ValueError:
            return None
        self.last = time
        if self.start is None or "Solving" in line:
            self.start = time
        return (time - self.start).total_seconds()


def save_csv_files(logfile_path, output_dir, train, test, delimiter=",", verbose=False):
    """Write the rows as `output_dir`/<name of the log>.train and .test."""
    base = os.path.join(output_dir, os.path.basename(logfile_path))
    for rows, path in ((train, f"{base}.train"), (test, f"{base}.test")):
        if rows:
            write_csv(path, rows, delimiter)
        if verbose:
            print(f"Wrote {path}" if rows else f"Not writing {path}; no lines to write")


def write_csv(path, rows, delimiter=","):
    """Write rows, which may lack some columns, as a CSV file with a header."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@command
def main(argv=None):
    """Run the command line `argv`."""
    options, words = parse(argv, FLAGS, USAGE)
    if len(words) != 2:
        raise usage_error(USAGE, "a log file and an output folder", words)
    if len(options.delimiter) != 1:
        raise DataError("flag -delimiter", "one character", repr(options.delimiter))
    log_file, output_dir = words
    train, test = parse_log(log_file)
    if not train and not test:
        hint = "Keep it by: caffe train ... 2>&1 | tee FILE, or -log_dir FOLDER."
        raise DataError(log_file, "a log of `caffe train`", "no outputs of a net in it", hint)
    save_csv_files(log_file, output_dir, train, test, options.delimiter, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
