"""Images listed in a file as a database of Datum records (Caffe: tools/convert_imageset.cpp)."""

import os
import random
import sys

from caffe.flags import Flag, command, parse, usage_error
from caffe.log import init_log, log
from caffe.proto import caffe_pb2
from demitasse.engine.db import open_db
from demitasse.engine.errors import DataError
from demitasse.layers.data_transform import image_pixels, read_bytes, read_image
from demitasse.layers.image_data import read_list

USAGE = """convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME
LISTFILE has a line "path label" for each image; paths are relative to ROOTFOLDER."""
FLAGS = (
    Flag("gray", False, "Treat images as grayscale ones"),
    Flag("shuffle", False, "Randomly shuffle the order of images and their labels"),
    Flag("seed", 0, "What the order of -shuffle depends on"),
    Flag("backend", "lmdb", "The backend {lmdb, leveldb} for storing the result"),
    Flag("resize_width", 0, "Width images are resized to"),
    Flag("resize_height", 0, "Height images are resized to"),
    Flag("check_size", False, "Check that all the images have the same size"),
    Flag("encoded", False, "Save the encoded image in the datum"),
    Flag("encode_type", "", "What type to encode the image as ('png', 'jpg', ...)"),
)
_COMMIT_EVERY = 1000


def image_datum(image, path, options):
    """The Datum, still without a label, of an `image` just read from `path`, and its shape
    (channels, height, width). An image to be stored encoded is the file itself if that is of
    the type asked for and need not be changed.
    """
    from demitasse.engine.opencv import cv2

    resize = options.resize_width > 0 and options.resize_height > 0
    if resize:
        image = cv2.resize(image, (options.resize_width, options.resize_height))
    pixels = image_pixels(image, path)
    if not (options.encoded or options.encode_type):
        channels, height, width = pixels.shape
        data = pixels.tobytes()
        datum = caffe_pb2.Datum(channels=channels, height=height, width=width, data=data)
        return datum, pixels.shape
    extension = os.path.splitext(path)[1][1:].lower()
    encoding = options.encode_type.lower().lstrip(".") or extension
    same_type = extension == encoding or (encoding, extension) == ("jpg", "jpeg")
    # NOTE: Caffe stores a colour file as it is even with -gray; here it is converted first.
    if same_type and not resize and not options.gray:
        data = read_bytes(path, "convert_imageset")
    else:
        data = _encode(image, encoding, path)
    return caffe_pb2.Datum(encoded=True, data=data), pixels.shape


def _encode(image, encoding, path):
    from demitasse.engine.opencv import cv2

    try:
        _, encoded = cv2.imencode(f".{encoding}", image)
    except cv2.error:
        found, hint = repr(encoding), "Give the type of all images with -encode_type."
        raise DataError(path, "an image type that OpenCV writes", found, hint) from None
    return encoded.tobytes()


def convert(pairs, root, db, options):
    """Put the images of `pairs` into the database `db`; returns how many there were.

    An image that cannot be read is reported and left out, as in Caffe. Keys are the number in
    the list and the path. Raises: DataError if -check_size finds two sizes.
    """
    first_shape, count = None, 0
    for index, (name, label) in enumerate(pairs):
        path = os.path.join(root, name.lstrip("/")) if root else name
        try:
            image = read_image(path, not options.gray, "convert_imageset")
        except DataError as error:
            log(f"Left out: {error}")
            continue
        datum, shape = image_datum(image, path, options)
        datum.label = label
        first_shape = first_shape or shape
        if options.check_size and shape != first_shape:
            raise DataError(path, f"an image of shape {first_shape}", shape)
        key = f"{index:08d}_{name}".encode(errors="surrogateescape")
        db.put(key, datum.SerializeToString())
        count += 1
        if count % _COMMIT_EVERY == 0:
            db.commit()
            log(f"Processed {count} files.")
    return count


@command
def main(argv=None):
    """Run the command line `argv`."""
    options, words = parse(argv, FLAGS, USAGE)
    if len(words) != 3:
        raise usage_error(USAGE, "a root folder, a list file and a database", words)
    init_log()
    root, list_file, db_name = words
    pairs = read_list(list_file, "convert_imageset", need_labels=True)
    if options.shuffle:
        log("Shuffling data")
        random.Random(options.seed).shuffle(pairs)
    log(f"A total of {len(pairs)} images.")
    if options.encode_type and not options.encoded:
        log("encode_type specified, assuming encoded=true.")
    with open_db(db_name, options.backend, "w") as db:
        count = convert(pairs, root, db, options)
        db.commit()
    log(f"Processed {count} files.")
    if not count:
        raise DataError(list_file, "images that can be read", "none")


if __name__ == "__main__":
    sys.exit(main())
