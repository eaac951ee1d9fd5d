"""Prototxt reading: the syntax that Caffe accepts, and errors that say where and what."""

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from demitasse.engine import prototxt
from demitasse.engine.errors import ModelFileError
from demitasse.engine.proto import caffe_pb2

GOLDEN = Path(__file__).parents[1] / "golden"
NET = caffe_pb2.NetParameter


def parse(text, kind=NET):
    return prototxt.parse_text(text, kind, source="net.prototxt")


def message_of(text, kind=NET):
    with pytest.raises(ModelFileError) as error:
        parse(text, kind)
    return str(error.value)


# ---------------------------------------------------------------------------------------- syntax


def test_golden_texts_parse_as_protobuf_does():
    count = 0
    for path in sorted(GOLDEN.glob("*/*.npz")):
        with np.load(path) as case:
            for key, kind in (("prototxt", NET), ("solver", caffe_pb2.SolverParameter)):
                if key in case:
                    text = str(case[key])
                    assert parse(text, kind) == text_format.Parse(text, kind()), path
                    count += 1
    assert count > 50


def test_syntax_variants():
    with np.load(GOLDEN / "layers" / "syntax_variants.npz") as case:
        net = parse(str(case["prototxt"]))
    assert net.name == "syntax" and net.force_backward
    assert list(net.input_dim) == [2, 3, 4, 3]
    filler = net.layer[0].convolution_param.weight_filler
    assert filler.type == "constant" and filler.value == 0.25
    assert list(net.layer[0].convolution_param.kernel_size) == [2, 3]
    assert net.layer[1].pooling_param.pool == caffe_pb2.PoolingParameter.AVE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-2.5", -2.5),
        ("- 2.5", -2.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1e3),
        ("1.5E-2F", 0.015),
        ("00.5", 0.5),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("nan", math.nan),
    ],
)
def test_floats(text, value):
    found = parse(f"base_lr: {text}", caffe_pb2.SolverParameter).base_lr
    np.testing.assert_equal(np.float32(found), np.float32(value))


@pytest.mark.parametrize(
    "text", ["", "+1", "0x10", "01", "1.5.2", "e5", "1e", '"1"', "1_0", "true"]
)
def test_not_floats(text):
    assert "expected" in message_of(f"base_lr: {text} ", caffe_pb2.SolverParameter)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("0x1F", 31), ("-0x10", -16), ("017", 15), ("2147483647", 2**31 - 1)],
)
def test_integers(text, value):
    assert list(parse(f"input_dim: {text}").input_dim) == [value]


@pytest.mark.parametrize(
    "text", ["2147483648", "-2147483649", "1.0", "08", "9" * 100_000, "0x", "ten", "1f", "--1"]
)
def test_not_integers(text):
    assert message_of(f"input_dim: {text}").startswith("net.prototxt:1:")


def test_unsigned_has_no_sign():
    text = "layer { pooling_param { kernel_size: -1 } }"
    assert "kernel_size from 0 to 4294967295, found -1" in message_of(text)


def test_strings():
    net = parse(r"""name: "a\n\x41\101\u00e9\"" 'b"c' # joined""")
    assert net.name == 'a\nAAé"b"c'
    datum = parse(r'data: "\377\000x"', caffe_pb2.Datum)
    assert datum.data == b"\xff\x00x"


@pytest.mark.parametrize(
    "text", [r'"\q"', r'"\777"', r'"\ud800"', r'"\U00110000"', r'"\x"', r'"\377"', '"a', '"a\nb"']
)
def test_bad_strings(text):
    assert message_of(f"name: {text}").startswith("net.prototxt:1:7: expected")


def test_booleans():
    for text in ("true", "True", "t", "1", "0x1"):
        assert parse(f"force_backward: {text}").force_backward
    for text in ("false", "False", "f", "0"):
        net = parse(f"force_backward: {text}")
        assert net.HasField("force_backward") and not net.force_backward
    assert "true or false" in message_of("force_backward: yes")
    assert "from 0 to 1" in message_of("force_backward: 2")


