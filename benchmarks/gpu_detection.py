"""Faster R-CNN on a GPU beside PyTorch: python -m benchmarks.gpu_detection [--math tf32] [--save]

VGG16 and ZF on one image of 600 x 1000 with 300 proposals: a test, its stages as in Table 5 of the
Faster R-CNN paper (conv, proposal, region-wise: 141 + 10 + 47 = 198 ms for VGG16 on a K40), and one
iteration of end-to-end training (2000 proposals, 128 RoIs, 15 objects, conv1 and conv2 frozen, SGD
with momentum). A test begins with the image in the host's memory and ends with scores and boxes
there. PyTorch's side is benchmarks/torch_faster_rcnn.py, in the same process with the same weights.
"""

import statistics
import sys
import time

import numpy as np

from . import gpu_common as common

NAMES = ("demitasse", "torch NCHW", "torch NHWC")
HEIGHT, WIDTH = 600, 1000
STAGES = ("conv", "proposal", "region-wise")


def measure(o, report, torch):
    """Print the tables."""
    if torch is not None:
        try:
            import torchvision  # noqa: F401
        except ImportError as error:
            report(f"without PyTorch: torchvision: {error}")
            torch = None
    report()
    report(common.heads("", NAMES))
    for network in ("vgg16", "zf"):
        for work in (test, train):
            label = f"Faster R-CNN {network}, {work.__name__}"
            if o.only.lower() in label.lower():
                common.attempt(
                    report, label,
                    lambda w=work, n=network, text=label: w(o, report, torch, n, text),
                )  # fmt: skip
                _free(torch)


def _free(torch):
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    if torch:
        torch.cuda.empty_cache()


def image():
    """Like one with its mean subtracted: (1, 3, H, W)."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((1, 3, HEIGHT, WIDTH), dtype=np.float32) * 50


def objects():
    """(15, 5) boxes of 40 to 300 pixels a side, with classes."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, (WIDTH - 301, HEIGHT - 301), (15, 2))
    other = corner + rng.uniform(40, 300, (15, 2))
    return np.c_[corner, other, rng.integers(1, 21, 15)].astype(np.float32)


def fill_all(net):
    """Give every parameter its numbers; returns them by layer."""
    from cases import fill

    kinds = {node.name: node.type for node in net.nodes}
    arrays = {}
    for name, blobs in net.params.items():
        for k, blob in enumerate(blobs):
            fill(name, kinds[name], k, blob.data)
            if name in ("rpn_bbox_pred", "bbox_pred"):
                blob.data[...] *= 0.05  # boxes that stay boxes
            if name == "cls_score":
                blob.data[...] *= 0.1
        arrays[name] = [np.array(blob.data) for blob in blobs]
    return arrays


def definition(network):
    from demitasse import prototxt

    return prototxt.path(network, "faster_rcnn.prototxt")


# ---- testing


def test(o, report, torch, network, label):
    """One image, from the host to the host."""
    from demitasse.detection import test as testing
    from demitasse.detection.config import Config
    from demitasse.detection.opening import open_net

    cfg = Config()
    net = open_net(definition(network), None, cfg)
    arrays = fill_all(net)
    pixels = image()
    prepared = testing.Prepared((HEIGHT, WIDTH), [(pixels[0], 1.0)])
    sides = {NAMES[0]: lambda: testing.im_detect(net, prepared, cfg)}
    peers = {}
    for name, last in zip(NAMES[1:], (False, True)):
        if torch:
            peers[name] = peer = detector(torch, network, arrays, last)
            sides[name] = lambda peer=peer: torch_test(o, torch, peer, pixels)
    report(f"{label:44}" + common.cells(common.take_turns(sides, 4 * o.seconds), NAMES))
    report(f"  {len(testing.im_detect(net, prepared, cfg)[0])} regions")
    stages = {NAMES[0]: our_stages(net)}
    for name, peer in peers.items():
        stages[name] = torch_stages(o, torch, peer, pixels)
    for k, stage in enumerate(STAGES):
        taken = {name: times[k] for name, times in stages.items()}
        report(f"{'  ' + stage:44}" + common.cells(taken, NAMES))


def detector(torch, network, arrays, last, frozen=None):
    from torch_faster_rcnn import FasterRCNN

    return FasterRCNN(definition(network), arrays, last, frozen)


