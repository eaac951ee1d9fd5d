"""V0 layers to V1 layers (Caffe: UpgradeV0Net in util/upgrade_proto.cpp)."""

import logging

from .errors import ModelFileError, closest
from .proto import caffe_pb2

_log = logging.getLogger(__name__)

V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}
"""The V1 enum value of a V0 layer type."""

_PARAM = {
    "conv": "convolution_param",
    "innerproduct": "inner_product_param",
    "pool": "pooling_param",
    "dropout": "dropout_param",
    "lrn": "lrn_param",
    "concat": "concat_param",
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "window_data": "window_data_param",
    "infogain_loss": "infogain_loss_param",
}
_WEIGHTED = ("conv", "innerproduct")
_BATCHED = ("data", "hdf5_data", "images", "window_data")

# A V0 field -> its name in the layer's own *_param, and the types that have it there.
_FIELDS = {
    "num_output": ("num_output", _WEIGHTED),
    "biasterm": ("bias_term", _WEIGHTED),
    "weight_filler": ("weight_filler", _WEIGHTED),
    "bias_filler": ("bias_filler", _WEIGHTED),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),  # the same numbers in both enums
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", (*_BATCHED, "infogain_loss")),
    "batchsize": ("batch_size", _BATCHED),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
# V0 fields that any layer may have, by their names in transform_param.
_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}


def upgrade_v0_net(param, source) -> None:
    """Replaces the V0 layers of a NetParameter by V1 layers, in place.

    NOTE: Caffe also empties entries of the same net that are V1 already; here they stay.

    Raises:
        ModelFileError: an unknown V0 type, or a padding layer before anything but conv and pool.
    """
    layers = _merge_padding(param, source)
    param.ClearField("layers")
    for layer in layers:
        if layer.HasField("layer"):
            upgrade_v0_layer(layer, param.layers.add(), source)
        else:
            param.layers.append(layer)


def upgrade_v0_layer(old, new, source) -> None:
    """Writes what `old`, a V1LayerParameter around a V0 one, says into the empty `new`."""
    v0 = old.layer
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if v0.HasField("name"):
        new.name = v0.name
    if v0.HasField("type"):
        new.type = v1_type(v0, source)
    for field in ("blobs", "blobs_lr", "weight_decay"):
        getattr(new, field).extend(getattr(v0, field))
    for field, name in _TRANSFORM.items():
        if v0.HasField(field):
            setattr(new.transform_param, name, getattr(v0, field))
    if v0.HasField("hdf5_output_param") and v0.type == "hdf5_output":
        new.hdf5_output_param.CopyFrom(v0.hdf5_output_param)
    for field, (name, types) in _FIELDS.items():
        if not v0.HasField(field):
            continue
        if v0.type in types:
            _assign(getattr(new, _PARAM[v0.type]), name, getattr(v0, field))
        else:
            _log.warning(
                "%s: layer %r: ignored %s, which a %r layer does not have",
                *(source, v0.name, field, v0.type),
            )


def v1_type(v0, source) -> int:
    """The V1 enum value for the type of a V0LayerParameter."""
    if v0.type not in V0_TYPES:
        raise ModelFileError(
            f"{source}: layer {v0.name!r}",
            "a layer type of the first format",
            repr(v0.type),
            closest(v0.type, V0_TYPES),
        )
    return caffe_pb2.V1LayerParameter.LayerType.Value(V0_TYPES[v0.type])


def _assign(message, name: str, value) -> None:
    target = getattr(message, name)
    if hasattr(value, "CopyFrom"):
        target.CopyFrom(value)
    elif hasattr(target, "append"):  # a convolution's sizes: one for all axes
        target.append(value)
    else:
        setattr(message, name, value)


def _merge_padding(param, source) -> list:
    """Returns copies of the layers without the padding layers, whose pad their readers take over.

    The first format had padding as a layer of its own, before a convolution or pooling.
    """
    producer = dict.fromkeys(param.input)  # blob -> the layer that wrote it last; None: an input
    merged = []
    for layer in param.layers:
        copy = caffe_pb2.V1LayerParameter()
        copy.CopyFrom(layer)
        if layer.layer.type != "padding":
            merged.append(copy)
        for i, bottom in enumerate(layer.bottom):
            if bottom not in producer:
                raise ModelFileError(
                    f"{source}: layer {layer.layer.name!r}",
                    "a bottom that an earlier layer makes",
                    repr(bottom),
                    closest(bottom, producer),
                )
            pad = producer[bottom]
            if pad is not None and pad.layer.type == "padding":
                _check_padding(pad, layer, source)
                copy.layer.pad = pad.layer.pad
                copy.bottom[i] = pad.bottom[0]
        producer.update(dict.fromkeys(layer.top, layer))
    return merged


def _check_padding(pad, reader, source) -> None:
    fits = reader.layer.type in ("conv", "pool") and len(reader.bottom) == 1
    if not fits or len(pad.bottom) != 1 or len(pad.top) != 1:
        raise ModelFileError(
            f"{source}: layer {pad.layer.name!r} of type 'padding'",
            "one bottom and one top, which a conv or pool layer reads as its only bottom",
            f"{len(pad.bottom)} and {len(pad.top)}, and the reader {reader.layer.name!r} "
            f"of type {reader.layer.type!r} with {len(reader.bottom)} bottoms",
            "Give the padding in the layer that needs it.",
        )
