"""Every layer computes on the GPU's path what it computes on the CPU, and waits for nothing."""

import contextlib

import numpy as np
import pytest

from demitasse.engine import transfers
from demitasse.engine.device import CPU
from demitasse.engine.errors import LayerError
from demitasse.engine.gradient_check import make_layer
from demitasse.engine.layer import layer_types
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape)


def away_from_0(*shape):
    return RNG.uniform(0.1, 1, shape) * RNG.choice([-1, 1], shape)


def positive(*shape):
    return RNG.uniform(0.5, 2, shape)


def whole(most, *shape):
    return RNG.integers(most, size=shape).astype(float)


IMAGES = away_from_0(2, 4, 7, 6)
TABLE = normal(6, 5)
LABELS = whole(5, 6)
STEPS, CONT = normal(3, 2, 4), np.array([[0, 1], [1, 1], [1, 0.0]])
ROIS = np.array([[0, 0, 0, 10, 9], [1, 3, 2, 8, 8], [0, 5, 5, 5, 5.0]])
FILLER = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "constant" value: 0.2 }'

# name -> (layer { ... }, bottoms, bottoms with a gradient)
CASES = {
    "AbsVal": ('type: "AbsVal"', [IMAGES], [0]),
    "Accuracy": ('type: "Accuracy" top: "a" top: "b"', [TABLE, LABELS], []),
    "Accuracy, ignoring": (
        'type: "Accuracy" accuracy_param { top_k: 2 ignore_label: 1 }', [TABLE, LABELS], []
    ),
    "ArgMax": ('type: "ArgMax" argmax_param { axis: 1 }', [TABLE], []),
    "ArgMax, several": ('type: "ArgMax" argmax_param { top_k: 3 out_max_val: true }', [TABLE], []),
    "BatchNorm": ('type: "BatchNorm"', [IMAGES], [0]),
    "BatchNorm, stored": ('type: "BatchNorm" batch_norm_param { use_global_stats: true }',
                          [IMAGES], [0]),
    "BatchReindex": ('type: "BatchReindex"', [TABLE, np.array([4, 0, 4, 1.0])], [0]),
    "Bias": ('type: "Bias" bias_param { filler { type: "gaussian" } }', [IMAGES], [0]),
    "BNLL": ('type: "BNLL"', [IMAGES], [0]),
    "Clip": ('type: "Clip" clip_param { min: -0.5 max: 0.4 }', [IMAGES], [0]),
    "Concat": ('type: "Concat"', [IMAGES, normal(2, 3, 7, 6)], [0, 1]),
    "ContrastiveLoss": ('type: "ContrastiveLoss"', [TABLE, normal(6, 5), whole(2, 6)], [0, 1]),
    "Convolution": (
        f'type: "Convolution" convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 {FILLER} }}',
        [IMAGES], [0],
    ),
    "Convolution, in groups": (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 2 '
        f'dilation: 2 group: 2 {FILLER} }}', [IMAGES], [0],
    ),
    "Convolution, pointwise": (
        f'type: "Convolution" convolution_param {{ num_output: 5 kernel_size: 1 {FILLER} }}',
        [IMAGES], [0],
    ),
    "Crop": ('type: "Crop" crop_param { axis: 2 offset: 1 }', [IMAGES, normal(2, 4, 3, 5)], [0]),
    "Deconvolution": (
        'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 '
        f'{FILLER} }}', [IMAGES], [0],
    ),
    "Dropout": ('type: "Dropout"', [IMAGES], [0]),
    "DummyData": (
        'type: "DummyData" dummy_data_param { shape { dim: 3 dim: 2 } '
        'data_filler { type: "uniform" } }', [], [],
    ),
    "Eltwise, sum": (
        'type: "Eltwise" eltwise_param { coeff: 1 coeff: -0.5 coeff: 2 }',
        [IMAGES, normal(2, 4, 7, 6), normal(2, 4, 7, 6)], [0, 1, 2],
    ),
    "Eltwise, product": (
        'type: "Eltwise" eltwise_param { operation: PROD }',
        [IMAGES, normal(2, 4, 7, 6), normal(2, 4, 7, 6)], [0, 1, 2],
    ),
    "Eltwise, maximum of two": (
        'type: "Eltwise" eltwise_param { operation: MAX }', [IMAGES, normal(2, 4, 7, 6)], [0, 1]
    ),
    "Eltwise, maximum": (
        'type: "Eltwise" eltwise_param { operation: MAX }',
        [IMAGES, normal(2, 4, 7, 6), normal(2, 4, 7, 6)], [0, 1, 2],
    ),
    "ELU": ('type: "ELU"', [IMAGES], [0]),
    "Embed": (
        f'type: "Embed" embed_param {{ input_dim: 5 num_output: 4 {FILLER} }}', [LABELS], []
    ),
    "EuclideanLoss": ('type: "EuclideanLoss"', [TABLE, normal(6, 5)], [0, 1]),
    "Exp": ('type: "Exp" exp_param { base: 2 scale: 0.5 shift: 0.3 }', [IMAGES], [0]),
    "Filter": ('type: "Filter"', [TABLE, np.array([1, 0, 1, 1, 0, 1.0])], [0]),
    "Flatten": ('type: "Flatten"', [IMAGES], [0]),
    "HingeLoss": ('type: "HingeLoss"', [TABLE, LABELS], [0]),
    "HingeLoss, squared": (
        'type: "HingeLoss" hinge_loss_param { norm: L2 }', [TABLE, LABELS], [0]
    ),
    "Im2col": ('type: "Im2col" convolution_param { kernel_size: 3 stride: 2 }', [IMAGES], [0]),
    "InfogainLoss": ('type: "InfogainLoss"', [TABLE, LABELS, positive(5, 5)], [0]),
    "InfogainLoss, ignoring": (
        'type: "InfogainLoss" loss_param { ignore_label: 1 }', [TABLE, LABELS, positive(5, 5)], [0]
    ),
    "InnerProduct": (
        f'type: "InnerProduct" inner_product_param {{ num_output: 3 {FILLER} }}', [IMAGES], [0]
    ),
    "Input": ('type: "Input" top: "x" input_param { shape { dim: 2 } }', [], []),
    "Log": ('type: "Log" log_param { base: 3 scale: 2 shift: 0.5 }', [positive(3, 4)], [0]),
    "LRN": ('type: "LRN" lrn_param { local_size: 3 alpha: 0.5 }', [IMAGES], [0]),
    "LRN, within": (
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }',
        [IMAGES], [0],
    ),
    "LSTM": (
        f'type: "LSTM" recurrent_param {{ num_output: 3 {FILLER} }}', [STEPS, CONT, normal(2, 3)],
        [0, 2],
    ),
    "LSTMUnit": (
        'type: "LSTMUnit"', [normal(1, 2, 3), normal(1, 2, 12), np.array([[0, 1.0]])], [0, 1]
    ),
    "MultinomialLogisticLoss": (
        'type: "MultinomialLogisticLoss"', [RNG.uniform(0.1, 1, (6, 5)), LABELS], [0]
    ),
    "MVN": ('type: "MVN"', [IMAGES], [0]),
    "Parameter": ('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', [], []),
    "Pooling, maximum": (
        'type: "Pooling" top: "y" top: "mask" pooling_param { kernel_size: 3 stride: 2 pad: 1 }',
        [IMAGES], [0],
    ),
    "Pooling, average": (
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }', [IMAGES], [0]
    ),
    "Pooling, global": (
        'type: "Pooling" pooling_param { pool: AVE global_pooling: true }', [IMAGES], [0]
    ),
    "Pooling, stochastic": (
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
        [positive(2, 3, 4, 4)], [0],
    ),
    "Pooling, expected": (
        'type: "Pooling" phase: TEST pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
        [positive(2, 3, 4, 4)], [0],
    ),
    "Power": ('type: "Power" power_param { power: 3 scale: 0.5 shift: 0.1 }', [IMAGES], [0]),
    "Power, constant": ('type: "Power" power_param { scale: 0 shift: 3 power: 2 }', [IMAGES], [0]),
    "PReLU": ('type: "PReLU"', [IMAGES], [0]),
    "Reduction, sum": ('type: "Reduction" reduction_param { axis: 1 coeff: 0.3 }', [IMAGES], [0]),
    "Reduction, absolute": ('type: "Reduction" reduction_param { operation: ASUM }', [IMAGES], [0]),
    "Reduction, squares": (
        'type: "Reduction" reduction_param { operation: SUMSQ axis: 2 }', [IMAGES], [0]
    ),
    "ReLU": ('type: "ReLU"', [IMAGES], [0]),
    "ReLU, leaky": ('type: "ReLU" relu_param { negative_slope: 0.1 }', [IMAGES], [0]),
    "Reshape": ('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', [IMAGES], [0]),
    "RNN": (f'type: "RNN" recurrent_param {{ num_output: 3 {FILLER} }}', [STEPS, CONT], [0]),
    "ROIPooling": (
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }',
        [normal(2, 4, 7, 6), ROIS], [0],
    ),
    "Scale": (
        'type: "Scale" scale_param { bias_term: true filler { type: "gaussian" } }', [IMAGES], [0]
    ),
    "Scale, by a bottom": ('type: "Scale" scale_param { axis: 0 }', [IMAGES, normal(2, 4)], [0, 1]),
    "Sigmoid": ('type: "Sigmoid"', [IMAGES], [0]),
    "SigmoidCrossEntropyLoss": (
        'type: "SigmoidCrossEntropyLoss" loss_param { ignore_label: 1 normalization: VALID }',
        [TABLE, whole(2, 6, 5)], [0],
    ),
    "Silence": ('type: "Silence"', [TABLE], [0]),
    "Slice": (
        'type: "Slice" top: "a" top: "b" slice_param { slice_point: 1 }', [IMAGES], [0]
    ),
    "SmoothL1Loss": (
        'type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 2 }',
        [TABLE, normal(6, 5), positive(6, 5), positive(6, 5)], [0, 1],
    ),
    "Softmax": ('type: "Softmax"', [IMAGES], [0]),
    "SoftmaxWithLoss": ('type: "SoftmaxWithLoss"', [TABLE, LABELS], [0]),
    "SoftmaxWithLoss, ignoring": (
        'type: "SoftmaxWithLoss" top: "loss" top: "p" loss_param { ignore_label: -1 }',
        [normal(2, 3, 4, 2), whole(4, 2, 4, 2) - 1], [0],
    ),
    "Split": ('type: "Split" top: "a" top: "b" top: "c"', [IMAGES], [0]),
    "SPP": ('type: "SPP" spp_param { pyramid_height: 2 }', [IMAGES], [0]),
    "Swish": ('type: "Swish" swish_param { beta: 1.5 }', [IMAGES], [0]),
    "TanH": ('type: "TanH"', [IMAGES], [0]),
    "Threshold": ('type: "Threshold" threshold_param { threshold: 0.2 }', [IMAGES], []),
    "Tile": ('type: "Tile" tile_param { tiles: 3 }', [IMAGES], [0]),
}  # fmt: skip

