"""Weights, blobs and solver states in protobuf's binary form, against protobuf's own reading."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from demitasse.engine import blobproto, caffemodel, solverstate
from demitasse.engine.errors import ModelFileError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.wire import encode_length, encode_varint

INTEROP = Path(__file__).parents[1] / "golden" / "interop"
MODELS = sorted(INTEROP.glob("*/*.caffemodel"))
STATES = sorted(INTEROP.glob("*/*.solverstate"))
NET = caffe_pb2.NetParameter


def weights_of(data, path):
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    return list(caffemodel.read_weights(path))


def error_of(data, path, read=caffemodel.read_weights):
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    with pytest.raises(ModelFileError) as error:
        read(path)
    return str(error.value)


def net_with(*blobs):
    return NET(layer=[caffe_pb2.LayerParameter(name="ip", type="InnerProduct", blobs=blobs)])


def blob(values, shape=None, **fields):
    message = caffe_pb2.BlobProto(data=values, **fields)
    if shape is not None:
        message.shape.dim.extend(shape)
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


# --------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.parent.name)
def test_golden_weights_as_protobuf_reads_them(model):
    net = NET.FromString(model.read_bytes())
    layers = list(net.layer) + list(net.layers)
    found = list(caffemodel.read_weights(model))
    assert [name for name, _, _ in found] == [layer.name for layer in layers]
    assert sum(len(blobs) for _, _, blobs in found) > 1
    for (_, _, blobs), layer in zip(found, layers, strict=True):
        for ours, theirs in zip(blobs, layer.blobs, strict=True):
            np.testing.assert_array_equal(ours.data.ravel(), np.array(theirs.data, np.float32))
            assert ours.shape == ours.data.shape and ours.diff is None
            assert ours.legacy == theirs.HasField("num")


def test_v1_types_are_current_ones():
    found = [kind for _, kind, _ in caffemodel.read_weights(INTEROP / "v1net/weights.caffemodel")]
    assert found == ["Convolution", "ReLU", "InnerProduct", "InnerProduct"]


def test_v0_layers(path):
    net = NET()
    net.layers.add().layer.MergeFrom(caffe_pb2.V0LayerParameter(name="p", type="padding"))
    v0 = caffe_pb2.V0LayerParameter(
        name="c", type="conv", blobs=[blob([1, 2], num=1, channels=2, height=1, width=1)]
    )
    net.layers.add(bottom=["p"]).layer.MergeFrom(v0)
    [(name, kind, [weights])] = weights_of(net, path)
    assert (name, kind, weights.shape, weights.legacy) == ("c", "Convolution", (1, 2, 1, 1), True)


def test_legacy_shape_wins_and_counts_missing_axes_as_zero(path):
    # Caffe's Blob::FromProto asks for the old fields first.
    [(_, _, [found])] = weights_of(
        net_with(blob([1, 2], [7], num=2, channels=1, height=1, width=1)), path
    )
    assert found.shape == (2, 1, 1, 1)
    assert "expected 0 values for shape (2, 0, 0, 0)" in error_of(
        net_with(blob([1, 2], num=2)), path
    )


def test_doubles_diffs_and_scalars(path):
    wide = caffe_pb2.BlobProto(double_data=[0.1, 0.2], double_diff=[1, 2])
    wide.shape.dim.append(2)
    [(_, _, [a, b, c])] = weights_of(net_with(wide, blob([3], diff=[4]), blob([], [0, 5])), path)
    assert a.data.dtype == np.float64 and a.data.tolist() == [0.1, 0.2]
    assert a.diff.tolist() == [1, 2]
    assert b.shape == () and b.data == 3 and b.diff == 4
    assert c.data.shape == (0, 5)


def test_views_do_not_copy(path):
    [(_, _, [found])] = weights_of(net_with(blob(np.arange(1000), [10, 100])), path)
    assert not found.data.flags.writeable and found.data.base is not None
    np.testing.assert_array_equal(found.data, np.arange(1000).reshape(10, 100))


def unpacked(number, values, kind="f"):
    tag = encode_varint(number << 3 | (5 if kind == "f" else 1))
    return b"".join(tag + struct.pack("<" + kind, value) for value in values)


def wrap(blob_bytes):
    layer = encode_length(1, 2) + b"ip" + encode_length(7, len(blob_bytes)) + blob_bytes
    return encode_length(100, len(layer)) + layer


@pytest.mark.parametrize("count", [1, 15, 16, 17, 64, 300])
def test_unpacked_values(path, count):
    shape = b"\x3a" + bytes([len(encode_varint(count)) + 1]) + b"\x08" + encode_varint(count)
    for number, kind in ((5, "f"), (8, "d")):
        data = wrap(unpacked(number, range(count), kind) + shape)
        [(_, _, [found])] = weights_of(data, path)
        assert found.data.tolist() == list(range(count))
        assert (
            found.data.tolist()
            == blobproto.blob_to_array(NET.FromString(data).layer[0].blobs[0]).tolist()
        )


def test_values_in_several_pieces(path):
    """Packed and unpacked pieces of one field follow on another, as protobuf has it."""
    pieces = unpacked(5, [1, 2]) + unpacked(6, [9]) + encode_length(5, 8) + struct.pack("<2f", 3, 4)
    pieces += b"\xad\x00" + struct.pack("<f", 5) + unpacked(6, [8, 7, 6, 5])
    shape = b"\x3a\x02\x08\x05"
    [(_, _, [found])] = weights_of(wrap(shape + pieces), path)
    assert found.data.tolist() == [1, 2, 3, 4, 5] and found.diff.tolist() == [9, 8, 7, 6, 5]
    message = NET.FromString(wrap(shape + pieces)).layer[0].blobs[0]
    assert list(message.data) == [1, 2, 3, 4, 5]


def test_unknown_fields_are_skipped(path):
    extra = encode_varint(999 << 3) + b"\x05" + encode_varint(998 << 3 | 1) + b"8 bytes."
    extra += encode_length(997, 3) + b"abc" + encode_varint(996 << 3 | 5) + b"4 b."
    data = extra + wrap(extra + b"\x3a\x02\x08\x01" + extra + unpacked(5, [6])) + extra
    [(_, _, [found])] = weights_of(data, path)
    assert found.data.tolist() == [6]


# ---------------------------------------------------------------------------------------- errors


def test_absurd_shapes(path):
    text = error_of(net_with(blob([1, 2], [10**6, 10**6])), path)
    assert "layer 'ip'" in text and "byte " in text and "found 2" in text
    assert "expected 1000000000000 values for shape (1000000, 1000000)" in text
    assert "found (-1, 2)" in error_of(net_with(blob([1, 2], [-1, 2])), path)
    assert "expected a shape, found" in error_of(net_with(blob([], [2**40, 0, 2**40])), path)
    assert "at most 32 axes" in error_of(net_with(blob([1], [1] * 33)), path)
    assert "for a blob without a shape" in error_of(net_with(blob([1, 2])), path)
    assert "structure without the numbers" in error_of(net_with(blob([], [3])), path)
    text = error_of(net_with(blob([1, 2], [2], diff=[1])), path)
    assert "expected 2 gradient values for shape (2,), found 1" in text


def test_every_truncation_is_an_error(path):
    data = (INTEROP / "weights_convnet/w.caffemodel").read_bytes()
    whole = len(list(caffemodel.read_weights(INTEROP / "weights_convnet/w.caffemodel")))
    for end in range(len(data)):
        path.write_bytes(data[:end])
        try:  # a cut between two layers leaves a valid, shorter net
            assert len(list(caffemodel.read_weights(path))) < whole
        except ModelFileError as error:
            assert str(path) in str(error)
    assert "truncated" in error_of(data[:1500], path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b'name: "net"\nlayer { }', "It looks like text"),
        (b"\x80\x02}q\x00", "a Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (encode_length(3, 2) + b"ab", "found none"),
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "the start of a group"),
        (b"\xff" * 12, "longer than 10 bytes"),
        (b"\xa2\x06\x7f", "127 more bytes, found 0"),
        (encode_varint(100 << 3) + b"\x01", "for layer in"),
        (
            encode_length(100, 2) + b"\x08\x01",
            "a string, message or packed list for the layer's name",
        ),
        (encode_length(100, 3) + b"\x0a\x01\xff", "a layer's name in UTF-8"),
        (encode_length(100, 3) + b"\x0a\x7fa" + encode_length(3, 0), "1 in the message around it"),
        (wrap(encode_length(5, 3) + b"abc"), "a multiple of 4 bytes for data"),
        (wrap(b"\x28\x01"), "4 bytes for data"),
    ],
)
def test_foreign_and_damaged_files(path, content, words):
    assert words in error_of(content, path)


def test_other_caffe_files(path):
    for other in ("resume_adam/snap_iter_10.solverstate", "mean_binaryproto/mean.binaryproto"):
        assert "solverstate or a mean" in error_of((INTEROP / other).read_bytes(), path)
    data = MODELS[0].read_bytes()
    assert "for num" in error_of(data, path, blobproto.read_blob)
    assert "for iter" in error_of(data, path, solverstate.read_state)


def test_both_kinds_of_layers(path):
    net = net_with(blob([1], [1]))
    net.layers.add(name="old")
    assert "found both" in error_of(net, path)


def test_too_many_fields(path, monkeypatch):
    monkeypatch.setattr("demitasse.engine.wire.MAX_FIELDS", 50)
    assert "at most 50 fields" in error_of(encode_length(3, 0) * 51, path)


def test_missing_files(tmp_path):
    for path, words in ((tmp_path / "no", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(ModelFileError, match=words):
            caffemodel.read_weights(path)


# --------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("model", [m for m in MODELS if m.parent.name != "v1net"],
                         ids=lambda p: p.parent.name)  # fmt: skip
def test_written_weights_are_what_caffe_writes(model, path):
    net = NET.FromString(model.read_bytes())
    arrays = [[b.data for b in blobs] for _, _, blobs in caffemodel.read_weights(model)]
    caffemodel.write_weights(path, net, arrays)
    assert NET.FromString(path.read_bytes()) == net


def test_diffs_doubles_and_odd_arrays(path):
    net = NET(
        name="n", layer=[{"name": "a", "type": "T", "phase": 1}, {"name": "b"}, {"name": "c"}]
    )
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = [
        [base[:, ::2], base.T.astype(np.float64)],
        [],
        [np.float32(7), np.zeros((0, 3)), np.arange(3), base.astype(np.float16)],
    ]
    diffs = [[-a for a in layer] for layer in arrays]
    caffemodel.write_weights(path, net, iter(arrays), iter(diffs))
    message = NET.FromString(path.read_bytes())
    assert message.layer[0].phase == 1 and message.name == "n"
    assert list(message.layer[0].blobs[1].double_data) == base.T.ravel().tolist()
    assert list(message.layer[0].blobs[0].shape.dim) == [2, 2, 4]
    for (_, _, found), expected in zip(caffemodel.read_weights(path), arrays, strict=True):
        for ours, array in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.data, array)
            assert ours.shape == array.shape
            if array.size:
                np.testing.assert_array_equal(ours.diff, -array)


def test_writing_refuses(path):
    net = NET(layer=[{"name": "a"}])
    path.write_bytes(b"old")
    for arrays, diffs in (([], None), ([[], []], None), ([[np.ones(2)]], [[np.ones(3)]]),
                          ([[]], []), ([[np.ones(2)]], [[]])):  # fmt: skip
        with pytest.raises(ModelFileError):
            caffemodel.write_weights(path, net, arrays, diffs)
    with pytest.raises(ModelFileError, match="current format"):
        caffemodel.write_weights(path, NET(layers=[{"name": "a"}]), [])
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


def test_size_limit(path, monkeypatch):
    monkeypatch.setattr(caffemodel, "MAX_BYTES", 100)
    with pytest.raises(ModelFileError, match="Save in HDF5"):
        caffemodel.write_weights(path, NET(layer=[{"name": "a"}]), [[np.ones(30)]])
    assert not path.exists()


# ----------------------------------------------------------------------------- blobs and states


def test_mean_file(path):
    original = INTEROP / "mean_binaryproto/mean.binaryproto"
    mean = blobproto.read_blob(original)
    message = caffe_pb2.BlobProto.FromString(original.read_bytes())
    assert mean.shape == (message.num, message.channels, message.height, message.width)
    assert mean.ravel().tolist() == list(message.data) and mean.flags.writeable
    blobproto.write_blob(path, mean)
    assert path.read_bytes() == original.read_bytes()
    with pytest.raises(ModelFileError, match="four axes"):
        blobproto.write_blob(path, np.ones((1,) * 5))


def test_blob_messages():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = blobproto.array_to_blob(array, array + 1)
    assert list(message.shape.dim) == [2, 3] and list(message.diff) == [1, 2, 3, 4, 5, 6]
    found = blobproto.blob_to_array(message)
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable and found.flags.aligned
    with pytest.raises(ModelFileError):
        blobproto.blob_to_array(blob([1, 2], [3]))


@pytest.mark.parametrize("original", STATES, ids=lambda p: p.parent.name)
def test_golden_states(original, path):
    state = solverstate.read_state(original)
    message = caffe_pb2.SolverState.FromString(original.read_bytes())
    assert state["iter"] == message.iter == 10 and state["learned_net"] == message.learned_net
    assert state.keys() == {"iter", "current_step", "learned_net", "history"}
    assert len(state["history"]) == len(message.history)
    for array, theirs in zip(state["history"], message.history):
        assert array.shape == tuple(theirs.shape.dim)
        assert array.ravel().tolist() == list(theirs.data)
    solverstate.write_state(path, state)
    assert path.read_bytes() == original.read_bytes()


def test_state_with_our_fields(path):
    state = {
        "iter": 7,
        "current_step": 2,
        "learned_net": "é.caffemodel",
        "history": [np.ones((2, 3), np.float32), np.float32(4)],
        "random_seed": 2**64 - 1,
        "passes": 14,
        "test_passes": [3, 2**40],
        "layer_state": {"lstm": [np.zeros((1, 2), np.float32)], "a/b": []},
    }
    solverstate.write_state(path, state)
    found = solverstate.read_state(path)
    assert found.keys() == state.keys()
    for key in state.keys() - {"history", "layer_state"}:
        assert found[key] == state[key]
    assert all(map(np.array_equal, found["history"], state["history"]))
    assert found["layer_state"].keys() == state["layer_state"].keys()
    assert found["layer_state"]["lstm"][0].shape == (1, 2)
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    assert message.random_seed == 2**64 - 1 and list(message.test_passes) == [3, 2**40]
    # packed, as a later protobuf might write it
    path.write_bytes(encode_length(8266723, 3) + b"\x05\x80\x01")
    assert solverstate.read_state(path)["test_passes"] == [5, 128]
