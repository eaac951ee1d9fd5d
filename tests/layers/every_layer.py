"""A case or more of every layer that computes, for tests of what all layers must do alike."""

from dataclasses import dataclass

import numpy as np

FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" }'
S = (3, 4, 5, 6)
V = (6, 4)


@dataclass
class Case:
    """A layer: the inside of `layer { }`, and what its bottoms are.

    bottoms: (kind, shape) pairs; a kind is a function of a random generator and a shape.
    differentiable: indices of the bottoms that have a gradient.
    constant: indices of bottoms whose gradient may be asked for and is zero, or left alone.
    """

    text: str
    bottoms: list
    differentiable: tuple = (0,)
    constant: tuple = ()
    tops: int | None = None

    def arrays(self, seed=0, batch=None):
        """Values for the bottoms, with another batch size if one is given."""
        rng = np.random.default_rng(seed)
        arrays = []
        for kind, shape in self.bottoms:
            if batch is not None and kind is not matrix:
                shape = (batch, *shape[1:])
            arrays.append(kind(rng, shape))
        return arrays


def normal(rng, shape):
    """Values of both signs, none near a kink."""
    return rng.choice([-1, 1], shape) * rng.uniform(0.1, 2, shape)


def positive(rng, shape):
    """Values above 0."""
    return rng.uniform(0.1, 1, shape)


def labels(rng, shape):
    """Indices of 4 classes, as floats."""
    return rng.integers(0, 4, shape)


def indices(rng, shape):
    """Indices of 3 items."""
    return rng.integers(0, 3, shape)


def bits(rng, shape):
    """0 or 1."""
    return rng.integers(0, 2, shape)


def matrix(rng, shape):
    """Positive values whose first dimension is not the batch."""
    return positive(rng, shape)


def rois(rng, shape):
    """Image 0 and corners (R, 5)."""
    corners = np.sort(rng.uniform(0, 8, (*shape[:1], 2, 2)), axis=1).reshape(-1, 4)
    return np.concatenate([np.zeros((len(corners), 1)), corners], axis=1)


def _param(type_, name, options):
    return f'type: "{type_}" {name}_param {{ {options} }}'


def _conv(options, type_="Convolution"):
    return Case(_param(type_, "convolution", f"num_output: 4 {options} {FILLERS}"), [(normal, S)])


def _simple(type_, options="", name=None, kind=normal, shape=S):
    text = f'type: "{type_}"' if name is None else _param(type_, name, options)
    return Case(text, [(kind, shape)])


def _many(type_, name, options, count, shape=S):
    return Case(_param(type_, name, options), [(normal, shape)] * count, tuple(range(count)))


def _recurrent(type_):
    options = f"num_output: 3 {FILLERS}"
    x = [(normal, (4, 2, 5)), (bits, (4, 2))]
    static = Case(_param(type_, "recurrent", options), [*x, (normal, (2, 3))], (0, 2))
    states = [(normal, (1, 2, 3))] * (2 if type_ == "LSTM" else 1)
    exposed = Case(
        _param(type_, "recurrent", f"expose_hidden: true {options}"), x + states,
        constant=tuple(range(2, 2 + len(states))), tops=1 + len(states),
    )  # fmt: skip
    return {type_: static, f"{type_} exposed": exposed}