# Those that read files or what a program gives them, or are made of other classes; and those whose
# work with boxes is tested in test_boxes.py and in whole trainings.
ELSEWHERE = {
    "AnchorTarget", "Data", "HDF5Data", "HDF5Output", "ImageData", "MemoryData", "Proposal",
    "ProposalTarget", "Python", "RoIData", "WindowData",
}  # fmt: skip


def test_every_layer_has_a_case():
    assert {name.split(",")[0] for name in CASES} | ELSEWHERE == set(layer_types())


def run(case, device=CPU, dtype=np.float32, in_place=False, parameters=None):
    """A layer, twice forward and backward: (what it gave by name, its parameters, its waits)."""
    text, bottoms, learned = case
    bottoms = [np.float32(values) for values in bottoms]
    layer, bottom, top = make_layer(text, bottoms, dtype=dtype, in_place=in_place, device=device)
    for k, blob in enumerate(layer.blobs):
        values = np.float32(blob.data) if parameters is None else parameters[k]
        blob.set_data(values)
    given = [blob.data.copy() for blob in layer.blobs]
    wanted = [k in learned for k in range(len(bottom))]
    watched = transfers.watch(device) if not device.is_host else contextlib.nullcontext()
    with watched as log:
        for _ in range(2):
            layer.reshape(bottom, top)
            layer.forward(bottom, top)
            slopes = np.random.default_rng(1)
            for blob in top:
                values = np.float32(slopes.standard_normal(blob.shape))
                device.to_device(values.astype(dtype), blob.grad)
            if any(wanted) or layer.blobs:
                layer.backward(top, wanted, bottom)
    found = {f"top {k}": blob.data for k, blob in enumerate(top)}
    found |= {f"bottom {k}, gradient": b.diff for k, b in enumerate(bottom) if wanted[k]}
    found |= {f"parameter {k}": blob.data for k, blob in enumerate(layer.blobs)}
    found |= {f"parameter {k}, gradient": blob.diff for k, blob in enumerate(layer.blobs)}
    return found, given, (layer, log)


