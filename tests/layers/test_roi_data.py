"""RoIData: batches from a function, in a net."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from google.protobuf import text_format

from demitasse.engine.context import Context
from demitasse.engine.errors import DataError, LayerError
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.layers.roi_data import FAST_RCNN_TOPS, RPN_TOPS, RoIData, RoIDataSettings

PARAM_STR = """python_param { param_str: "'num_classes': 3" }"""


def rpn_batch(k):
    """Batch number k, of a size that changes."""
    data = np.full((1, 3, 8 + k % 3, 10), k, np.float32)
    gt_boxes = np.full((1 + k % 2, 5), k, np.float32)
    return {"data": data, "im_info": np.array([[8, 10, k]], np.float32), "gt_boxes": gt_boxes}


def fast_rcnn_batch(k):
    rows = 2 + k % 3
    shapes = {"data": (1, 3, 8, 8), "rois": (rows, 5), "labels": (rows,)}
    return {
        name: np.full(shapes.get(name, (rows, 12)), 10 * k + i, np.float32)
        for i, name in enumerate(FAST_RCNN_TOPS)
    }


def make_net(load=None, tops=RPN_TOPS, layer='type: "RoIData"', **settings):
    names = " ".join(f'top: "{top}"' for top in tops)
    text = f'layer {{ name: "input-data" {names} {layer} }}'
    settings = [RoIDataSettings(load, **settings)] if load else []
    param = text_format.Parse(text, caffe_pb2.NetParameter())
    return Net(param, caffe_pb2.TRAIN, context=Context(1, settings))


def check(net, batch, names=None):
    """The tops hold a batch; names[i] is what top i is called in it."""
    for top, name in zip(net.nodes[0].tops, names or net.blob_names, strict=True):
        np.testing.assert_array_equal(top.data, batch[name])


@pytest.mark.parametrize("settings", [{}, {"depth": 1}, {"depth": 4, "threads": 3}])
def test_pass_k_has_batch_k_of_whatever_shape(settings):
    net = make_net(rpn_batch, **settings)
    for k in range(7):
        net.forward()
        check(net, rpn_batch(k))
    net.seek(2)
    for k in (2, 3):
        net.forward()
        check(net, rpn_batch(k))


def test_tops_by_name_in_any_order():
    net = make_net(rpn_batch, ("gt_boxes", "data"))
    net.forward()
    check(net, rpn_batch(0))


@pytest.mark.parametrize(
    "tops, batch, names",
    [
        (("d", "i", "g"), rpn_batch, RPN_TOPS),
        (("d", "r", "l", "t", "in", "out"), fast_rcnn_batch, FAST_RCNN_TOPS),
        (("d", "r", "l", "t", "in"), fast_rcnn_batch, FAST_RCNN_TOPS[:5]),
        # Fast R-CNN's own
        (
            ("data", "rois", "labels", "bbox_targets", "bbox_loss_weights"),
            fast_rcnn_batch,
            FAST_RCNN_TOPS[:5],
        ),
        (("data", "rois", "labels"), fast_rcnn_batch, FAST_RCNN_TOPS[:3]),
    ],
)
def test_tops_of_other_names_are_in_py_faster_rcnn_s_order(tops, batch, names):
    net = make_net(batch, tops, f'type: "RoIData" {PARAM_STR}')
    for k in range(2):
        net.forward()
        check(net, batch(k), names)


def test_py_faster_rcnn_s_name_of_the_layer():
    layer = """type: "Python" python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer"
               param_str: "'num_classes': 3" }"""
    net = make_net(fast_rcnn_batch, FAST_RCNN_TOPS, layer)
    assert isinstance(net.nodes[0].layer, RoIData)
    net.forward()
    check(net, fast_rcnn_batch(0))


def test_a_net_without_a_source_has_shapes_but_no_images():
    net = make_net(tops=RPN_TOPS)
    assert [net.blobs[n].data.shape[1:] for n in RPN_TOPS] == [(3, 224, 224), (3,), (5,)]
    net.seek(5)
    with pytest.raises(LayerError, match=r"'input-data'.*images to train on.*train_net.py"):
        net.forward()
    assert net.nodes[0].layer.wait_seconds == 0
    net = make_net(tops=FAST_RCNN_TOPS, layer=f'type: "RoIData" {PARAM_STR}')
    assert net.blobs["bbox_targets"].data.shape == (1, 12)


def test_nothing_is_read_before_the_first_pass():
    read = []
    make_net(lambda k: read.append(k) or rpn_batch(k))
    time.sleep(0.05)
    assert read == []


def test_waiting_is_counted():
    def slow(k):
        time.sleep(0.1 if k < 2 else 0)
        return rpn_batch(k)

    net = make_net(slow)
    net.forward()
    first = net.nodes[0].layer.wait_seconds
    assert first >= 0.09
    net.forward()
    assert net.nodes[0].layer.wait_seconds > first
    time.sleep(0.1)
    before = net.nodes[0].layer.wait_seconds
    net.forward()  # has been read ahead
    assert net.nodes[0].layer.wait_seconds - before < 0.05


def test_errors_of_the_reader_are_raised_as_they_are():
    def load(k):
        if k == 1:
            raise DataError("image 'x'", "pixels", "none")
        return rpn_batch(k)

    net = make_net(load)
    net.forward()
    with pytest.raises(DataError, match="image 'x': expected pixels, found none"):
        net.forward()


def test_batches_that_are_not_what_the_tops_want():
    net = make_net(rpn_batch, FAST_RCNN_TOPS[:3])
    with pytest.raises(LayerError, match=r"rois, labels, found only data, im_info.*HAS_RPN"):
        net.forward()
    layer = """type: "RoIData" python_param { param_str: "'num_classes': 21" }"""
    net = make_net(fast_rcnn_batch, FAST_RCNN_TOPS, layer)
    with pytest.raises(LayerError, match="num_classes 3, as the images have, found 21"):
        net.forward()


@pytest.mark.parametrize(
    "tops, layer, message",
    [
        (("a", "b"), 'type: "RoIData"', "tops called data, im_info, gt_boxes"),
        (FAST_RCNN_TOPS, 'type: "RoIData"', "expected num_classes"),
        (
            RPN_TOPS,
            """type: "RoIData" python_param { param_str: "'num_clases': 3" }""",
            "Did you mean 'num_classes'",
        ),
    ],
)
def test_bad_definitions(tops, layer, message):
    with pytest.raises(LayerError, match=message):
        make_net(rpn_batch, tops, layer)


def test_threads_end_with_the_net():
    before = set(threading.enumerate())
    net = make_net(rpn_batch, depth=4, threads=2)
    net.forward()
    layer = weakref.ref(net.nodes[0].layer)
    assert len(set(threading.enumerate()) - before) == 2
    del net
    gc.collect()
    assert layer() is None
    assert not set(threading.enumerate()) - before
