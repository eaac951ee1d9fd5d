"""Test a detector on a data set (py-faster-rcnn: tools/test_net.py)."""

import dataclasses
import os
import sys

from caffe.flags import command
from caffe.log import init_log
from demitasse.detection.commandline import (
    add_common_flags,
    add_model_flags,
    at_least,
    make_parser,
    model_and_config,
    resolve_device,
)
from demitasse.detection.datasets import get_imdb
from demitasse.detection.detections import DETECTIONS_FILE
from demitasse.detection.detector import list_detections
from demitasse.detection.evaluate import (
    ap_table,
    coco_report,
    save_detections,
    voc_eval,
    write_voc_results,
)
from demitasse.detection.opening import open_for_dataset
from demitasse.detection.proposal_methods import proposals_for
from demitasse.detection.proposals import load_proposals
from demitasse.detection.run_folder import folder_name
from demitasse.detection.test import test_net
from demitasse.detection.visualize import draw_detections, save_image
from demitasse.engine.errors import DataError

_SHOWN_SCORE = 0.5


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Test a detector on a data set.")
    add_common_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--imdb", default="voc_2007_test", help="the data set")
    parser.add_argument(
        "--comp", action="store_true", help="for old command lines: VOC's files are always written"
    )
    parser.add_argument("--vis", action="store_true", help="write pictures with the detections")
    parser.add_argument("--num_dets", type=at_least(0), default=100, help="most an image; 0: all")
    parser.add_argument(
        "--max-images", type=at_least(1), metavar="N", help="test the first N images only"
    )
    parser.add_argument(
        "--rpn-file", metavar="FILE",
        help="test the region head alone, on these proposals (of tools/rpn_generate.py)",
    )  # fmt: skip
    parser.add_argument(
        "--out", "--output", metavar="FOLDER", help="(default: output/EXP_DIR/IMDB/NET)"
    )
    return parser.parse_args(argv)


def report(dataset, all_boxes):
    """Print average precision by VOC's two metrics, and for COCO's data its own numbers."""
    for use_07, name in ((True, "11 points, as VOC 2007"), (False, "area under the curve")):
        print(f"Average precision on {dataset.name} at IoU 0.5, {name}:")
        print(ap_table(voc_eval(dataset, all_boxes, use_07_metric=use_07)))
    if dataset.category_ids is not None:
        print(coco_report(dataset, all_boxes)[1])


def draw(dataset, all_boxes, folder):
    """Write a picture of each image that can be read."""
    os.makedirs(folder, exist_ok=True)
    for i, record in enumerate(dataset.records):
        try:
            image = record.read()
        except DataError:
            continue  # named in the log when it was tested
        found = list_detections([boxes[i] for boxes in all_boxes], dataset.classes, _SHOWN_SCORE)
        name = f"{folder_name(record.name)}.jpg"
        save_image(os.path.join(folder, name), draw_detections(image, found, dataset.classes))
    print(f"Wrote pictures to {folder}")


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    init_log()
    proposals = load_proposals(args.rpn_file) if args.rpn_file else None
    model, cfg = model_and_config(args)
    device = resolve_device(args)
    dataset = get_imdb(args.imdb, cfg.DATA_DIR)
    if args.max_images is not None:
        dataset = dataclasses.replace(dataset, records=dataset.records[: args.max_images])
    stages = ("fast_rcnn",) if args.rpn_file else ("rpn", "fast_rcnn")
    net = open_for_dataset(model, dataset, cfg, stages, device)
    if proposals is None and "rois" in net.inputs:
        proposals = proposals_for(dataset, cfg.TEST.PROPOSAL_METHOD, cfg)
    all_boxes = test_net(net, dataset, cfg, args.num_dets, proposals=proposals)
    folder = args.out or os.path.join("output", cfg.EXP_DIR, folder_name(args.imdb), model.name)
    os.makedirs(folder, exist_ok=True)
    save_detections(os.path.join(folder, DETECTIONS_FILE), dataset, all_boxes)
    report(dataset, all_boxes)
    write_voc_results(dataset, all_boxes, folder)
    print(f"Wrote detections to {folder}")
    if args.vis:
        draw(dataset, all_boxes, os.path.join(folder, "pictures"))


if __name__ == "__main__":
    sys.exit(main())
