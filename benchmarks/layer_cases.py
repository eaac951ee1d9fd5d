"""The layers that are measured alone: at which sizes, and what PyTorch calls the same."""

from dataclasses import dataclass
from math import prod

import numpy as np

CONV1_2, CONV2, INCEPTION, RES = (64, 600, 800), (96, 55, 55), (256, 28, 28), (256, 56, 56)
MODES = ("test", "train", "backward")
SOURCES = {"roi": 1, "softmax_loss": 1, "smooth_l1": 1, "lstm": 1, "rnn": 1, "embed": 0}


@dataclass(frozen=True)
class LayerCase:
    """A line of the table.

    Attributes:
        name: how the table calls it. text: the inside of `layer { ... }`.
        shapes: of the bottoms, without the batch. tops: how many.
        batches: the batch sizes it is measured at.
        kind: what PyTorch's side calls, a name in layer_peer.py; options: its arguments.
        modes: the passes there are.
    """

    name: str
    text: str
    shapes: tuple
    kind: str
    options: dict
    tops: int = 1
    batches: tuple = (1, 16)
    modes: tuple = MODES

    @property
    def sources(self):
        """How many of the bottoms, the first ones, have gradients."""
        return SOURCES.get(self.kind, len(self.shapes))

    def slopes(self, shape):
        """Values of a top's gradient. (Those of a norm's bottom are zero where all are equal.)"""
        return _normal(np.random.default_rng(2), shape)

    def inputs(self, batch):
        """Values of the bottoms; RoIs, labels, indices and where sequences begin among them."""
        rng = np.random.default_rng(1)
        if self.kind == "roi":
            height, width = (16 * n for n in self.shapes[0][1:])
            rois = np.zeros((300, 5), np.float32)
            corners = rng.uniform(0, 1, (2, 300, 2)) * (width, height)
            rois[:, 1:3], rois[:, 3:] = corners.min(axis=0), corners.max(axis=0)
            return [_normal(rng, (batch, *self.shapes[0])), rois]
        if self.kind == "softmax_loss":
            scores, labels = ((batch, *shape) for shape in self.shapes)
            return [_normal(rng, scores), rng.integers(0, scores[1], labels).astype(np.float32)]
        if self.kind == "embed":
            shape = (batch, *self.shapes[0])
            return [rng.integers(0, self.options["inputs"], shape).astype(np.float32)]
        if self.kind in ("lstm", "rnn"):  # whose first axis is time
            (steps, inputs), _ = self.shapes
            goes_on = np.ones((steps, batch), np.float32)
            goes_on[0] = 0
            return [_normal(rng, (steps, batch, inputs)), goes_on]
        return [_normal(rng, (batch, *shape)) for shape in self.shapes]


def _normal(rng, shape):
    return rng.standard_normal(prod(shape), dtype=np.float32).reshape(shape)


