"""Protocol buffer messages from Python keywords: what NetSpec stands on."""

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from demitasse.engine.errors import NetError, closest

from .proto import caffe_pb2


class NetSpecError(NetError, AttributeError, TypeError):
    """A layer specified with inputs or keywords that it does not have. (Programs written for
    pycaffe expect an AttributeError or a TypeError, which this is too.)"""


# What a field takes, for those that are not whole numbers.
_KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_ENUM: "the name or number of an enum value",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_STRING: "text",
}


def param_name_dict():
    """Layer type -> name of its own parameter message, less the "_param": {"ReLU": "relu", ...}.

    It follows from the message's names (ReLUParameter relu_param), so it also has some that
    belong to no layer type (Transformation, Loss, Recurrent).
    """
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in fields
        if field.name.endswith("_param")
    }


def assign_proto(proto, name, val, where=None):
    """Set field `name` of the message `proto` from a Python value.

    A dict fills a message, a list (also a tuple or an array) a repeated field; a single value
    for a repeated field is taken as a list of one; enum values may be given by name.
    Raises: NetSpecError for an unknown field, with the closest known one, and for a value of
    the wrong type. `where` is the beginning of that error's message.
    """
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    where = where or proto.DESCRIPTOR.name
    if field is None:
        hint = closest(name, proto.DESCRIPTOR.fields_by_name)
        raise NetSpecError(where, f"a field of {proto.DESCRIPTOR.name}", repr(name), hint)
    where = f"{where}, {name}"
    if field.message_type is None:
        _assign_scalars(proto, field, val, where)
    elif _is_repeated(proto, name):
        for item in _as_list(val):
            _fill(getattr(proto, name).add(), item, where)
    else:
        _fill(getattr(proto, name), val, where)


def _is_repeated(proto, name):
    return hasattr(getattr(proto, name), "extend")


def _as_list(val):
    if isinstance(val, np.ndarray):
        return val.ravel().tolist()
    return list(val) if isinstance(val, (list, tuple)) else [val]


def _fill(message, val, where):
    """Fill a message from a dict, or copy it from another message of its type."""
    if isinstance(val, dict):
        for key, item in val.items():
            assign_proto(message, key, item, where)
    elif isinstance(val, Message) and val.DESCRIPTOR is message.DESCRIPTOR:
        message.CopyFrom(val)
    else:
        expected = f"a dict of the fields of {message.DESCRIPTOR.name}"
        raise NetSpecError(where, expected, repr(val))


def _assign_scalars(proto, field, val, where):
    """Set a field of numbers, text or enum values, repeated or not."""
    try:
        if _is_repeated(proto, field.name):
            getattr(proto, field.name).extend(_plain(item) for item in _as_list(val))
        else:
            setattr(proto, field.name, _plain(val))
    except (TypeError, ValueError) as error:
        hint = ""
        if field.enum_type is not None:
            hint = f"Its values: {', '.join(field.enum_type.values_by_name)}."
        expected = _KINDS.get(field.cpp_type, "a whole number in the field's range")
        raise NetSpecError(where, expected, repr(val), hint) from error


def _plain(val):
    """NumPy's scalars as Python's, which protobuf takes for every type of field."""
    return val.item() if isinstance(val, np.generic) else val
