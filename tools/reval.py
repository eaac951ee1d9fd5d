"""Evaluate detections saved by an earlier test again (py-faster-rcnn: tools/reval.py)."""

import argparse
import os
import sys

from caffe.flags import command
from demitasse.detection.commandline import make_parser
from demitasse.detection.config import Config
from demitasse.detection.datasets import get_imdb
from demitasse.detection.detections import DETECTIONS_FILE, apply_nms
from demitasse.detection.evaluate import (
    evaluate_detections,
    load_detections,
    write_voc_results,
)


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Evaluate saved detections again.")
    parser.add_argument("output_dir", help=f"the folder of a {DETECTIONS_FILE}, or such a file")
    parser.add_argument("--imdb", default="voc_2007_test", help="the data set")
    parser.add_argument("--data_dir", default="data", help="the folder of the data sets")
    parser.add_argument(
        "--comp", action="store_true",
        help="also write PASCAL VOC's files, comp4_det_test_*.txt, beside the detections",
    )  # fmt: skip
    parser.add_argument(
        "--nms", type=_threshold, nargs="?", const=Config().TEST.NMS, metavar="THRESH",
        help="first suppress detections that overlap a better one of their class by more "
        f"({Config().TEST.NMS} if no number follows)",
    )  # fmt: skip
    parser.add_argument(
        "--matlab", action="store_true", help="for old command lines: evaluation is in Python"
    )
    return parser.parse_args(argv)


def _threshold(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number or nothing, found {text!r}. A folder goes before --nms."
        ) from None


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    if args.matlab:
        print("--matlab has no effect: evaluation is in Python.", file=sys.stderr)
    path = args.output_dir
    if os.path.isdir(path):
        path = os.path.join(path, DETECTIONS_FILE)
    dataset = get_imdb(args.imdb, args.data_dir)
    all_boxes = load_detections(path, dataset)
    if args.nms is not None:
        all_boxes = apply_nms(all_boxes, args.nms)
    if args.comp:
        folder = os.path.dirname(path) or "."
        files = write_voc_results(dataset, all_boxes, folder)
        print(f"Wrote {len(files)} files to {folder}")
    print(evaluate_detections(dataset, all_boxes)[1])


if __name__ == "__main__":
    sys.exit(main())
