"""The mean image of a database, as a .binaryproto (Caffe: tools/compute_image_mean.cpp)."""

import sys

import numpy as np

from caffe.flags import Flag, command, parse, usage_error
from caffe.io import datum_to_array
from caffe.log import init_log, log
from demitasse.engine.blobproto import write_blob
from demitasse.engine.db import open_db
from demitasse.engine.errors import DataError
from demitasse.layers.data_transform import parse_datum

USAGE = "compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]"
FLAGS = (Flag("backend", "lmdb", "The backend {leveldb, lmdb} containing the images"),)


def image_mean(records, where):
    """The mean of the images in (key, serialized Datum) records, all of one size.

    Returns: float64 (channels, height, width).
    NOTE: Caffe sums up in float32 and so loses digits over many images; here it is float64.
    """
    total, count = None, 0
    for key, value in records:
        place = f"{where}, record {key!r}"
        pixels = datum_to_array(parse_datum(value, place), place)
        if total is None:
            total = np.zeros(pixels.shape)
        elif pixels.shape != total.shape:
            hint = "Resize all images to one size (convert_imageset -resize_width -resize_height)."
            raise DataError(place, f"an image of shape {total.shape}", pixels.shape, hint)
        total += pixels
        count += 1
        if count % 10000 == 0:
            log(f"Processed {count} files.")
    if not count:
        raise DataError(where, "at least one image", "none")
    if count % 10000:
        log(f"Processed {count} files.")
    return total / count


@command
def main(argv=None):
    """Run the command line `argv`."""
    options, words = parse(argv, FLAGS, USAGE)
    if not 1 <= len(words) <= 2:
        raise usage_error(USAGE, "a database and perhaps an output file", words)
    init_log()
    log("Starting iteration")
    with open_db(words[0], options.backend) as db:
        mean = image_mean(db.items(), words[0])
    if len(words) == 2:
        log(f"Write to {words[1]}")
        write_blob(words[1], mean.astype(np.float32))
    log(f"Number of channels: {len(mean)}")
    for channel, value in enumerate(mean.mean(axis=(1, 2))):
        log(f"mean_value channel [{channel}]: {value:g}")


if __name__ == "__main__":
    sys.exit(main())
