"""A run's folder: steps that are done once, new folders for new runs, resuming."""

import json

import pytest

from demitasse.detection.run_folder import Run, differences, folder_name
from demitasse.engine.errors import DataError

SETTINGS = {"net": "zf", "config": {"TRAIN": {"SCALES": (600,)}, "RNG_SEED": 3}}


def test_a_step_is_done_once_and_remembered(tmp_path):
    run, calls = Run.open(tmp_path / "r", SETTINGS), []

    def work():
        calls.append(1)
        return {"weights": "a.caffemodel"}

    assert run.step("one", work) == run.step("one", work) == {"weights": "a.caffemodel"}
    again = Run.open(tmp_path / "r", SETTINGS, resume=True)
    assert again.step("one", work) == {"weights": "a.caffemodel"}
    assert len(calls) == 1 and again.path("x") == str(tmp_path / "r" / "x")


def test_a_step_that_fails_is_not_remembered(tmp_path):
    run = Run.open(tmp_path / "r", SETTINGS)
    with pytest.raises(ZeroDivisionError):
        run.step("one", lambda: 1 / 0)
    assert Run.open(tmp_path / "r", SETTINGS, resume=True).steps == {}


def test_a_new_run_leaves_earlier_ones_alone(tmp_path):
    folders = [Run.open(tmp_path / "r", SETTINGS).folder for _ in range(3)]
    assert [f.name for f in folders] == ["r", "r_2", "r_3"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert Run.open(tmp_path / "other", SETTINGS).folder.name == "other_2"


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "r").mkdir()
    assert Run.open(tmp_path / "r", SETTINGS).folder.name == "r"


def test_resume_takes_the_newest_run_with_the_same_settings(tmp_path):
    Run.open(tmp_path / "r", SETTINGS).step("one", dict)
    Run.open(tmp_path / "r", SETTINGS).step("two", dict)
    Run.open(tmp_path / "r", {**SETTINGS, "net": "vgg16"})
    run = Run.open(tmp_path / "r", SETTINGS, resume=True)
    assert (run.folder.name, run.steps) == ("r_2", {"two": {}})


def test_resume_takes_a_run_that_differs_in_what_is_free(tmp_path):
    for net, seed in (("zf", 3), ("zf", 4), ("vgg16", 5)):
        Run.open(tmp_path / "r", {"net": net, "config": {"RNG_SEED": seed}})
    wanted, free = {"net": "zf", "config": {"RNG_SEED": 9}}, ("config.RNG_SEED",)
    run = Run.open(tmp_path / "r", wanted, resume=True, free=free)
    assert (run.folder.name, run.settings["config"]) == ("r_2", {"RNG_SEED": 4})
    with pytest.raises(DataError, match=r"found net: was 'vgg16', is 'resnet'\. "):
        Run.open(tmp_path / "r", {**wanted, "net": "resnet"}, resume=True, free=free)


def test_resume_with_other_settings_lists_what_differs(tmp_path):
    Run.open(tmp_path / "r", SETTINGS)
    other = {"net": "zf", "config": {"TRAIN": {"SCALES": (480,)}, "RNG_SEED": 4}, "iters": [5]}
    with pytest.raises(DataError) as caught:
        Run.open(tmp_path / "r", other, resume=True)
    text = str(caught.value)
    assert "config.RNG_SEED: was 3, is 4; config.TRAIN.SCALES: was [600], is [480]" in text
    assert (
        "iters: was None, is [5]" in text and "net" not in text.split("found")[1].split("Give")[0]
    )


def test_resume_of_nothing_begins(tmp_path, caplog):
    caplog.set_level("INFO")
    assert Run.open(tmp_path / "r", SETTINGS, resume=True).steps == {}
    assert "Nothing to resume" in caplog.text


def test_a_broken_state_is_an_error_that_names_the_file(tmp_path):
    Run.open(tmp_path / "r", SETTINGS)
    for text in ("{", "[1]", "{}", '"x"', "\xff"):
        (tmp_path / "r" / "state.json").write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"state\.json: expected the state of a training run"):
            Run.open(tmp_path / "r", SETTINGS, resume=True)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(DataError, match="found a file"):
        Run.open(tmp_path / "r", SETTINGS)


def test_state_is_what_the_page_says(tmp_path):
    Run.open(tmp_path / "r", SETTINGS).step("one", lambda: {"weights": "w"})
    state = json.loads((tmp_path / "r" / "state.json").read_text())
    assert state["steps"] == {"one": {"weights": "w"}}
    assert state["settings"]["config"] == {"TRAIN": {"SCALES": [600]}, "RNG_SEED": 3}
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["state.json"]


def test_differences_go_down_to_the_values():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: was 2, is 3"]
    assert differences({"a": {"b": 1}}, {"a": 5}) == ["a: was {'b': 1}, is 5"]
    assert differences(SETTINGS, SETTINGS) == []


@pytest.mark.parametrize(
    "imdb, expected",
    [
        ("voc_2007_trainval", "voc_2007_trainval"), ("voc:../my data", "voc_.._my_data"),
        ("coco:a.json:images", "coco_a.json_images"), ("///", "data"),
    ],
)  # fmt: skip
def test_folder_names(imdb, expected):
    assert folder_name(imdb) == expected


def test_state_is_json_for_every_reader(tmp_path):
    """Numbers that are not finite, of a class without objects for example, are null."""
    run = Run.open(tmp_path / "r", {**SETTINGS, "limit": float("inf")})
    result = run.step("test", lambda: {"ring": float("nan"), "all": [1.5, float("-inf")]})
    assert result == {"ring": None, "all": [1.5, None]}

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / "r" / "state.json").read_text()
    state = json.loads(text, parse_constant=refuse)
    assert state["steps"]["test"] == result and state["settings"]["limit"] is None
    again = Run.open(tmp_path / "r", {**SETTINGS, "limit": float("inf")}, resume=True)
    assert again.step("test", dict) == result
