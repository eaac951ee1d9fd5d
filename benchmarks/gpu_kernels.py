"""Every GPU kernel beside PyTorch's: python -m benchmarks.gpu_kernels [--math tf32] [--save]

VGG16's convolutions at 600x1000 (forward with bias and ReLU, gradients of data and weights), the
matrix products of its region head, the layers of benchmarks/layer_cases.py, updates of its weights,
non-maximum suppression and RoI pooling beside torchvision's; then the order in memory that cuDNN is
given beside the other one, and what a new image size costs, over 50 shapes. Results are compared
before times are.
"""

import statistics
import sys
import time

import numpy as np

from . import gpu_common as common

NAMES = ("demitasse", "torch NCHW", "torch NHWC")
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}


def measure(o, report, torch):
    """Print all tables."""
    for title, cases in (
        ("convolutions of VGG16, 600x1000", convolutions),
        ("matrix products", products),
        ("layers, forward in training", layers),
        ("updates of 4096 x 25088 weights", updates),
        ("boxes", boxes),
    ):
        report()
        report(common.heads(title, NAMES))
        for label, make in cases(o, torch):
            if o.only.lower() in label.lower():
                common.attempt(
                    report, label, lambda label=label, make=make: line(o, report, label, make)
                )
    if o.only.lower() in "order in memory":
        orders(o, report)
    if o.only.lower() in "new image sizes":
        report()
        common.attempt(report, "new image sizes", lambda: new_sizes(report))


def line(o, report, label, make):
    """Compare and time one case."""
    sides = make()
    results = {name: side() for name, side in sides.items()}
    ours = results.pop(NAMES[0])
    for name, theirs in results.items():
        if ours is not None and theirs is not None:
            error = difference(ours, theirs)
            if not error <= TOLERANCE[o.math]:
                report(f"{label:44}  {name} differs by {error:.1e} of the largest")
    report(f"{label:44}" + common.cells(common.take_turns(sides, o.seconds), NAMES))


def difference(ours, theirs):
    """Of a CuPy array and a tensor, relative to the largest element."""
    a, b = ours.get().astype(np.float64), theirs.detach().float().cpu().numpy()
    return abs(a - b.reshape(a.shape)).max() / max(abs(b).max(), 1e-30)


# ---- convolution and products


def convolutions(o, torch):
    """(label, function that makes the sides) for each layer and pass."""
    from convolution import LAYERS

    for name, inputs, outputs, pooled, _ in LAYERS:
        for kind in ("forward", "data", "weight"):
            if kind == "data" and inputs == 3:
                continue
            size = tuple(-(-n // pooled) for n in (600, 1000))
            yield (
                f"{name} {kind}",
                lambda i=inputs, u=outputs, s=size, k=kind: convolution(o, torch, i, u, s, k),
            )


def convolution(o, torch, inputs, outputs, size, kind):
    """The sides of one convolution."""
    import cupy

    from demitasse.engine.device import default_device
    from demitasse.engine.kernels.geometry import ConvGeometry

    rng, kernels = np.random.default_rng(1), default_device().kernels.convolution
    x, weight, bias, dy = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in ((1, inputs, *size), (outputs, inputs, 3, 3), (outputs,), (1, outputs, *size))
    )
    weight /= 3 * inputs**0.5
    one = (1, 1)
    g = ConvGeometry(1, inputs, outputs, size, size, (3, 3), one, one, one)
    x_, w_, b_, dy_ = (cupy.asarray(a) for a in (x, weight, bias, dy))
    y_, dx_, dw_ = (cupy.zeros_like(a) for a in (dy_, x_, w_))
    first = {"dw": True}

    def ours():
        if kind == "forward":
            kernels.forward(x_, w_, b_, y_, g, relu=True)
            return y_
        if kind == "data":
            kernels.backward_data(dy_, w_, dx_, g)
            return dx_
        kernels.backward_weight(x_, dy_, dw_, g)
        return dw_ if first.pop("dw", None) else None  # it is only added to

    sides = {NAMES[0]: ours}
    for name, last in zip(NAMES[1:], (False, True)):
        if torch:
            sides[name] = torch_convolution(o, torch, (x, weight, bias, dy), kind, last)
    return sides


def torch_convolution(o, torch, arrays, kind, last):
    layout = torch.channels_last if last else torch.contiguous_format
    x, weight, bias, dy = (torch.from_numpy(a).cuda() for a in arrays)
    x, weight, dy = (a.contiguous(memory_format=layout) for a in (x, weight, dy))
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(o.math)
    if half:
        x, weight, bias, dy = (a.to(half) for a in (x, weight, bias, dy))
    one, none = [1, 1], [0, 0]

    def forward():
        with torch.inference_mode():
            y = torch.nn.functional.conv2d(x, weight, bias, padding=1)
            return torch.nn.functional.relu_(y)

    def backward():
        mask = [kind == "data", kind == "weight", False]
        gradients = torch.ops.aten.convolution_backward(
            dy, x, weight, [len(bias)], one, one, one, False, none, 1, mask
        )
        return gradients[0 if kind == "data" else 1]

    return forward if kind == "forward" else backward


def products(o, torch):
    """Those of VGG16's region head on 300 RoIs."""
    for n, k in ((4096, 25088), (4096, 4096), (84, 4096)):
        yield f"300 x {k} by {k} x {n}", lambda n=n, k=k: product(o, torch, 300, n, k)


def product(o, torch, m, n, k):
    import cupy

    from demitasse.engine.device import default_device

    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(s, dtype=np.float32) / k**0.5 for s in ((m, k), (n, k)))
    a_, b_, out = cupy.asarray(a), cupy.asarray(b), cupy.empty((m, n), np.float32)
    matmul = default_device().kernels.blas.matmul

    def ours():
        matmul(a_, b_.T, out)
        return out

    sides = {NAMES[0]: ours}
    if torch:
        ta, tb = torch.from_numpy(a).cuda(), torch.from_numpy(b).cuda()

        def theirs():
            with torch.inference_mode(), common.autocast(torch, o.math):
                return torch.nn.functional.linear(ta, tb)

        sides[NAMES[1]] = theirs
    return sides