def sample(array):
    """Elements of an array or a tensor, 100,000 or a few more, to compare it by."""
    flat = np.asarray(array).reshape(-1)
    return flat[:: max(1, flat.size // 100_000)].copy()


def _pool(method, kernel, stride, pad, shape, **more):
    size = f"{kernel}x{kernel}/{stride}" + (f" pad {pad}" if pad else "")
    return LayerCase(
        f"Pooling {method} {size}",
        f'type: "Pooling" pooling_param {{ pool: {method} kernel_size: {kernel} '
        f"stride: {stride} pad: {pad} }}",
        (shape,), "max_pool" if method == "MAX" else "average_pool",
        {"kernel_size": kernel, "stride": stride, "padding": pad, "ceil_mode": True}, **more,
    )  # fmt: skip


def _simple(type_, kind, shape, parameters="", **options):
    return LayerCase(type_, f'type: "{type_}" {parameters}', (shape,), kind, options)


def _lrn(region, shape):
    return LayerCase(
        f"LRN {region.lower()}",
        f'type: "LRN" lrn_param {{ local_size: 5 alpha: 1e-4 beta: 0.75 norm_region: {region} }}',
        (shape,), region.lower(), {},
    )  # fmt: skip


_FILLERS = 'weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" }'


def _full(inputs, outputs):
    return LayerCase(
        f"InnerProduct {inputs}-{outputs}",
        f'type: "InnerProduct" inner_product_param {{ num_output: {outputs} {_FILLERS} }}',
        ((inputs,),), "linear", {}, batches=(1, 16, 128),  # 128 RoIs
    )  # fmt: skip


def _convolution(name, shape, outputs, kernel, stride=1, pad=0, group=1, type_="Convolution"):
    options = {"stride": stride, "padding": pad, "groups": group}
    return LayerCase(
        name,
        f'type: "{type_}" convolution_param {{ num_output: {outputs} kernel_size: {kernel} '
        f"stride: {stride} pad: {pad} group: {group} {_FILLERS} }}",
        (shape,), type_.lower(), options,
    )  # fmt: skip


def _recurrent(type_, steps, inputs, outputs):
    return LayerCase(
        f"{type_} {inputs}-{outputs}",
        f'type: "{type_}" recurrent_param {{ num_output: {outputs} {_FILLERS} }}',
        ((steps, inputs), (steps,)), type_.lower(), {"outputs": outputs},
    )  # fmt: skip


def _smooth_l1(sigma, shape, **more):
    return LayerCase(
        "SmoothL1Loss", f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}',
        (shape,) * 4, "smooth_l1", {"beta": sigma**-2}, **more,
    )  # fmt: skip


def _eltwise(operation):
    return LayerCase(
        f"Eltwise {operation}", f'type: "Eltwise" eltwise_param {{ operation: {operation} }}',
        (RES, RES), f"eltwise_{operation.lower()}", {},
    )  # fmt: skip


_GOOGLENET_3A = tuple((c, 28, 28) for c in (64, 128, 32, 32))

CASES = [
    _pool("MAX", 2, 2, 0, CONV1_2, batches=(1,)),
    _pool("MAX", 2, 2, 0, (64, 224, 224)),
    _pool("MAX", 2, 2, 0, (512, 38, 50), batches=(1,)),
    _pool("MAX", 3, 2, 0, CONV2),
    _pool("MAX", 3, 2, 0, (64, 112, 112)),
    _pool("MAX", 3, 1, 1, INCEPTION),
    _pool("MAX", 3, 1, 1, (832, 7, 7)),
    _pool("AVE", 7, 1, 0, (1024, 7, 7)),
    _pool("AVE", 5, 3, 0, (512, 14, 14)),
    _pool("AVE", 3, 2, 1, INCEPTION),
    LayerCase(
        "ROIPooling 7x7, 300 RoIs",
        'type: "ROIPooling" roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }',
        ((512, 38, 50),), "roi", {}, batches=(1,),
    ),
    LayerCase("ReLU", 'type: "ReLU"', (CONV1_2,), "relu", {}, batches=(1,)),
    _simple("ReLU", "relu", INCEPTION),
    _simple("PReLU", "prelu", INCEPTION),
    _simple("ELU", "elu", INCEPTION),
    _simple("Sigmoid", "sigmoid", INCEPTION),
    _simple("TanH", "tanh", INCEPTION),
    _lrn("ACROSS_CHANNELS", CONV2),
    _lrn("WITHIN_CHANNEL", CONV2),
    _simple("BatchNorm", "batch_norm", RES),
    _simple("Scale", "scale", RES, "scale_param { bias_term: true }"),
    _eltwise("SUM"),
    _eltwise("PROD"),
    _eltwise("MAX"),
    LayerCase("Concat", 'type: "Concat"', _GOOGLENET_3A, "concat", {}),
    LayerCase("Slice", 'type: "Slice"', (INCEPTION,), "slice", {}, tops=4),
    LayerCase("Split", 'type: "Split"', (INCEPTION,), "split", {}, tops=4),
    _simple("Dropout", "dropout", (4096,)),
    _simple("Dropout", "dropout", (512, 38, 50)),
    _full(4096, 4096),
    _full(25088, 4096),
    _simple("Softmax", "softmax", (1000,)),
    _simple("Softmax", "softmax", (21, 300, 400)),
    LayerCase("SoftmaxWithLoss", 'type: "SoftmaxWithLoss"', ((1000,), ()), "softmax_loss", {}),
    LayerCase(
        "SoftmaxWithLoss", 'type: "SoftmaxWithLoss"', ((21, 300, 400), (300, 400)),
        "softmax_loss", {},
    ),
    _smooth_l1(3, (36, 38, 50), batches=(1,)),
    _smooth_l1(1, (84,), batches=(128,)),
    _convolution("Convolution 1x1", RES, 64, 1),
    _convolution("Convolution 5x5, 2 groups", (96, 27, 27), 256, 5, pad=2, group=2),
    _convolution("Convolution 3x3 depthwise", (512, 14, 14), 512, 3, pad=1, group=512),
    _convolution("Deconvolution 4x4/2", (21, 34, 34), 21, 4, 2, type_="Deconvolution"),
    _convolution("Deconvolution 4x4/2 pad 1", (256, 14, 14), 128, 4, 2, 1, type_="Deconvolution"),
    _recurrent("LSTM", 20, 1000, 1000),
    _recurrent("RNN", 20, 1000, 1000),
    LayerCase(
        "Embed 8801-1000",
        f'type: "Embed" embed_param {{ input_dim: 8801 num_output: 1000 {_FILLERS} '
        "bias_term: false }",
        ((20,),), "embed", {"inputs": 8801},
    ),
    _simple("MVN", "mvn", INCEPTION),
    _simple("Reduction", "reduction", INCEPTION, "reduction_param { axis: 1 }"),
]  # fmt: skip

# Not a layer: what the solver does to VGG16's fc6. PyTorch's leaves the gradient as it is.
UPDATE = LayerCase(
    "SGD update", "", ((4096, 25088),), "sgd", {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
    batches=(1,), modes=("update",),
)  # fmt: skip