ITEMS = (normal, V)
LABELS = (labels, V[:1])
CASES = {
    "Convolution": _conv("kernel_size: 3 pad: 1 group: 2"),
    "Convolution 1x1": _conv("kernel_size: 1"),
    "Deconvolution": _conv("kernel_size: 3 stride: 2", "Deconvolution"),
    "Im2col": _simple("Im2col", "kernel_size: 3 pad: 1", "convolution"),
    "InnerProduct": _simple("InnerProduct", f"num_output: 3 {FILLERS}", "inner_product"),
    "InnerProduct transpose": _simple(
        "InnerProduct", f"num_output: 3 transpose: true {FILLERS}", "inner_product"
    ),
    "Pooling MAX": _simple("Pooling", "kernel_size: 3 stride: 2", "pooling"),
    "Pooling AVE": _simple("Pooling", "pool: AVE kernel_size: 3 stride: 2 pad: 1", "pooling"),
    "Pooling STOCHASTIC": _simple(
        "Pooling", "pool: STOCHASTIC kernel_size: 2", "pooling", kind=positive
    ),
    "SPP": _simple("SPP", "pyramid_height: 2", "spp"),
    "LRN": _simple("LRN", "local_size: 3", "lrn"),
    "LRN within": _simple("LRN", "local_size: 3 norm_region: WITHIN_CHANNEL", "lrn"),
    "BatchNorm": _simple("BatchNorm"),
    "BatchNorm global": _simple("BatchNorm", "use_global_stats: true", "batch_norm"),
    "MVN": _simple("MVN"),
    "MVN across": _simple("MVN", "across_channels: true normalize_variance: false", "mvn"),
    "Scale": _simple("Scale", 'bias_term: true filler { type: "gaussian" }', "scale"),
    "Scale by a bottom": _many("Scale", "scale", "axis: 0", 2),
    "Bias": _simple("Bias", 'filler { type: "gaussian" }', "bias"),
    "Bias by a bottom": _many("Bias", "bias", "axis: 0", 2),
    "Dropout": _simple("Dropout"),
    "Dropout unscaled": _simple("Dropout", "scale_train: false", "dropout"),
    "Softmax": _simple("Softmax"),
    "SoftmaxWithLoss": Case(
        'type: "SoftmaxWithLoss" loss_param { ignore_label: 2 }', [ITEMS, LABELS]
    ),
    "SigmoidCrossEntropyLoss": Case(
        'type: "SigmoidCrossEntropyLoss" loss_param { ignore_label: 1 }', [ITEMS, (bits, V)]
    ),
    "EuclideanLoss": Case('type: "EuclideanLoss"', [ITEMS] * 2, (0, 1)),
    "HingeLoss": Case('type: "HingeLoss"', [ITEMS, LABELS]),
    "HingeLoss L2": Case('type: "HingeLoss" hinge_loss_param { norm: L2 }', [ITEMS, LABELS]),
    "ContrastiveLoss": Case(
        'type: "ContrastiveLoss" contrastive_loss_param { margin: 5 }',
        [ITEMS, ITEMS, (bits, V[:1])], (0, 1), (2,),
    ),
    "InfogainLoss": Case('type: "InfogainLoss"', [ITEMS, LABELS, (matrix, (4, 4))]),
    "MultinomialLogisticLoss": Case(
        'type: "MultinomialLogisticLoss"', [(positive, V), LABELS]
    ),
    "SmoothL1Loss": Case('type: "SmoothL1Loss"', [ITEMS] * 4, (0, 1), (2, 3)),
    "Eltwise SUM": _many("Eltwise", "eltwise", "coeff: 0.1 coeff: 1 coeff: -2", 3),
    "Eltwise PROD": _many("Eltwise", "eltwise", "operation: PROD", 3),
    "Eltwise PROD unstable": _many(
        "Eltwise", "eltwise", "operation: PROD stable_prod_grad: false", 3
    ),
    "Eltwise MAX": _many("Eltwise", "eltwise", "operation: MAX", 3),
    "Slice": Case('type: "Slice" top: "a" top: "b"', [(normal, S)]),
    "Concat": _many("Concat", "concat", "", 3),
    "Crop": Case(
        'type: "Crop" crop_param { offset: 1 }', [(normal, S), (normal, (3, 4, 2, 3))], (0,), (1,)
    ),
    "Tile": _simple("Tile", "tiles: 3", "tile"),
    "Split": Case('type: "Split" top: "a" top: "b" top: "c"', [(normal, S)]),
    "Reduction SUM": _simple("Reduction", "axis: 2 coeff: 0.3", "reduction"),
    "Reduction ASUM": _simple("Reduction", "axis: 1 operation: ASUM", "reduction"),
    "Reduction SUMSQ": _simple("Reduction", "axis: 1 operation: SUMSQ", "reduction"),
    "Reduction MEAN": _simple("Reduction", "axis: 1 operation: MEAN", "reduction"),
    "BatchReindex": Case('type: "BatchReindex"', [(normal, S), (indices, (7,))]),
    "Filter": Case('type: "Filter" top: "y"', [(normal, S), (bits, (3,))]),
    "Embed": Case(
        _param("Embed", "embed", f"input_dim: 4 num_output: 3 {FILLERS}"), [(labels, (3, 2))], ()
    ),
    **_recurrent("LSTM"),
    **_recurrent("RNN"),
    "LSTMUnit": Case(
        'type: "LSTMUnit"',
        [(normal, (1, 3, 2)), (normal, (1, 3, 8)), (bits, (1, 3))], (0, 1),
    ),
    "AbsVal": _simple("AbsVal"),
    "BNLL": _simple("BNLL"),
    "Clip": _simple("Clip", "min: -0.55 max: 0.75", "clip"),
    "ELU": _simple("ELU", "alpha: 0.3", "elu"),
    "Exp": _simple("Exp", "base: 2.1 scale: 0.3 shift: 0.7", "exp"),
    "Log": _simple("Log", "base: 2.1 scale: 0.3 shift: 9.7", "log"),
    "Power": _simple("Power", "power: 1.7 scale: 0.3 shift: 9", "power"),
    "Power 0": _simple("Power", "power: 0", "power"),
    "PReLU": _simple("PReLU"),
    "PReLU shared": _simple("PReLU", "channel_shared: true", "prelu"),
    "ReLU": _simple("ReLU", "negative_slope: 0.1", "relu"),
    "Sigmoid": _simple("Sigmoid"),
    "Swish": _simple("Swish", "beta: 0.3", "swish"),
    "TanH": _simple("TanH"),
    "Threshold": Case('type: "Threshold"', [(normal, S)], ()),
    "Silence": Case(
        'type: "Silence"', [(normal, S)] * 2, (0, 1)
    ),
    "Accuracy": Case(
        'type: "Accuracy" accuracy_param { ignore_label: 1 }', [ITEMS, LABELS], (), tops=2
    ),
    "ArgMax": Case('type: "ArgMax"', [(normal, S)], ()),
    "ROIPooling": Case(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.6 }',
        [(normal, S), (rois, (7, 5))], (0,), (1,),
    ),
    "Parameter": Case('type: "Parameter" parameter_param { shape { dim: 4 dim: 7 } }', [], ()),
}  # fmt: skip