# ---- layers


def layers(o, torch):
    """Those of layer_cases.py, forward and backward, at batch 1."""
    from layer_cases import CASES

    for case in CASES:
        for mode in ("train", "backward"):
            label = f"{case.name} {'x'.join(map(str, case.shapes[0]))} {mode}"
            yield label, lambda case=case, mode=mode: layer_sides(torch, case, mode)


def layer_sides(torch, case, mode):
    from demitasse.engine.device import default_device
    from demitasse.engine.gradient_check import make_layer

    text = case.text + "".join(f' top: "t{k}"' for k in range(case.tops))
    layer, bottom, top = make_layer(text, case.inputs(1), dtype="float32", device=default_device())
    arrays = [blob.data.copy() for blob in layer.blobs]
    layer.forward(bottom, top)
    wanted = [k < case.sources for k in range(len(bottom))]
    if mode == "backward":
        for blob in (*bottom, *top, *layer.blobs):
            blob.grad[...] = 1

    def ours():
        if mode == "backward":
            layer.backward(top, wanted, bottom)
        else:
            layer.forward(bottom, top)

    sides = {NAMES[0]: ours}
    theirs = torch and torch_layer(torch, case, mode, arrays)
    if theirs:
        sides[NAMES[1]] = theirs
    return sides


def torch_layer(torch, case, mode, arrays):
    """PyTorch's pass, or None if it has none."""
    from layer_peer import operation

    if case.kind == "roi":
        return torch_roi_pool(torch, case, mode)
    with torch.device("cuda"):
        function, weights = operation(torch, case, True, arrays)
    if function is None:
        return None
    inputs = [torch.from_numpy(x).cuda() for x in case.inputs(1)]
    wanted = [*inputs[: case.sources], *weights]
    return torch_pass(torch, lambda: function(*inputs), wanted, mode)


def torch_pass(torch, function, wanted, mode):
    for x in wanted:
        x.requires_grad_(True)
    if mode == "train":
        return lambda: _none(function())
    y = function()
    ys = y if isinstance(y, (tuple, list)) else [y]
    dys = [torch.ones_like(y) for y in ys]
    return lambda: _none(torch.autograd.grad(ys, wanted, dys, retain_graph=True))


def _none(_):
    return None  # results are compared in the tests


def torch_roi_pool(torch, case, mode):
    from torchvision.ops import roi_pool

    x, rois = (torch.from_numpy(a).cuda() for a in case.inputs(1))
    return torch_pass(torch, lambda: roi_pool(x, rois, 7, 1 / 16), [x], mode)


# ---- boxes


def boxes(o, torch):
    """Non-maximum suppression: 6000 boxes of an RPN to 300, 12000 to 2000."""
    for before, after in ((6000, 300), (12000, 2000)):
        yield f"NMS {before} to {after}", lambda b=before, a=after: suppression(torch, b, a)


