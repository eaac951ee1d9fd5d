"""A prototxt of an old format in the current one (Caffe: tools/upgrade_net_proto_text.cpp)."""

import sys

from caffe.flags import command, parse, usage_error
from caffe.log import init_log, log
from caffe.proto import caffe_pb2
from demitasse.engine.prototxt import read_text, write_text
from demitasse.engine.upgrade import net_needs_upgrade, upgrade_net

USAGE = "upgrade_net_proto_text OLD_PROTOTXT NEW_PROTOTXT"


def upgrade_file(argv, usage, kind, read, write):
    """Run the command line `argv`: read a NetParameter, upgrade it, write it.

    `read(path, message class)` and `write(message, path)` are of the file format `kind`.
    """
    _, words = parse(argv, (), usage)
    if len(words) != 2:
        raise usage_error(usage, "an input and an output file", words)
    init_log()
    source, target = words
    net = read(source, caffe_pb2.NetParameter)
    if not net_needs_upgrade(net):
        log(f"File already in latest proto format: {source}")
    upgrade_net(net, source)
    write(net, target)
    log(f"Wrote upgraded NetParameter {kind} proto to {target}")


@command
def main(argv=None):
    """Run the command line `argv`."""
    upgrade_file(argv, USAGE, "text", read_text, write_text)


if __name__ == "__main__":
    sys.exit(main())
