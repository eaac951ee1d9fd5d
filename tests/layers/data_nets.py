"""What the tests of data layers share: building nets from text and collecting their batches."""

import numpy as np
from google.protobuf import text_format

from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


def make_net(layer, phase=TEST, seed=1, tops=("data", "label")):
    """A net of one layer, given as the inside of `layer { ... }`."""
    names = " ".join(f'top: "{top}"' for top in tops)
    text = f'layer {{ name: "d" {names} {layer} }}'
    return Net(text_format.Parse(text, caffe_pb2.NetParameter()), phase, context=Context(seed))


def batches(net, count):
    """The tops' values in `count` passes, as a list of lists of arrays."""
    result = []
    for _ in range(count):
        net.forward()
        result.append([np.array(blob.data) for blob in net.blob_list])
    return result


def check_resumes(build, passes=9):
    """A net that continues at pass k gives what an uninterrupted one gives from there on."""
    whole = batches(build(), passes)
    for start in (0, 1, passes // 2):
        net = build()
        net.forward()  # something has been read ahead when the restore comes
        net.seek(start)
        for expected, found in zip(whole[start:], batches(net, passes - start), strict=True):
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b)
    return whole
