"""Train Faster R-CNN in four alternating stages (py-faster-rcnn: tools of the same name).

Without any flag it trains VGG16 on VOC 2007, or where that is not found on the embedded data set.
"""

import sys

from caffe.flags import command
from caffe.log import init_log
from demitasse.detection import alt_opt, final, launch, report


@command
def main(argv=None):
    """Run the command line `argv`."""
    parser = launch.training_parser("Train Faster R-CNN in four alternating stages, and test it.")
    args = parser.parse_args(argv)
    init_log()

    def train(communicator, device):
        run = launch.prepare(args, "alt_opt", (), communicator, device)
        detector = alt_opt.train(run.job, run.iters)
        print(final.test(run.job, detector, run.test_dataset))
        if communicator.is_root and not args.keep_stages:
            final.remove_stage_weights(run.job)
        report.print_files(detector, run.job.run.folder)

    return launch.in_ranks(args, "demitasse.tools.train_faster_rcnn_alt_opt", argv, train)


if __name__ == "__main__":
    sys.exit(main())