def test_separators_brackets_and_lists():
    net = parse("""
        layer: [{ name: "a"; bottom: [] }, < name: "b", >];
        layer < top: ["x", 'y' "z"]; loss_weight: [1, -2] >
    """)
    assert [layer.name for layer in net.layer] == ["a", "b", ""]
    assert list(net.layer[2].top) == ["x", "yz"] and list(net.layer[2].loss_weight) == [1, -2]


def test_byte_order_mark_and_foreign_comments():
    assert parse(b'\xef\xbb\xbfname: "a"').name == "a"
    assert parse('\ufeffname: "a"').name == "a"
    assert parse(b'# \xb0\xd7\nname: "# \xc3\xa9" # \xff "\n').name == "# é"
    text = message_of(b'name: "a"\n# ok \xff\nname: "\xff"')
    assert text.startswith("net.prototxt:3:8: expected text in UTF-8, found the byte 0xff")


# ---------------------------------------------------------------------------------------- errors


def test_unknown_field_names_the_closest():
    text = 'layer {\n  name: "a"\n  convolutoin_param { num_output: 3 }\n}'
    assert message_of(text) == (
        "net.prototxt:3:3: expected a field of LayerParameter, found 'convolutoin_param'. "
        "Did you mean 'convolution_param' or 'pooling_param' or 'concat_param'?"
    )


def test_unknown_field_that_belongs_elsewhere():
    assert "It belongs inside convolution_param" in message_of("layer { kernel_size: 3 }")
    text = message_of('layer { name: "a"\nlayer { name: "b" }')
    assert text.startswith("net.prototxt:2:1:") and "a field of NetParameter" in text


@pytest.mark.parametrize(
    "given, meant, text",
    [
        ("NetParameter", "SolverParameter", "base_lr: 1"),
        ("SolverParameter", "NetParameter", "layer {}"),
    ],
)
def test_a_net_in_place_of_a_solver(given, meant, text):
    with pytest.raises(ModelFileError, match=f"a field of {given}, .* It is a field of {meant}: "):
        prototxt.parse_text(text, getattr(caffe_pb2, given))


def test_unknown_enum_value_lists_the_valid_ones():
    text = message_of("layer { pooling_param { pool: MEAN } }")
    assert "net.prototxt:1:31: expected pool to be one of MAX, AVE, STOCHASTIC, found MEAN" in text
    assert "Did you mean 'MAX'?" in message_of("layer { pooling_param { pool: max } }")
    assert "found 7" in message_of("layer { pooling_param { pool: 7 } }")
    assert "one of MAX" in message_of('layer { pooling_param { pool: "MAX" } }')


def test_singular_field_given_twice():
    assert message_of('name: "a"\nname: "b"').startswith("net.prototxt:2:1: expected name once")
    text = "layer { relu_param {} relu_param {} }"
    assert "relu_param once in a LayerParameter" in message_of(text)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("layer {", "1:8", "} to end layer, which begins in line 1"),
        ("layer <\n name: 'a' }", "2:12", "the name of a field of LayerParameter"),
        ("layer: 3", "1:8", "{ to begin layer"),
        ("name 'a'", "1:6", ": after name"),
        ("name: a", "1:7", "a quoted string for name"),
        ("input_dim: [1 2]", "1:15", ", or ] in the list"),
        ("name: ['a']", "1:7", "a quoted string"),
        ("[caffe.ext] { }", "1:1", "the name of a field"),
        ("7: 1", "1:1", "the name of a field"),
        ("name: 'a' \0", "1:11", "a NUL byte"),
        ("name: 'a\0'", "1:7", "a string"),
        ("name: 'a' $", "1:11", "found '$'"),
        ("nämé: 1", "1:1", "found 'n'"),
    ],
)
def test_other_errors(text, where, words):
    message = message_of(text)
    assert message.startswith(f"net.prototxt:{where}: expected") and words in message


