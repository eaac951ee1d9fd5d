"""The configuration: py-faster-rcnn's keys, strict merging, and what layers get of it."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from demitasse import prototxt
from demitasse.detection import config
from demitasse.detection.config import Config
from demitasse.engine.errors import ModelFileError
from demitasse.layers.anchor_target import AnchorTargetSettings
from demitasse.layers.proposal import ProposalSettings


def test_defaults_are_those_of_py_faster_rcnn():
    cfg = Config()
    assert cfg.TRAIN.SCALES == (600,) and cfg.TRAIN.MAX_SIZE == 1000
    assert cfg.TRAIN.IMS_PER_BATCH == 2
    assert cfg.TRAIN.BATCH_SIZE == 128 and cfg.TRAIN.FG_FRACTION == 0.25
    assert cfg.TRAIN.BG_THRESH_LO == 0.1 and cfg.TRAIN.RPN_BATCHSIZE == 256
    assert cfg.TRAIN.RPN_PRE_NMS_TOP_N == 12000 and cfg.TEST.RPN_POST_NMS_TOP_N == 300
    assert cfg.TEST.NMS == 0.3 and cfg.RNG_SEED == 3
    assert cfg.PIXEL_MEANS == (((102.9801, 115.9465, 122.7717),),)


@pytest.mark.parametrize("name", ["shapes.yml", "blood_cells.yml"])
def test_a_kill_costs_a_part_of_a_short_run_only(name):
    cfg = config.load(prototxt.FOLDER / name)
    stages = [*cfg.SOLVER.ALT_OPT_ITERS, cfg.SOLVER.END2END_ITERS]
    assert 50 <= cfg.TRAIN.SNAPSHOT_ITERS <= min(250, max(stages) - 1)


def test_files_of_py_faster_rcnn_load(tmp_path):
    path = tmp_path / "faster_rcnn_end2end.yml"
    path.write_text(
        "EXP_DIR: faster_rcnn_end2end\nTRAIN:\n  HAS_RPN: True\n  IMS_PER_BATCH: 1\n"
        "  BBOX_NORMALIZE_TARGETS_PRECOMPUTED: True\n  RPN_POSITIVE_OVERLAP: 0.7\n"
        "  RPN_BATCHSIZE: 256\n  PROPOSAL_METHOD: gt\n  BG_THRESH_LO: 0.0\nTEST:\n  HAS_RPN: True\n"
    )
    cfg = config.load(path)
    assert cfg.TRAIN.HAS_RPN and cfg.TEST.HAS_RPN and cfg.TRAIN.BG_THRESH_LO == 0
    assert cfg.TRAIN.PROPOSAL_METHOD == "gt" and cfg.EXP_DIR == "faster_rcnn_end2end"
    assert cfg.TRAIN.MAX_SIZE == 1000


def test_set_takes_literals_and_words():
    words = ["TRAIN.SCALES", "[480, 576]", "EXP_DIR", "mine", "SOLVER.BASE_LR", "1e-3"]
    cfg = config.set_from_list(Config(), words)
    assert cfg.TRAIN.SCALES == (480, 576) and cfg.EXP_DIR == "mine" and cfg.SOLVER.BASE_LR == 1e-3
    cfg = config.set_from_list(cfg, ["SOLVER.BASE_LR", "None", "TEST.NMS", "0.5"])
    assert cfg.SOLVER.BASE_LR is None and cfg.TEST.NMS == 0.5 and cfg.TRAIN.SCALES == (480, 576)


def test_text_that_is_no_literal_is_a_word():
    assert config.set_from_list(Config(), ["EXP_DIR", "[" * 500]).EXP_DIR == "[" * 500


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["TRAIN.SCALE", "[600]"], "SCALES"),
        (["TRAIM.SCALES", "[600]"], "TRAIN"),
        (["TRAIN.SCALES", "600"], "list"),
        (["TRAIN.MAX_SIZE", "10.5"], "type int"),
        (["TRAIN.MAX_SIZE", "1e999"], "type int"),
        (["TRAIN.USE_FLIPPED", "1"], "type bool"),
        (["TRAIN", "3"], "mapping"),
        (["TRAIN.SCALES"], "pairs"),
    ],
)
def test_bad_settings_say_where_and_what(words, says):
    with pytest.raises(ModelFileError, match=says):
        config.set_from_list(Config(), words)


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "TRAIN: 3", "\x00"])
def test_broken_files_are_named(tmp_path, text):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=r"bad\.yml"):
        config.load(path)
    with pytest.raises(ModelFileError, match=r"none\.yml"):
        config.load(tmp_path / "none.yml")


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yml").write_text("# nothing\n")
    assert config.load(tmp_path / "empty.yml") == Config()


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    st.none() | st.floats(1e-6, 1, allow_nan=False),
    st.booleans(),
)
def test_what_is_written_is_read_back(scales, rate, flipped):
    cfg = config.merge(
        Config(),
        {"TRAIN": {"SCALES": scales, "USE_FLIPPED": flipped}, "SOLVER": {"BASE_LR": rate}},
    )
    text = yaml.safe_dump(config.to_dict(cfg))
    assert config.merge(Config(), yaml.safe_load(text)) == cfg


def test_layers_get_their_settings():
    cfg = config.set_from_list(
        Config(), ["TRAIN.RPN_BATCHSIZE", "64", "TEST.RPN_MIN_SIZE", "4", "TRAIN.FG_THRESH", ".6"]
    )
    settings = {type(s): s for s in config.layer_settings(cfg)}
    assert settings[AnchorTargetSettings].RPN_BATCHSIZE == 64
    assert settings[ProposalSettings].test.RPN_MIN_SIZE == 4
    assert settings[ProposalSettings].train.RPN_MIN_SIZE == 16
    kinds = {type(s).__name__: s for s in settings.values()}
    assert kinds["ProposalTargetSettings"].FG_THRESH == 0.6


def test_default_settings_of_layers_are_those_of_the_config():
    for made in config.layer_settings(Config()):
        assert made == type(made)()


def test_configs_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().EXP_DIR = "other"
