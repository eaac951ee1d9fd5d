"""What the command lines around a trained detector have in common."""

import os
import sys
import threading

import pytest

from demitasse.detection import bundle, commandline
from demitasse.detection.config import Config
from demitasse.engine import device as devices
from demitasse.engine import precision
from demitasse.engine.errors import DeviceError, ModelFileError
from demitasse.tools import compress_net, demo, eval_recall, rpn_generate, test_net, train_net

pytestmark = pytest.mark.usefixtures("tool_folder")


@pytest.mark.parametrize(
    "tool, words",
    [
        (demo, ["--cpu", "--set", "DATA_DIR", "moved"]),
        (demo, ["--cpu", "--data_dir", "moved"]),
        (test_net, ["--cpu", "--net", "vgg16", "--set", "DATA_DIR", "moved"]),
        (test_net, ["--cpu", "--net", "vgg16", "--data_dir", "moved"]),
        (rpn_generate, ["--cpu", "--net", "vgg16", "--set", "DATA_DIR", "moved"]),
        (compress_net, ["--net", "vgg16", "--data_dir", "moved"]),
    ],
)
def test_published_detectors_lie_in_data_dir(tool, words, capsys):
    assert tool.main(words) == 1
    assert "moved/faster_rcnn_models/VGG16" in capsys.readouterr().err


def parse(*words):
    parser = commandline.make_parser("test")
    commandline.add_common_flags(parser)
    return parser.parse_args(words)


def test_the_config_of_a_command_line(tmp_path):
    (tmp_path / "cfg.yml").write_text("EXP_DIR: from_file\nTEST: {NMS: 0.5, MAX_SIZE: 800}\n")
    args = parse("--cfg", "cfg.yml", "--set", "TEST.NMS", "0.6", "--seed", "5", "--set",
                 "TRAIN.SCALES", "[480, 600]", "TEST.RPN_PRE_NMS_TOP_N", "-1")  # fmt: skip
    cfg = commandline.resolve_config(args)
    assert (cfg.EXP_DIR, cfg.TEST.NMS, cfg.TEST.MAX_SIZE) == ("from_file", 0.6, 800)
    assert cfg.TRAIN.SCALES == (480, 600) and cfg.TEST.RPN_PRE_NMS_TOP_N == -1
    assert cfg.RNG_SEED == 5
    base = commandline.resolve_config(parse("--set", "EXP_DIR", "base"))
    assert commandline.resolve_config(parse("--seed", "1"), base).EXP_DIR == "base"
    moved = commandline.resolve_config(parse("--set", "DATA_DIR", "a", "--data_dir", "b"), base)
    assert (moved.DATA_DIR, moved.EXP_DIR) == ("b", "base")
    assert commandline.resolve_config(parse()) == Config()
    with pytest.raises(ModelFileError, match="pairs"):
        commandline.resolve_config(parse("--set", "TEST.NMS"))


def test_the_device_of_a_command_line(monkeypatch, capsys):
    assert commandline.resolve_device(parse("--cpu")) is devices.CPU
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert commandline.resolve_device(parse()) is devices.CPU
    assert capsys.readouterr().err == "Using the CPU (no GPU found).\n"
    with pytest.raises(SystemExit):
        parse("--cpu", "--gpu", "0")

    def gpu_device(index):
        if index == 1:
            raise DeviceError("GPU 1", "a GPU", "none")
        return f"gpu {index}"

    monkeypatch.setattr(devices, "gpu_device", gpu_device)
    with pytest.raises(DeviceError, match="GPU 1"):
        commandline.resolve_device(parse("--gpu", "1"))
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    assert commandline.resolve_device(parse()) == "gpu 0"
    assert commandline.resolve_device(parse("--gpu", "0")) == "gpu 0"


def test_the_precision_of_a_command_line(monkeypatch, capsys):
    monkeypatch.setenv(precision.VARIABLE, "bfloat16")
    commandline.resolve_device(parse("--cpu"))
    assert precision.Precision().math == "bfloat16"
    commandline.resolve_device(parse("--cpu", "--precision", "tf32"))
    assert precision.Precision().math == "tf32"
    with pytest.raises(SystemExit):
        parse("--precision", "float8")
    assert "'float32', 'tf32'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tool, flag, word, least",
    [
        (test_net, "--max-images", "-5", 1),
        (test_net, "--max-images", "0", 1),
        (test_net, "--max-images", "five", 1),
        (test_net, "--num_dets", "-1", 0),
        (train_net, "--eval-interval", "-1", 0),
        (train_net, "--iters", "-1", 0),
        (train_net, "--pretrain-iters", "-1", 0),
    ],
)
def test_numbers_that_flags_cannot_have(tool, flag, word, least, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(["--net", "any", flag, word])
    assert stop.value.code == 2
    expected = f"argument {flag}: expected a whole number of at least {least}, found '{word}'"
    assert expected in capsys.readouterr().err


def test_waiting_for_weights(tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(commandline, "_WAIT", 0.01)
    model = bundle.load(tiny_path)
    later = "later.caffemodel"
    threading.Timer(0.1, os.link, (model.weights, later)).start()
    parser = commandline.make_parser("test")
    commandline.add_model_flags(parser)
    args = parser.parse_args(["--def", tiny_path, "--net", later, "--wait"])
    found = commandline.model_of(args)
    assert found.weights == later and found.classes == model.classes
    assert "Waiting for later.caffemodel" in capsys.readouterr().err


def test_waiting_may_have_a_value(capsys):
    parser = commandline.make_parser("test")
    commandline.add_model_flags(parser)
    words = ([], ["--wait"], ["--wait", "True"], ["--wait", "1"], ["--wait", "0"],
             ["--wait", "False"])  # fmt: skip
    found = [parser.parse_args(["--net", "x", *w]).wait for w in words]
    assert found == [False, True, True, True, False, False]
    with pytest.raises(SystemExit):
        parser.parse_args(["--net", "x", "--wait", "long"])
    assert "expected True or False, found 'long'" in capsys.readouterr().err


def test_all_tools_take_out_and_output():
    net = ["--net", "x"]
    for tool, name, words in (
        (test_net, "out", net), (demo, "out", net), (rpn_generate, "out", net),
        (compress_net, "out", net), (eval_recall, "plot", []), (train_net, "output", []),
    ):  # fmt: skip
        for flag in ("--out", "--output"):
            assert getattr(tool.parse_args([*words, flag, "there"]), name) == "there"


@pytest.mark.parametrize("tool", [test_net, demo, rpn_generate, compress_net])
def test_tools_explain_themselves(tool, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [tool.__name__])
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "--net" in capsys.readouterr().out
