"""Write scikit-learn's handwritten digits as databases that Caffe nets read.

    python examples/digits/make_digits.py        # from the repository's root

The 1797 grey images of 8 x 8 pixels with values 0 to 16 (UCI, Alpaydin & Kaynak 1998) come with
scikit-learn, so nothing is downloaded. Beside this file are written, for training (1437 images) and
for testing (360):

    digits_train_lmdb/, digits_test_lmdb/      Datum records for Data layers
    digits_train.h5, digits_test.h5            the same for HDF5Data layers, values 0 to 1,
    digits_train.txt, digits_test.txt          and the lists of files that those layers want
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

from demitasse.engine.db import open_db
from demitasse.engine.proto import caffe_pb2

NUM_TEST = 360


def load():
    """All images, (N, 1, 8, 8) uint8, and labels, (N,), in an order that is always the same."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("make_digits.py needs scikit-learn: pip install scikit-learn")
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = digits.images[order].astype(np.uint8)
    return images[:, np.newaxis], digits.target[order]  # (N, 8, 8) -> (N, 1, 8, 8)


def write_lmdb(path, images, labels):
    """A database with one Datum an image, its place in the order as the key."""
    shutil.rmtree(path, ignore_errors=True)
    with open_db(path, "LMDB", "w") as db:
        for i, (image, label) in enumerate(zip(images, labels)):
            channels, height, width = image.shape
            datum = caffe_pb2.Datum(
                channels=channels, height=height, width=width, data=image.tobytes(), label=label
            )
            db.put(b"%08d" % i, datum.SerializeToString())


def write_hdf5(path, images, labels):
    """A file with a dataset for each top of an HDF5Data layer, and a list that names the file."""
    with h5py.File(path, "w") as f:
        f["data"] = images.astype(np.float32) / 16
        f["label"] = labels.astype(np.float32)
    path.with_suffix(".txt").write_text(f"{os.path.relpath(path)}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load()
    parts = {"train": slice(NUM_TEST, None), "test": slice(NUM_TEST)}
    for name, rows in parts.items():
        write_lmdb(folder / f"digits_{name}_lmdb", images[rows], labels[rows])
        write_hdf5(folder / f"digits_{name}.h5", images[rows], labels[rows])
        print(f"{len(labels[rows])} {name} images written to {folder}")


if __name__ == "__main__":
    main()
