"""The schema: caffe.proto and its compiled form agree, and match Caffe's wire format."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from demitasse.engine import proto
from demitasse.engine.proto import caffe_pb2

PROTO_TEXT = (Path(proto.__file__).parent / "caffe.proto").read_text()
TYPE_NAMES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}
STATEMENT = re.compile(
    r"message \s (?P<message>\w+) \s \{ | enum \s (?P<enum>\w+) \s \{ | (?P<close>\})"
    r"| (?P<label>optional|repeated) \s (?P<type>\w+) \s (?P<name>\w+) \s = \s (?P<number>\d+)"
    r"  (?:\s \[ (?P<option>\w+) \s = \s (?P<value>[^\]]*) \])? ;"
    r"| (?P<entry>\w+) \s = \s (?P<entry_number>-?\d+) ;",
    re.VERBOSE,
)


def parse_proto(text):
    """{message: {field: (label, type, number, option, value)}}, {enum: {name: number}}."""
    text = re.sub(r"//.*", "", text).split("package caffe;")[1]
    messages, enums, scope = {}, {}, []
    for match in STATEMENT.finditer(text):
        found = match.groupdict()
        path = ".".join(scope)
        if found["message"]:
            scope.append(found["message"])
            messages[".".join(scope)] = {}
        elif found["enum"]:
            scope.append(found["enum"])
            enums[".".join(scope)] = {}
        elif found["close"]:
            scope.pop()
        elif found["entry"]:
            enums[path][found["entry"]] = int(found["entry_number"])
        else:
            keys = ("label", "type", "number", "option", "value")
            messages[path][found["name"]] = tuple(found[k] for k in keys)
    assert not scope
    # What the expression has not matched would go unseen: nothing but white space may be left.
    assert not STATEMENT.sub("", text).strip()
    return messages, enums


def describe_field(field):
    kind = TYPE_NAMES[field.type]
    if field.message_type:
        kind = field.message_type.name
    elif field.enum_type:
        kind = field.enum_type.name
    # protobuf 5 has `label`; 6 and later `is_repeated`
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
    label = "repeated" if repeated else "optional"
    default = field.default_value if field.has_default_value else None
    packed = repeated and field.GetOptions().packed
    return label, kind, field.number, default, packed


def expected_field(label, kind, number, option, value):
    default = None
    if option == "default":
        if kind in ("float", "int32", "uint32", "int64", "string", "bool"):
            default = json.loads(re.sub(r"^(-?)\.", r"\g<1>0.", value).removesuffix("."))
        else:
            default = value
    return label, kind, int(number), default, option == "packed"


def test_text_and_descriptor_agree():
    messages, enums = parse_proto(PROTO_TEXT)
    compiled_enums = {e.name: e for e in caffe_pb2.DESCRIPTOR.enum_types_by_name.values()}
    assert set(messages) == set(caffe_pb2.DESCRIPTOR.message_types_by_name)
    for name, fields in messages.items():
        descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name[name]
        compiled_enums |= {f"{name}.{e.name}": e for e in descriptor.enum_types}
        assert set(fields) == set(descriptor.fields_by_name)
        for field in descriptor.fields:
            expected = expected_field(*fields[field.name])
            found = describe_field(field)
            if field.enum_type and found[3] is not None:
                value = field.enum_type.values_by_number[found[3]].name
                found = (*found[:3], value, found[4])
            if isinstance(expected[3], float | int) and found[1] == "float":
                assert found[3] == pytest.approx(expected[3], rel=1e-7), (name, field.name)
                found = (*found[:3], expected[3], found[4])
            assert found == expected, (name, field.name)
    assert set(enums) == set(compiled_enums)
    for name, values in enums.items():
        assert values == {v.name: v.number for v in compiled_enums[name].values}, name


def test_numbers_that_files_rely_on():
    layer = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    assert layer["roi_pooling_param"].number == 8266711
    assert layer["smooth_l1_loss_param"].number == 8266712
    assert layer["clip_param"].number == 148 and layer["blobs"].number == 7
    solver = caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name
    assert solver["layer_wise_reduce"].number == 41 and solver["weights"].number == 42
    net = caffe_pb2.NetParameter.DESCRIPTOR.fields_by_name
    assert net["layer"].number == 100 and net["layers"].number == 2


def test_like_a_generated_module():
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == "TEST" and caffe_pb2.Phase.Value("TRAIN") == 0
    assert caffe_pb2.PoolingParameter.STOCHASTIC == 2
    assert caffe_pb2.PoolingParameter.PoolMethod.Value("AVE") == 1
    assert caffe_pb2.SolverParameter().solver_mode == caffe_pb2.SolverParameter.GPU
    layer = caffe_pb2.LayerParameter(name="a")
    assert layer.dropout_param.scale_train and layer.roi_pooling_param.spatial_scale == 1
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert sys.modules[caffe_pb2.__name__] is caffe_pb2


def test_no_message_contains_itself():
    # The text parser recurses as deep as messages nest.
    def depth(message, seen=()):
        assert message.name not in seen
        inner = [f.message_type for f in message.fields if f.message_type]
        return 1 + max((depth(m, (*seen, message.name)) for m in inner), default=0)

    assert max(map(depth, caffe_pb2.DESCRIPTOR.message_types_by_name.values())) < 10


def test_lives_beside_another_caffe_pb2():
    """Another program's schema of the same name, in protobuf's global pool, does no harm."""
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
file.message_type.add(name="NetParameter").field.add(name="odd", number=1, label=1, type=9)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
from demitasse.engine.proto import caffe_pb2
theirs = message_factory.GetMessageClass(
    descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter"))
assert theirs(odd="x").odd == "x" and caffe_pb2.NetParameter(name="y").name == "y"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_compile_renews_the_descriptor(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    out = tmp_path / "caffe.desc"
    folder = Path(proto.__file__).parent
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={out}", "caffe.proto"]) == 0
    assert out.read_bytes() == (folder / "caffe.desc").read_bytes()
