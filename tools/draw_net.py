"""A picture of a net's layers and blobs (Caffe: python/draw_net.py)."""

import sys

from caffe.draw import draw_net_to_file
from caffe.flags import Flag, FlagError, command, parse, usage_error
from caffe.proto import caffe_pb2
from demitasse.engine.prototxt import read_net

USAGE = "draw_net [FLAGS] NET_PROTOTXT IMAGE_FILE"
FLAGS = (
    Flag("rankdir", "LR", "Direction: LR (left to right), RL, TB (top to bottom) or BT"),
    Flag("phase", "ALL", "Which layers to draw: TRAIN, TEST or ALL"),
    Flag("stage", "", "With -phase: the stages of the net, separated by commas"),
    Flag("display_lrm", False, "Show the learning rate multipliers"),
)
_PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST, "ALL": None}


@command
def main(argv=None):
    """Run the command line `argv`."""
    options, words = parse(argv, FLAGS, USAGE)
    if len(words) != 2:
        raise usage_error(USAGE, "a prototxt and an image file", words)
    phase = options.phase.upper()
    if phase not in _PHASES:
        raise FlagError("flag -phase", "TRAIN, TEST or ALL", repr(options.phase))
    net = read_net(words[0])
    print(f"Drawing net to {words[1]}")
    draw_net_to_file(
        net, words[1], options.rankdir, _PHASES[phase], options.display_lrm,
        [stage for stage in options.stage.split(",") if stage],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