def suppression(torch, before, after):
    import cupy
    from detection_layers import boxes_of_an_rpn

    from demitasse.engine.device import default_device

    rng = np.random.default_rng(3)
    found = boxes_of_an_rpn(rng).astype(np.float32)
    found = found[rng.permutation(len(found))[:before]]
    boxes_ = cupy.asarray(np.ascontiguousarray(found.T))
    areas = (boxes_[2] - boxes_[0] + 1) * (boxes_[3] - boxes_[1] + 1)
    keep = default_device().kernels.nms.keep
    sides = {NAMES[0]: lambda: _none(keep(boxes_, areas, 0.7, after))}
    if torch:
        from torchvision.ops import nms

        theirs = torch.from_numpy(found).cuda()
        scores = torch.linspace(1, 0, len(found), device="cuda")
        sides[NAMES[1]] = lambda: _none(nms(theirs, scores, 0.7)[:after])
    return sides


# ---- updates


def updates(o, torch):
    """SGD with momentum, and Adam, with weight decay; PyTorch's are its fused ones."""
    for rule in ("sgd", "adam"):
        yield rule, lambda rule=rule: update(torch, rule)


def update(torch, rule):
    import cupy

    from demitasse.engine.device import default_device

    shape, one = (4096, 25088), np.float32
    rng = cupy.random.default_rng(5)
    arrays = [rng.standard_normal(shape, dtype=one).reshape(-1) for _ in range(3)]
    arrays[2] *= arrays[2]  # Adam's squares
    constants = (0.01, 0.9)
    if rule == "adam":
        arrays.append(arrays[2].copy())
        constants = (1e-4, 0.9, 0.999, 1e-8)
    kernel = getattr(default_device().kernels.update, rule)
    numbers = (one(1), one(1), one(5e-4), False, *map(one, constants))
    sides = {NAMES[0]: lambda: _none(kernel(*arrays, *numbers))}
    if torch:
        weights = torch.nn.Parameter(torch.randn(shape, device="cuda"))
        weights.grad = torch.randn(shape, device="cuda")
        options = {"weight_decay": 5e-4, "fused": True}
        if rule == "sgd":
            optimizer = torch.optim.SGD([weights], 0.01, momentum=0.9, **options)
        else:
            optimizer = torch.optim.Adam([weights], 1e-4, **options)
        sides[NAMES[1]] = lambda: _none(optimizer.step())
    return sides


# ---- order in memory


def orders(o, report):
    """Convolutions with images in the order that is chosen, and with channels first."""
    from demitasse.engine.kernels.cuda import by_cudnn

    names = ("chosen", "channels first")
    chosen, first = by_cudnn.layout_for, lambda geometry, dtype, exact: ("first", geometry)

    def with_layout(layout, run):
        by_cudnn.layout_for = layout
        try:
            return run()
        finally:
            by_cudnn.layout_for = chosen

    report()
    report(common.heads("order in memory", names))
    for label, make in convolutions(o, None):
        run = make()[NAMES[0]]
        sides = {
            name: lambda layout=layout, run=run: with_layout(layout, run)
            for name, layout in zip(names, (chosen, first))
        }
        common.attempt(
            report, label,
            lambda label=label, sides=sides: report(
                f"{label:44}" + common.cells(common.take_turns(sides, o.seconds), names)
            ),
        )  # fmt: skip


# ---- new sizes


def new_sizes(report, count=50):
    """What the first pass of VGG16's trunk over an image of a new size costs beyond the second."""
    from cases import Case
    from ours import Demitasse

    rng = np.random.default_rng(4)
    side = Demitasse(Case("vgg16", last="conv5_3", keep="minimal"), 1)
    net = side.net
    extra = []
    for _ in range(count):
        size = (600, int(rng.integers(600, 1001)))
        size = size if rng.random() < 0.75 else size[::-1]
        net.blobs["data"].reshape(1, 3, *size)
        times = []
        for _ in range(2):
            common.synchronize()
            start = time.perf_counter()
            net.forward()
            common.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
        extra.append(times[0] - times[1])
    later = extra[10:]
    report(
        f"a new image size, over {count}: the first {extra[0]:.1f} ms, then a median of "
        f"{statistics.median(extra[1:]):.2f} ms; after ten sizes a median of "
        f"{statistics.median(later):.2f} ms, at most {max(later):.2f} ms, "
        f"{sum(t > 5 for t in later)} of {len(later)} above 5 ms"
    )


if __name__ == "__main__":
    sys.exit(common.main("gpu_kernels", __doc__, measure))
