"""Small detectors whose answers are known, for the tests of testing."""

import numpy as np

from caffe.proto import caffe_pb2
from demitasse.detection.config import Config, layer_settings, merge
from demitasse.detection.datasets.record import Dataset, Record
from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.prototxt import parse_text
from demitasse.engine.upgrade import upgrade_net
from demitasse.layers.python import PythonLayer

CLASSES = ("__background__", "green", "red")
CFG = merge(Config(), {"TEST": {"SCALES": [60], "MAX_SIZE": 100}, "DEDUP_BOXES": 0.5})


GREEN, RED = 1, 2  # channels, and labels


class FindColours(PythonLayer):
    """Finds what is clearly green and clearly red in `data`: its box, with certainty.

    tops: rois (2, 5), cls_prob (2, 3), bbox_pred (2, 12) of zeros, scores (2, 1). What is not
    there has the whole image as its RoI, and is background.
    """

    def setup(self, bottom, top):
        self.means = np.ravel(CFG.PIXEL_MEANS).astype(np.float32)

    def reshape(self, bottom, top):
        for blob, width in zip(top, (5, 3, 12, 1)):
            blob.reshape(2, width)

    def forward(self, bottom, top):
        image = bottom[0].data[0] + self.means[:, None, None]
        height, width, _ = bottom[1].data[0]
        for blob in top:
            blob.data[...] = 0
        for row, label in enumerate((GREEN, RED)):
            others = np.delete(image, label, axis=0).max(axis=0)
            rows, columns = np.nonzero(image[label] > others + 100)
            box, score = (0, 0, width - 1, height - 1), 0.0
            if len(rows):
                box, score = (columns.min(), rows.min(), columns.max(), rows.max()), 0.9
            top[0].data[row, 1:] = box
            top[1].data[row, label] = score
            top[1].data[row, 0] = 1 - score
            if len(top) > 3:
                top[3].data[row] = score


FIND_COLOURS = f"""
name: "find colours"
input: "data" input_shape {{ dim: 1 dim: 3 dim: 60 dim: 60 }}
input: "im_info" input_shape {{ dim: 1 dim: 3 }}
layer {{ name: "find" type: "Python" bottom: "data" bottom: "im_info"
         top: "rois" top: "cls_prob" top: "bbox_pred" top: "scores"
         python_param {{ module: "{__name__}" layer: "FindColours" }} }}
"""

FAST_RCNN = """
name: "small Fast R-CNN"
input: "data" input_shape { dim: 1 dim: 3 dim: 60 dim: 60 }
input: "rois" input_shape { dim: 1 dim: 5 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1
                            weight_filler { type: "gaussian" std: 0.02 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
        roi_pooling_param { pooled_w: 3 pooled_h: 3 spatial_scale: 0.5 } }
layer { name: "cls_score" type: "InnerProduct" bottom: "pool" top: "cls_score"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.2 } } }
layer { name: "bbox_pred" type: "InnerProduct" bottom: "pool" top: "bbox_pred"
        inner_product_param { num_output: 12 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "cls_prob" type: "Softmax" bottom: "cls_score" top: "cls_prob" }
"""


def open_text(text, cfg=CFG):
    """A TEST net from prototxt text, with random weights that depend on the text alone."""
    param = upgrade_net(parse_text(text, caffe_pb2.NetParameter), "known net")
    return Net(param, caffe_pb2.TEST, context=Context(7, layer_settings(cfg)))


def coloured_image(green=None, red=None, size=(90, 60)):
    """A grey image of `size` (width, height) with a filled green and a filled red box."""
    image = np.full((size[1], size[0], 3), 110, np.uint8)
    for box, colour in ((green, (0, 255, 0)), (red, (0, 0, 255))):
        if box is not None:
            x1, y1, x2, y2 = box
            image[y1 : y2 + 1, x1 : x2 + 1] = colour
    return image


def coloured_record(name, green=None, red=None, size=(90, 60)):
    """A record that draws `coloured_image`."""
    found = [(label, box) for label, box in ((GREEN, green), (RED, red)) if box is not None]
    return Record(
        name, *size, np.array([b for _, b in found], np.float32).reshape(-1, 4),
        np.array([label for label, _ in found], np.int64),
        draw=lambda: coloured_image(green, red, size),
    )  # fmt: skip


def coloured_dataset(*more):
    """Two drawn images and `more` records."""
    records = [
        coloured_record("both", (10, 5, 39, 24), (50, 30, 79, 54)),
        coloured_record("one", None, (20, 10, 59, 39)),
    ]
    return Dataset("colours", CLASSES, [*records, *more])
