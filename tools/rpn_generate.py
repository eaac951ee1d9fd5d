"""An RPN's proposals for a data set, in a file (py-faster-rcnn: tools/rpn_generate.py)."""

import os
import sys

from caffe.flags import command
from caffe.log import init_log
from demitasse.detection.commandline import (
    add_common_flags,
    add_model_flags,
    make_parser,
    model_and_config,
    resolve_device,
)
from demitasse.detection.datasets import get_imdb
from demitasse.detection.opening import open_for_dataset
from demitasse.detection.proposals import save_proposals
from demitasse.detection.run_folder import folder_name
from demitasse.detection.test import generate_proposals


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Write down the regions that an RPN proposes in the images of a data set.")
    add_common_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--imdb", default="voc_2007_test", help="the data set")
    parser.add_argument("--pre_nms", type=int, default=-1, help="best ones before NMS; -1: all")
    parser.add_argument("--post_nms", type=int, default=2000, help="best ones after NMS; -1: all")
    parser.add_argument(
        "--out", "--output", metavar="FILE",
        help="(default: output/EXP_DIR/IMDB/NET_rpn_proposals.npz)",
    )  # fmt: skip
    return parser.parse_args(argv)


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    init_log()
    model, cfg = model_and_config(args)
    device = resolve_device(args)
    dataset = get_imdb(args.imdb, cfg.DATA_DIR)
    net = open_for_dataset(model, dataset, cfg, ("rpn",), device)
    found = generate_proposals(net, dataset, cfg, pre_nms=args.pre_nms, post_nms=args.post_nms)
    folder = os.path.join("output", cfg.EXP_DIR, folder_name(args.imdb))
    path = args.out or os.path.join(folder, f"{model.name}_rpn_proposals.npz")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    save_proposals(path, found)
    count = sum(map(len, found.values()))
    print(f"Wrote {count} proposals in {len(found)} images to {path}")


if __name__ == "__main__":
    sys.exit(main())