def torch_test(o, torch, peer, pixels):
    with torch.inference_mode(), common.autocast(torch, o.math):
        shown = torch.from_numpy(pixels).cuda(non_blocking=True)
        found = peer.detect(shown.contiguous(memory_format=peer.layout))
        return [part.cpu() for part in found]


def our_stages(net, repeat=20):
    """Milliseconds of the three stages, each of them waited for; proposal begins with softmax."""
    names = [node.name for node in net.nodes]
    kinds = [node.type for node in net.nodes]
    proposal = names.index("rpn_cls_score_reshape")
    pooling = kinds.index("ROIPooling")
    parts = (0, proposal - 1), (proposal, pooling - 1), (pooling, len(names) - 1)
    times = [[] for _ in parts]
    for _ in range(repeat + 2):
        for (first, last), row in zip(parts, times):
            common.synchronize()
            start = time.perf_counter()
            net.forward(first, last)
            common.synchronize()
            row.append(1e3 * (time.perf_counter() - start))
    return [row[2:] for row in times]


def torch_stages(o, torch, peer, pixels, repeat=20):
    """The same of PyTorch's."""
    import torch_faster_rcnn as theirs

    times = [[] for _ in STAGES]
    shown = torch.from_numpy(pixels).cuda().contiguous(memory_format=peer.layout)

    def lap(row, work):
        common.synchronize()
        start = time.perf_counter()
        result = work()
        common.synchronize()
        row.append(1e3 * (time.perf_counter() - start))
        return result

    with torch.inference_mode(), common.autocast(torch, o.math):
        for _ in range(repeat + 2):
            x, scores, deltas = lap(times[0], lambda: peer.features(shown))
            rois = lap(times[1], lambda s=scores, d=deltas: peer.proposals(s, d, theirs.TEST))
            lap(times[2], lambda x=x, r=rois: peer.regions(x, r)[0].float().softmax(1))
    return [row[2:] for row in times]


# ---- training


def train(o, report, torch, network, label):
    """One iteration of end-to-end training."""
    frozen = [f"conv{i}_{j}" for i in (1, 2) for j in (1, 2)] if network == "vgg16" else []
    solver = make_solver(network, frozen)
    arrays = fill_all(solver.net)
    sides = {NAMES[0]: lambda: solver.step(1)}
    for name, last in zip(NAMES[1:], (False, True)):
        if torch:
            peer = detector(torch, network, arrays, last, frozen)
            sides[name] = torch_step(o, torch, peer)
    taken = common.take_turns(sides, 4 * o.seconds)
    report(f"{label:44}" + common.cells(taken, NAMES))
    report(f"  loss {solver.loss:.3f}; {1e3 / statistics.median(taken[NAMES[0]]):.1f} iterations/s")


def make_solver(network, frozen):
    """A Solver that sees the same image again and again."""
    from demitasse.detection import adapt
    from demitasse.detection.config import Config, layer_settings
    from demitasse.engine.proto import caffe_pb2
    from demitasse.engine.prototxt import parse_text, read_net
    from demitasse.layers.roi_data import RoIDataSettings
    from demitasse.solvers import Solver

    batch = {
        "data": image(), "im_info": np.array([[HEIGHT, WIDTH, 1]], np.float32),
        "gt_boxes": objects(),
    }  # fmt: skip
    param = parse_text(
        'base_lr: 1e-6 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 random_seed: 1 '
        "snapshot_after_train: false max_iter: 1000000", caffe_pb2.SolverParameter,
    )  # fmt: skip
    param.net_param.CopyFrom(adapt.freeze(read_net(definition(network)), frozen))
    param.train_state.stage.extend(["rpn", "fast_rcnn"])
    settings = [*layer_settings(Config()), RoIDataSettings(load=lambda k: batch)]
    return Solver(param, settings=settings, keep="minimal")


def torch_step(o, torch, peer):
    pixels = torch.from_numpy(image()).cuda().contiguous(memory_format=peer.layout)
    boxes = torch.from_numpy(objects()).cuda()
    learning = [w for w in peer.weights if w.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-6, momentum=0.9, weight_decay=0.0005)
    scaler = torch.amp.GradScaler("cuda", enabled=o.math == "float16")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with common.autocast(torch, o.math):
            loss = peer.loss(pixels, boxes)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


if __name__ == "__main__":
    sys.exit(common.main("gpu_detection", __doc__, measure))
