"""Train a net in one stage: Faster R-CNN end to end, Fast R-CNN, or an RPN (py-faster-rcnn:
tools/train_net.py)."""

import sys

from caffe.flags import command
from caffe.log import init_log
from demitasse.detection import end2end, final, launch, report
from demitasse.detection.proposal_methods import proposals_for
from demitasse.engine.errors import DataError


def parse_args(argv):
    """The namespace of a command line."""
    parser = launch.training_parser("Train a net in one stage, and test it.")
    parser.add_argument(
        "--method", choices=("end2end", "fast_rcnn", "rpn"), default="end2end",
        help="what to train",
    )  # fmt: skip
    parser.add_argument(
        "--proposals", nargs="+", default=(), metavar="FILE",
        help="for Fast R-CNN with PROPOSAL_METHOD rpn: tools/rpn_generate.py's files for the "
        "training images, the test images and, if it is validated, the validation images",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.proposals and args.method != "fast_rcnn":
        raise DataError(
            "--proposals", "--method fast_rcnn, which learns from given proposals",
            f"--method {args.method}", "Faster R-CNN and RPNs propose regions themselves.",
        )  # fmt: skip
    if len(args.proposals) > 3:
        raise DataError("--proposals", "at most 3 files", f"{len(args.proposals)}")
    return args


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    init_log()

    def train(communicator, device):
        # Those that are validated on change no result.
        run = launch.prepare(args, args.method, args.proposals[:2], communicator, device)
        job = run.job
        given = [None] * 3
        if args.method == "fast_rcnn":
            given = proposal_sources(args, job, run.test_dataset)
        detector = end2end.train(job, run.iters, given[0], given[2])
        print(final.test(job, detector, run.test_dataset, given[1]))
        if communicator.is_root and not args.keep_stages:
            final.remove_stage_weights(job)
        report.print_files(detector, job.run.folder)

    return launch.in_ranks(args, "demitasse.tools.train_net", argv, train)


def proposal_sources(args, job, test_dataset):
    """Functions that give the proposals to train on, to test with, and to validate with."""
    files = [*args.proposals, None, None, None]
    train, test = job.cfg.TRAIN.PROPOSAL_METHOD, job.cfg.TEST.PROPOSAL_METHOD
    if args.proposals:
        train = test = "rpn"
    wanted = (
        (job.dataset, train, files[0]),
        (test_dataset, test, files[1]),
        (job.val_dataset, test, files[2]),
    )
    return [lambda w=w: proposals_for(w[0], w[1], job.cfg, w[2]) for w in wanted]


if __name__ == "__main__":
    sys.exit(main())
