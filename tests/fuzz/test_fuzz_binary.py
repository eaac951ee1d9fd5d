"""Weights, states and blobs from anywhere: a clear error, or what protobuf itself reads."""

import contextlib

import numpy as np
from fuzzing import GOLDEN, bounded, fuzz, mutated
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demitasse.engine import blobproto, caffemodel, hdf5, prototxt, solverstate
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.wire import encode_length, encode_varint

NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50, 100, 8266721, 8266723, 8266724]
PIECES = [
    b"\xff" * 9,
    b"\xff\xff\xff\xff\x0f",
    encode_varint(2**63),
    b"\x3a\x02\x08\x01",
    encode_length(7, 12) + b"\x0a\x0a" + encode_varint(10**6) + encode_varint(10**12) + b"\x01",
    b"\x2d\0\0\x80\x3f",
    encode_length(5, 4) + b"\0\0\x80\x3f",
    encode_length(100, 0),
    encode_length(2, 0),
]


def v0_model():
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    net = caffe_pb2.NetParameter()
    net.layers.add().layer.MergeFrom(caffe_pb2.V0LayerParameter(name="p", type="padding"))
    net.layers.add().layer.MergeFrom(
        caffe_pb2.V0LayerParameter(name="c", type="conv", blobs=[blob])
    )
    return net.SerializeToString()


def golden_files():
    patterns = ("*.caffemodel", "*.solverstate", "*.binaryproto")
    paths = [path for pattern in patterns for path in sorted(GOLDEN.glob(f"interop/*/{pattern}"))]
    assert len(paths) > 5
    return [v0_model(), *(path.read_bytes() for path in paths)]


def read_all(path):
    """Reads a file as each kind that it might be."""
    with bounded():
        layers = list(caffemodel.read_weights(path))
        compare_with_protobuf(path.read_bytes(), layers)
    with bounded():
        blobproto.read_blob(path)
    with bounded():
        solverstate.read_state(path)
    with bounded():
        prototxt.read_binary(path, caffe_pb2.NetParameter)


def compare_with_protobuf(data, layers):
    """Where protobuf reads the file as well, it must have read the same."""
    try:
        net = caffe_pb2.NetParameter.FromString(data)
    except DecodeError:
        return  # damage in fields that are of no concern for the weights
    if net.layers:
        return
    for (name, kind, blobs), layer in zip(layers, net.layer, strict=True):
        assert (name, kind) == (layer.name, layer.type)
        for ours, theirs in zip(blobs, layer.blobs, strict=True):
            values = theirs.double_data or theirs.data
            np.testing.assert_array_equal(ours.data.ravel(), np.array(values, ours.data.dtype))


def writer(path):
    def check(data):
        path.write_bytes(data)
        read_all(path)

    return check


def test_random_bytes(tmp_path):
    fuzz(writer(tmp_path / "file"), data=st.binary(max_size=300))


def test_mutated_files(tmp_path):
    fuzz(writer(tmp_path / "file"), examples=80, data=mutated(golden_files(), PIECES))


def fields(inner):
    """Strategies for a field whose content, where it has a length, is drawn from `inner`."""
    number = st.sampled_from(NUMBERS)
    varint = st.sampled_from([0, 1, 2, 3, 10**6, 2**31, 2**63, 2**64 - 1])
    return st.one_of(
        st.builds(lambda n, v: encode_varint(n << 3) + encode_varint(v), number, varint),
        st.builds(lambda n, c: encode_length(n, len(c)) + c, number, inner),
        st.builds(lambda n: encode_varint(n << 3 | 5) + bytes(4), number),
        st.builds(lambda n: encode_varint(n << 3 | 1) + bytes(8), number),
    )


def test_trees_of_fields(tmp_path):
    leaf = st.sampled_from([b"", b"a", bytes(4), bytes(8), b"\x01\x02", *PIECES])
    content = st.recursive(
        leaf, lambda inner: st.lists(fields(inner), max_size=5).map(b"".join), max_leaves=25
    )
    data = st.lists(fields(content), max_size=6).map(b"".join)
    fuzz(writer(tmp_path / "file"), examples=80, data=data)


def test_truncated_hdf5(tmp_path):
    """Only cut short: against other damage the HDF5 library itself is no safe reader."""
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("interop/*/*.h5"))]
    path = tmp_path / "file"

    def check(data, share):
        path.write_bytes(data[: int(len(data) * share)])
        with bounded():
            list(hdf5.read_weights_h5(path))
        with bounded():
            hdf5.read_state_h5(path)

    fuzz(check, data=st.sampled_from(files), share=st.floats(0, 1))


arrays = hnp.arrays(
    st.sampled_from(["f4", "f8", "f2", "i4"]),
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    elements=st.integers(-100, 100),
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def test_round_trip_of_weights(tmp_path):
    path = tmp_path / "file"

    def check(layers):
        net = caffe_pb2.NetParameter(layer=[{"name": name} for name, _ in layers])
        caffemodel.write_weights(path, net, [blobs for _, blobs in layers])
        read = caffemodel.read_weights(path)
        assert_same([(name, [b.data for b in blobs]) for name, _, blobs in read], layers)
        message = caffe_pb2.NetParameter.FromString(path.read_bytes())
        assert [layer.name for layer in message.layer] == [name for name, _ in layers]

    layers = st.lists(st.tuples(names, st.lists(arrays, max_size=3)), min_size=1, max_size=4)
    fuzz(check, layers=layers)


def test_round_trip_of_weights_in_hdf5(tmp_path):
    path = tmp_path / "file"
    part = st.text("ab0é", min_size=1, max_size=3)

    def check(layers):
        with contextlib.suppress(hdf5.ModelFileError):  # for example layers "a" and "a/0"
            hdf5.write_weights_h5(path, ((n, dict(enumerate(b))) for n, b in layers.items()))
            read = hdf5.read_weights_h5(path)
            found = [(name, [b.data for b in blobs.values()]) for name, blobs in read]
            assert_same(sorted(found, key=first), sorted(layers.items(), key=first))

    name = st.lists(part, min_size=1, max_size=3).map("/".join)
    fuzz(check, layers=st.dictionaries(name, st.lists(arrays, max_size=2), max_size=4))


def first(pair):
    return pair[0]


def assert_same(found, expected):
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            np.testing.assert_array_equal(a, b)