def agree(case, device, **options):
    """Whether a layer gives on a device what it gives on the CPU in double precision."""
    # Random numbers of two precisions are not the same numbers.
    dtype = np.float32 if "STOCHASTIC" in case[0] or "DummyData" in case[0] else np.float64
    expected, parameters, _ = run(case, dtype=dtype, **options)
    found, _, (layer, log) = run(case, device, parameters=parameters, **options)
    assert found.keys() == expected.keys()
    for what, values in expected.items():
        got = found[what]
        assert got.shape == values.shape, what
        most = np.abs(values).max(initial=0)
        worst = np.abs(got - values).max(initial=0)
        assert worst <= 1e-5 * most, f"{what}: off by {worst:g} where the largest is {most:g}"
    waits = sum(map(len, log.synchronisations()))
    assert waits <= 2 * layer.synchronisations, log.report()


@pytest.mark.parametrize("name", CASES)
def test_a_layer_computes_as_on_the_cpu(place, name):
    agree(CASES[name], place.device)


IN_PLACE = [
    "AbsVal", "BatchNorm", "BatchNorm, stored", "Bias", "BNLL", "Clip", "Dropout", "Eltwise, sum",
    "Eltwise, product", "ELU", "Exp", "Log", "MVN", "Power", "PReLU", "ReLU", "Scale", "Sigmoid",
    "Softmax", "Swish", "TanH",
]  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_layer_computes_in_place_as_on_the_cpu(place, name):
    agree(CASES[name], place.device, in_place=True)


