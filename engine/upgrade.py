"""Brings old nets and solvers to the current format (Caffe: util/upgrade_proto.cpp).

Three formats of layers exist. V0: `layers { layer { name type .. } bottom top }`; V1: `layers {
type: CONVOLUTION blobs_lr .. }`; the current one: `layer { type: "Convolution" param {..} }`.
"""

import logging

from .errors import ModelFileError
from .proto import caffe_pb2
from .upgrade_v0 import upgrade_v0_net

_log = logging.getLogger(__name__)

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
}
"""The type of a V1 layer, by the name of its enum value."""

SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
"""The type of a solver, by the name of the old enum value."""

_V1 = caffe_pb2.V1LayerParameter
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_DATA_PARAMS = {
    _V1.DATA: "data_param",
    _V1.IMAGE_DATA: "image_data_param",
    _V1.WINDOW_DATA: "window_data_param",
}
# Fields of V1 layers that become something else.
_V1_SPECIAL = {"type", "layer", "param", "blob_share_mode", "blobs_lr", "weight_decay"}


# ------------------------------------------------------------------------------------------ nets


def net_needs_upgrade(param) -> bool:
    """True if upgrade_net would change this NetParameter (Caffe: NetNeedsUpgrade)."""
    return bool(param.layers or param.input) or any(map(_is_old_batch_norm, param.layer))


def upgrade_net(param, source="net"):
    """Brings a NetParameter to the current format, in place, as Caffe does on load.

    Args:
        param: the NetParameter.
        source: what errors and messages call it, usually its path.

    Returns:
        param.

    Raises:
        ModelFileError: it mixes the old and the new layers, or cannot be brought over.
    """
    if param.layer and param.layers:
        # NOTE: Caffe drops the `layer` entries with a message in the log; here it is an error,
        # because the net that would be left is not the one that was written.
        raise ModelFileError(
            source,
            "either `layer` (current) or `layers` (old) entries",
            f"{len(param.layer)} and {len(param.layers)}",
            "Bring all of them to one form.",
        )
    if any(layer.HasField("layer") for layer in param.layers):
        _log.info("%s: upgrading V0 layers", source)
        upgrade_v0_net(param, source)
    if param.layers:
        _log.info("%s: upgrading V1 layers", source)
        for old in param.layers:
            _move_transform_fields(old)
            upgrade_v1_layer(old, param.layer.add())
        param.ClearField("layers")
    if param.input:
        _upgrade_input(param, source)
    for layer in filter(_is_old_batch_norm, param.layer):
        for spec in layer.param:
            spec.lr_mult = spec.decay_mult = 0
    return param


def upgrade_v1_layer(old, new) -> None:
    """Writes what the V1LayerParameter `old` says into the empty LayerParameter `new`."""
    if old.HasField("type"):
        new.type = V1_TYPES[_V1.LayerType.Name(old.type)]
    for field, value in old.ListFields():
        if field.name in _V1_SPECIAL:
            continue
        if field.name == "name":
            new.name = value
        else:  # a message, or a list of something: both can be merged into an empty one
            getattr(new, field.name).MergeFrom(value)
    columns = {
        "name": old.param,
        "share_mode": old.blob_share_mode,  # the same numbers in both enums
        "lr_mult": old.blobs_lr,
        "decay_mult": old.weight_decay,
    }
    for _ in range(max(map(len, columns.values()))):
        new.param.add()
    for name, values in columns.items():
        for spec, value in zip(new.param, values):
            setattr(spec, name, value)


def _move_transform_fields(layer) -> None:
    """Moves a V1 data layer's scale, mean_file, crop_size and mirror to its transform_param."""
    name = _DATA_PARAMS.get(layer.type)
    if name is None or not layer.HasField(name):
        return
    source = getattr(layer, name)
    for field in _TRANSFORM_FIELDS:
        if source.HasField(field):
            setattr(layer.transform_param, field, getattr(source, field))
            source.ClearField(field)


def _upgrade_input(param, source) -> None:
    """Turns `input` with `input_shape` or `input_dim` into one Input layer at the front.

    `input` alone, as in old .caffemodel files, is dropped.
    """
    names, shapes, dims = list(param.input), list(param.input_shape), list(param.input_dim)
    if shapes and len(shapes) != len(names):
        raise ModelFileError(
            source, "one input_shape for each input", f"{len(shapes)} for {len(names)} inputs"
        )
    if dims and not shapes and len(dims) != 4 * len(names):
        raise ModelFileError(
            source,
            "four input_dim for each input",
            f"{len(dims)} for {len(names)} inputs",
            "Use input_shape { dim: .. } for another number of axes.",
        )
    if shapes or dims:
        layer = caffe_pb2.LayerParameter(name="input", type="Input", top=names)
        if shapes:
            layer.input_param.shape.extend(shapes)
        else:
            for i in range(0, len(dims), 4):
                layer.input_param.shape.add(dim=dims[i : i + 4])
        layers = [layer, *param.layer]
        param.ClearField("layer")
        param.layer.extend(layers)
    for field in ("input", "input_shape", "input_dim"):
        param.ClearField(field)


def _is_old_batch_norm(layer) -> bool:
    # Written for an older BatchNorm, whose three statistics were declared as parameters.
    return layer.type == "BatchNorm" and len(layer.param) == 3


# --------------------------------------------------------------------------------------- solvers


def solver_needs_upgrade(param) -> bool:
    """True if the solver's type is given as the old enum (Caffe: SolverNeedsTypeUpgrade)."""
    return param.HasField("solver_type")


def upgrade_solver(param, source="solver"):
    """Brings a SolverParameter to the current format, in place, inline nets included.

    Returns:
        param.

    Raises:
        ModelFileError: both `type` and `solver_type` are given, or an inline net is wrong.
    """
    if solver_needs_upgrade(param):
        if param.HasField("type"):
            raise ModelFileError(
                source, "`type` or the old `solver_type`", "both", "Remove solver_type."
            )
        param.type = SOLVER_TYPES[caffe_pb2.SolverParameter.SolverType.Name(param.solver_type)]
        param.ClearField("solver_type")
    # NOTE: Caffe upgrades nets in files of their own only; here inline ones too.
    for field in ("net_param", "train_net_param"):
        if param.HasField(field):
            upgrade_net(getattr(param, field), f"{source} ({field})")
    for net in param.test_net_param:
        upgrade_net(net, f"{source} (test_net_param)")
    return param
