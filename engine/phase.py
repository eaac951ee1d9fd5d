"""The two phases of a net."""

import enum

from .proto import caffe_pb2


class Phase(enum.IntEnum):
    """What a net is for. Equal to the numbers of the file format, 0 and 1.

    NOTE: pycaffe gives plain ints, py-faster-rcnn's Caffe an enumeration whose str() is 'TRAIN' or
    'TEST', by which its layers look up settings. This does both.
    """

    TRAIN = caffe_pb2.TRAIN
    TEST = caffe_pb2.TEST

    def __str__(self):
        return self.name


TRAIN, TEST = Phase.TRAIN, Phase.TEST
