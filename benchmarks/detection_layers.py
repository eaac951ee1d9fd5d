"""Times of the layers between the networks of Faster R-CNN, at VGG16's size.

    python benchmarks/detection_layers.py [--save]

An image of 600 x 1000 with 15 objects: a feature map of 38 x 63, 9 anchors at each position,
21 classes. Prints the minimum and the median of repetitions in milliseconds:
- non-maximum suppression of 12000 boxes to 2000, on one core: boxes made of anchors and random
  deltas, boxes anywhere, and the worst case, where every box is held against 1999 kept before;
- the layers AnchorTarget, Proposal (as in training and in testing) and ProposalTarget, forward.

--save also writes what is printed to benchmarks/results/detection_layers.txt. The load of the
machine is printed beside: take figures only where nothing else runs.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from demitasse.boxes.anchors import generate_anchors, shift_anchors
from demitasse.boxes.nms import nms
from demitasse.boxes.transform import bbox_transform_inv, clip_boxes
from demitasse.engine.context import Context
from demitasse.engine.net import Net
from demitasse.engine.phase import TEST, TRAIN
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

HEIGHT, WIDTH = 600, 1000
MAP = (38, 63)
ANCHORS = 9
OBJECTS = 15
BEFORE, AFTER = 12000, 2000  # suppression, in training


def times_ms(function, repeat=50):
    """Minimum and median time of `function` in milliseconds, after two calls to warm up."""
    for _ in range(2):
        function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times), statistics.median(times)


def scored(boxes, rng):
    """The boxes, at most `BEFORE` of them, with random scores: (N, 5), the best first."""
    scores = np.sort(rng.uniform(size=len(boxes)))[::-1]
    order = rng.permutation(len(boxes))
    return np.c_[boxes[order], scores][:BEFORE].astype(np.float32)


def boxes_of_an_rpn(rng):
    """All anchors of the map moved by random deltas, clipped to the image."""
    anchors = shift_anchors(generate_anchors(), *MAP, 16)
    deltas = rng.normal(0, 0.1, anchors.shape).astype(np.float32)
    return clip_boxes(bbox_transform_inv(anchors, deltas), (HEIGHT, WIDTH))


def boxes_anywhere(rng):
    """Boxes of up to 200 pixels a side, evenly spread."""
    corner = rng.uniform(0, (WIDTH - 200, HEIGHT - 200), (BEFORE, 2))
    return np.concatenate([corner, corner + rng.uniform(0, 200, (BEFORE, 2))], axis=1)


def worst_case():
    """1999 boxes side by side, then the last of them again and again."""
    place = np.arange(AFTER - 1)
    x, y = place % 50 * 20, place // 50 * 20
    boxes = np.stack([x, y, x + 15, y + 15], axis=1)
    boxes = np.concatenate([boxes, np.tile(boxes[-1], (BEFORE - len(boxes), 1))])
    return np.c_[boxes, np.linspace(1, 0, BEFORE)].astype(np.float32)


def layer_net(kind, param_str, bottoms, tops, phase=TRAIN):
    """A net of Input blobs that hold `bottoms` and one layer."""
    names = [f"in{k}" for k in range(len(bottoms))]
    net = caffe_pb2.NetParameter()
    for name, values in zip(names, bottoms):
        layer = net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=values.shape)
    param = f'name: "layer" type: "{kind}" python_param {{ param_str: "{param_str}" }}'
    layer = parse_text(param, caffe_pb2.LayerParameter)
    layer.bottom.extend(names)
    layer.top.extend(f"top{k}" for k in range(tops))
    net.layer.append(layer)
    net = Net(net, phase, context=Context(1))
    for name, values in zip(names, bottoms):
        net.blobs[name].set_data(values)
    return net


def objects(rng):
    """Objects of 40 to 300 pixels a side with a class each: (G, 5)."""
    corner = rng.uniform(0, (WIDTH - 301, HEIGHT - 301), (OBJECTS, 2))
    other = corner + rng.uniform(40, 300, (OBJECTS, 2))
    return np.c_[corner, other, rng.integers(1, 21, OBJECTS)]


def cases():
    """(what, function to time, function that says what came out) for each line."""
    rng = np.random.default_rng(0)
    for name, dets in (
        ("boxes of an RPN", scored(boxes_of_an_rpn(rng), rng)),
        ("boxes anywhere", scored(boxes_anywhere(rng), rng)),
        ("worst case", worst_case()),
    ):
        yield (
            f"NMS of {len(dets)}, {name}",
            lambda d=dets: nms(d, 0.7, AFTER), lambda d=dets: f"{len(nms(d, 0.7, AFTER))} kept",
        )  # fmt: skip

    info, boxes = np.array([[HEIGHT, WIDTH, 1.6]]), objects(rng)
    stride = "feat_stride: 16"
    shape = (1, 2 * ANCHORS, *MAP)
    net = layer_net("AnchorTarget", stride, [np.zeros(shape), boxes, info], 4)
    yield "AnchorTarget", net.forward, lambda n=net: f"{np.sum(n.blobs['top0'].data >= 0)} anchors"

    scores, deltas = rng.uniform(size=shape), rng.normal(0, 0.1, (1, 4 * ANCHORS, *MAP))
    for name, phase in (("in training", TRAIN), ("in testing", TEST)):
        net = layer_net("Proposal", stride, [scores, deltas, info], 1, phase)
        rois = net.blobs["top0"]
        yield f"Proposal, {name}", net.forward, lambda r=rois: f"{len(r.data)} RoIs"
        if phase == TRAIN:
            net.forward()
            proposals = rois.data.copy()

    net = layer_net("ProposalTarget", "num_classes: 21", [proposals, boxes], 5)
    yield "ProposalTarget", net.forward, lambda n=net: f"{len(n.blobs['top0'].data)} RoIs"


def report():
    """The lines to print."""
    yield (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}"
    )
    for what, function, result in cases():
        least, median = times_ms(function)
        yield f"{what:30} min {least:6.2f} ms, median {median:6.2f} ms: {result()}"
    yield f"load: {os.getloadavg()[0]:.2f}"


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results")
    save = parser.parse_args().save
    lines = []
    for line in report():
        print(line, flush=True)
        lines.append(line)
    if save:
        path = Path(__file__).parent / "results" / "detection_layers.txt"
        path.write_text("\n".join([time.strftime("%Y-%m-%d"), *lines]) + "\n")


if __name__ == "__main__":
    main()