# ------------------------------------------------------------------------------------ resilience

MEGA = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "{" * MEGA,
        "layer{" * MEGA,
        "input: " + "[" * MEGA,
        'name: "' + "\\" * MEGA,
        'name: "' + "\\\\" * MEGA + '"',
        'name: "' + r"\q" * MEGA,
        " " * MEGA + "\0",
        "#" * MEGA + "\n?",
        "x" * MEGA,
        "input_dim: " + "9" * MEGA,
        "base_lr: " + "9" * MEGA,
        "name: " + "'a' " * (MEGA // 4),
        "layer{}" * (MEGA // 3),
        "1e" * MEGA,
    ],
    ids=lambda text: text[:12].replace("\0", "0"),
)
def test_long_odd_texts_take_little(text):
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    for kind in (NET, caffe_pb2.SolverParameter):
        try:
            parse(text, kind)
        except ModelFileError as error:
            assert len(str(error)) < 500
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


def test_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(prototxt, "MAX_TEXT_BYTES", 1000)
    assert "at most 1000 characters" in message_of("#" * 1001)
    (tmp_path / "long").write_bytes(b"#" * 1001)
    with pytest.raises(ModelFileError, match="a larger file"):
        prototxt.read_net(tmp_path / "long")


def test_too_many_messages(monkeypatch):
    monkeypatch.setattr("demitasse.engine.textparser.MAX_MESSAGES", 10)
    assert len(parse("layer {}" * 10).layer) == 10
    assert "at most 10 messages" in message_of("layer {}" * 11)


# ----------------------------------------------------------------------------------------- files


def test_read_net_upgrades(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('input: "x" input_dim: [1, 2, 3, 4] layers { name: "r" type: RELU }')
    net = prototxt.read_net(path)
    assert [layer.type for layer in net.layer] == ["Input", "ReLU"]


def test_read_solver_sets_the_snapshot_prefix(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text("solver_type: ADAM")
    solver = prototxt.read_solver(path)
    assert solver.type == "Adam" and solver.snapshot_prefix == str(tmp_path / "solver")
    path.write_text(f'snapshot_prefix: "{tmp_path.as_posix()}"')
    assert Path(prototxt.read_solver(path).snapshot_prefix) == tmp_path / "solver"
    path.write_text('snapshot_prefix: "runs/a"')
    assert prototxt.read_solver(path).snapshot_prefix == "runs/a"


def test_files_that_are_no_prototxt(tmp_path):
    def error_of(path):
        with pytest.raises(ModelFileError) as error:
            prototxt.read_net(path)
        return str(error.value)

    assert "no such file" in error_of(tmp_path / "missing")
    assert "no folder" in error_of(tmp_path / "missing" / "net")
    assert "a folder" in error_of(tmp_path)
    assert "cannot be opened" in error_of("a\0b") and "cannot be opened" in error_of(1)
    for content, kind in (
        (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
        (b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (b"<html><body>404", "a web page"),
        ((GOLDEN / "interop/v1net/weights.caffemodel").read_bytes(), "a binary file"),
    ):
        (tmp_path / "file").write_bytes(content)
        assert kind in error_of(tmp_path / "file")


def test_read_binary_errors(tmp_path):
    path = tmp_path / "m"
    for content, words in (
        (b"\x0a\xff", "truncated or damaged"),
        (b"name: 'a'", "It may be text"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=words):
            prototxt.read_binary(path, NET)


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), prototxt.atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["net.prototxt"]
    with pytest.raises(ModelFileError, match="to write this file"):
        prototxt.write_text(NET(), tmp_path / "missing" / "net")
    with pytest.raises(ModelFileError, match="a file to write"):
        prototxt.write_text(NET(), tmp_path)
