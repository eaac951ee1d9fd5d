"""Caffe's protocol buffer messages, as `caffe_pb2`.

The classes are built at import from a committed descriptor set (caffe.desc, compiled from
caffe.proto) in a private pool, and not in protobuf's global one, so that the package needs no
generated code tied to one protobuf version and can live beside another program's caffe_pb2.
"""

import sys
from pathlib import Path
from types import ModuleType

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

_DESCRIPTOR_SET = Path(__file__).with_name("caffe.desc")


def _build(name: str) -> ModuleType:
    """Returns a module with what protoc would have generated: classes, enums and DESCRIPTOR."""
    files = descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTOR_SET.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(files.file[0].SerializeToString())
    descriptor = pool.FindFileByName(files.file[0].name)

    module = ModuleType(name, "Caffe's messages: one class for each message in caffe.proto.")
    module.DESCRIPTOR = descriptor
    for message_name, message in descriptor.message_types_by_name.items():
        cls = message_factory.GetMessageClass(message)
        cls.__module__ = name
        setattr(module, message_name, cls)
    for enum_name, enum in descriptor.enum_types_by_name.items():
        setattr(module, enum_name, enum_type_wrapper.EnumTypeWrapper(enum))
        for value in enum.values:
            setattr(module, value.name, value.number)
    return module


caffe_pb2 = _build(f"{__name__}.caffe_pb2")
# Registered, so that `import demitasse.engine.proto.caffe_pb2` and pickling of messages work.
sys.modules[caffe_pb2.__name__] = caffe_pb2
