"""Everything that is wrong in a data set, by file and object, and a summary of what is in it."""

import sys
from collections import Counter

import numpy as np

from caffe.flags import command
from demitasse.detection.commandline import make_parser
from demitasse.detection.datasets import Problem, get_imdb
from demitasse.engine.errors import DataError


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Check a data set. The exit status is 1 if there are problems.")
    parser.add_argument("imdb", metavar="NAME", help="the data set, for example voc:FOLDER")
    parser.add_argument("--data_dir", default="data", help="the folder of the data sets")
    parser.add_argument("--images", action="store_true", help="also decode every image")
    return parser.parse_args(argv)


def check_images(dataset):
    """The Problems of images that cannot be decoded or are not of the annotated size."""
    from tqdm import tqdm

    problems = []
    bar = tqdm(dataset.records, unit="image", leave=False, disable=not sys.stderr.isatty())
    for record in bar:
        try:
            record.read()
        except DataError as error:
            reason = str(error).removeprefix(f"{record.path}: ")
            problems.append(Problem(record.path or record.name, None, reason))
    return problems


def summary(dataset):
    """The lines of a table: images, their sizes, and the objects of each class."""
    records = dataset.records
    empty = sum(not len(record.labels) for record in records)
    lines = [f"{dataset.name}: {len(records)} images, {empty} of them without objects"]
    sizes = Counter((record.width, record.height) for record in records).most_common()
    (width, height), count = sizes[0]
    lines.append(f"image sizes: {len(sizes)}; most often {width} x {height} ({count} images)")
    for side, values in zip(("width", "height"), zip(*(size for size, _ in sizes))):
        lines[-1] += f"; {side} {min(values)} to {max(values)}"
    return lines + _align(_table(dataset))


def _table(dataset):
    """The rows of cells: a header, one for each class, one for all of them."""
    records = dataset.records
    counts = [len(record.labels) for record in records]
    image = np.repeat(np.arange(len(records)), counts)
    labels, difficult, crowd, boxes = (
        np.concatenate([getattr(record, name) for record in records])
        for name in ("labels", "difficult", "crowd", "boxes")
    )
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    rows = [
        ("class", "objects", "images", "difficult", "crowd", "box sides: least", "median", "most")
    ]
    for label, name in [*enumerate(dataset.classes)][1:] + [(0, "all")]:
        chosen = labels == label if label else np.ones(len(labels), bool)
        totals = (
            chosen.sum(),
            len(set(image[chosen])),
            difficult[chosen].sum(),
            crowd[chosen].sum(),
        )
        extremes = ("-",) * 3
        if chosen.any():
            extremes = [f"{f(sides[chosen]):.0f}" for f in (np.min, np.median, np.max)]
        rows.append((name, *(f"{total}" for total in totals), *extremes))
    return rows


def _align(rows):
    """Rows of cells as lines: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths)))
        for row in rows
    ]


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    dataset = get_imdb(args.imdb, args.data_dir, report=False)
    problems = dataset.problems + (check_images(dataset) if args.images else [])
    for problem in problems:
        # A file name of bytes that are no text could not be printed as it is.
        print(str(problem).encode(errors="backslashreplace").decode())
    print("\n".join(summary(dataset)))
    print(f"{len(problems)} problem{'s'[: len(problems) != 1]}." if problems else "No problems.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
