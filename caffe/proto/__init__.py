"""Caffe's protocol buffer messages: `from caffe.proto import caffe_pb2`."""

import sys

from demitasse.engine.proto import caffe_pb2

sys.modules[f"{__name__}.caffe_pb2"] = caffe_pb2  # for `import caffe.proto.caffe_pb2`
