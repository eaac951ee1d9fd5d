"""Prototxt from anywhere: an error that says where, or a message; never a crash or a hang."""

import random

import numpy as np
import pytest
from fuzzing import GOLDEN, bounded, fuzz, mutated, random_message
from hypothesis import strategies as st

from demitasse.engine import prototxt, upgrade
from demitasse.engine.proto import caffe_pb2

KINDS = [caffe_pb2.NetParameter, caffe_pb2.SolverParameter]
NAMES = [
    field.name
    for kind in (*KINDS, caffe_pb2.LayerParameter, caffe_pb2.V1LayerParameter)
    for field in kind.DESCRIPTOR.fields
]
V0_NET = b"""input: "data" input_dim: [1, 3, 4, 4]
layers { layer { name: "p" type: "padding" pad: 1 } bottom: "data" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "c" }
"""
TOKENS = [
    *"{}<>[]:;,-#\"'\\\n",
    *("0", "1", "-1", "0x10", "017", "1.5e-3f", "1e999", "nan", "99999999999", "true", "MAX"),
    *("'a'", '"b"', r"'\777'", r"'\ud800'", r"'\x'", "# c\n", "\0", "\xff", "layer {", "layers {"),
    *("type: CONVOLUTION", 'type: "ReLU"', "solver_type: ADAM", "input_dim: 3", 'input: "x"'),
]


def read(text, kind):
    with bounded():
        message = prototxt.parse_text(text, kind, "fuzz.prototxt")
        again = prototxt.parse_text(prototxt.format_text(message), kind)
        assert again.SerializeToString(deterministic=True) == message.SerializeToString(
            deterministic=True
        )
        if kind is caffe_pb2.NetParameter:
            net = upgrade.upgrade_net(message, "fuzz.prototxt")
            assert not net.layers and not net.input
            before = net.SerializeToString(deterministic=True)
            upgrade.upgrade_net(net)
            assert net.SerializeToString(deterministic=True) == before
        else:
            upgrade.upgrade_solver(message, "fuzz.prototxt")


def golden_texts():
    texts = [V0_NET]
    for path in sorted(GOLDEN.glob("*/*.npz")):
        with np.load(path) as case:
            texts += [str(case[key]).encode() for key in ("prototxt", "solver") if key in case]
    texts += [path.read_bytes() for path in sorted(GOLDEN.glob("interop/*/*.prototxt"))]
    assert len(texts) > 50
    return texts


def test_random_text():
    fuzz(read, text=st.text(max_size=200) | st.binary(max_size=200), kind=st.sampled_from(KINDS))


def test_random_tokens():
    token = st.sampled_from(TOKENS) | st.sampled_from(NAMES)
    fuzz(read, text=st.lists(token, max_size=40).map(" ".join), kind=st.sampled_from(KINDS))


def test_nested_fields():
    """Random trees of known fields: what mostly parses."""
    value = st.sampled_from(["1", "-1", "0.5", "true", "'a'", "MAX", "TRAIN", "[1, 2]", "[]"])
    scalar = st.tuples(st.sampled_from(NAMES), value).map(": ".join)
    trees = st.recursive(
        scalar,
        lambda inner: st.tuples(st.sampled_from(NAMES), st.lists(inner, max_size=4)).map(
            lambda pair: f"{pair[0]} {{ {' '.join(pair[1])} }}"
        ),
        max_leaves=20,
    )
    texts = st.lists(trees, max_size=6).map("\n".join)
    fuzz(read, text=texts, kind=st.sampled_from(KINDS))


def test_mutated_files():
    dictionary = [token.encode("latin-1") for token in TOKENS]
    fuzz(read, text=mutated(golden_texts(), dictionary), kind=st.sampled_from(KINDS))


@pytest.mark.parametrize("name", ["NetParameter", "SolverParameter", "V1LayerParameter", "Datum"])
def test_round_trip_of_every_field(name, tmp_path):
    kind = getattr(caffe_pb2, name)

    def check(seed):
        message = random_message(kind, random.Random(seed))
        data = message.SerializeToString(deterministic=True)
        prototxt.write_text(message, tmp_path / "text")
        found = prototxt.read_text(tmp_path / "text", kind)
        assert found.SerializeToString(deterministic=True) == data
        prototxt.write_binary(message, tmp_path / "binary")
        found = prototxt.read_binary(tmp_path / "binary", kind)
        assert found.SerializeToString(deterministic=True) == data

    fuzz(check, examples=10, seed=st.integers(0, 2**32))
