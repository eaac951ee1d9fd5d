"""The recall of region proposals (py-faster-rcnn: tools/eval_recall.py)."""

import os
import sys

import numpy as np

from caffe.flags import command
from demitasse.detection.commandline import make_parser
from demitasse.detection.config import Config
from demitasse.detection.datasets import get_imdb
from demitasse.detection.evaluate import AREAS, proposal_recall, recall_at, recall_table
from demitasse.detection.plots import recall_plot
from demitasse.detection.proposal_methods import proposals_for
from demitasse.detection.run_folder import folder_name


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Measure how many objects region proposals find.")
    parser.add_argument("--imdb", default="voc_2007_test", help="the data set")
    parser.add_argument("--data_dir", default="data", help="the folder of the data sets")
    parser.add_argument(
        "--method", choices=["rpn", "selective_search"], default="rpn",
        help="where the proposals come from",
    )  # fmt: skip
    parser.add_argument(
        "--rpn-file", metavar="FILE",
        help="those of method rpn, as tools/rpn_generate.py writes them (.npz)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, nargs="+", metavar="N",
        help="use only the N best proposals of an image; several give a table and a curve each",
    )  # fmt: skip
    parser.add_argument(
        "--plot", "--out", "--output", metavar="FILE",
        help="the picture (default: output/default/IMDB/recall.png)",
    )  # fmt: skip
    return parser.parse_args(argv)


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    dataset = get_imdb(args.imdb, args.data_dir)
    cfg = Config(DATA_DIR=args.data_dir)
    proposals = proposals_for(dataset, args.method, cfg, args.rpn_file)
    curves, overlaps = {}, np.linspace(0.5, 1.0, 51)
    for limit in args.limit or [None]:
        name = args.method if limit is None else f"{args.method}, {limit} an image"
        results = {
            area: proposal_recall(dataset, proposals, limit=limit, area=area) for area in AREAS
        }
        print(f"Recall of {name} on {dataset.name}:\n{recall_table(results)}")
        curves[name] = overlaps, recall_at(results["all"].overlaps, overlaps)
    path = args.plot or os.path.join("output", cfg.EXP_DIR, folder_name(args.imdb), "recall.png")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    recall_plot(curves, path, f"Recall on {dataset.name}")
    print(f"Wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
