"""A .caffemodel of an old format in the current one (Caffe: tools/upgrade_net_proto_binary.cpp)."""

import sys

from caffe.flags import command
from demitasse.engine.prototxt import read_binary, write_binary
from demitasse.tools.upgrade_net_proto_text import upgrade_file

USAGE = "upgrade_net_proto_binary OLD_CAFFEMODEL NEW_CAFFEMODEL"


@command
def main(argv=None):
    """Run the command line `argv`."""
    upgrade_file(argv, USAGE, "binary", read_binary, write_binary)


if __name__ == "__main__":
    sys.exit(main())