WRONG = {
    "a label": ('type: "SoftmaxWithLoss"', [TABLE, LABELS + 1], "labels from 0 to 4"),
    "an index": ('type: "BatchReindex"', [TABLE, np.array([1, 7.0, 0, 2])], "indices from 0 to 5"),
    "a word": (CASES["Embed"][0], [LABELS - 1], r"indices in \[0, 4"),
    "a RoI": (CASES["ROIPooling"][0], [IMAGES, ROIS + 1], "image index in"),
    "not a number": ('type: "HingeLoss"', [TABLE, LABELS * np.nan], "labels from 0 to 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_numbers_are_told_of_when_numbers_are_read(place, name):
    text, bottoms, message = WRONG[name]
    net = net_of(text, bottoms, place.device)
    net.forward()
    with pytest.raises(LayerError, match=message):
        net.check()
    net.check()  # once is enough
    for blob, values in zip(net.blobs.values(), CASES[name_of(text)][1]):
        blob.set_data(values)
    net.forward()
    net.check()


def name_of(text):
    return text.split('"')[1]


def net_of(text, bottoms, device):
    """A net of one layer on inputs."""
    shapes = "".join(
        f'layer {{ name: "x{k}" type: "Input" top: "x{k}" input_param {{ shape {{ '
        + "".join(f"dim: {d} " for d in values.shape) + "} } } "
        for k, values in enumerate(bottoms)
    )  # fmt: skip
    names = "".join(f'bottom: "x{k}" ' for k in range(len(bottoms)))
    param = parse_text(
        f'{shapes} layer {{ name: "layer" top: "y" {names} {text} }}', caffe_pb2.NetParameter, "net"
    )
    net = Net(param, Phase.TRAIN, device=device)
    for k, values in enumerate(bottoms):
        net.blobs[f"x{k}"].set_data(values)
    return net
