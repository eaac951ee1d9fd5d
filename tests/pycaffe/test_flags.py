import pytest

from caffe.flags import Flag, FlagError, HelpRequest, command, parse, usage_error
from demitasse.engine.errors import DataError

FLAGS = (
    Flag("gray", False, "grayscale"),
    Flag("verbose", True),
    Flag("resize_width", 0, "width"),
    Flag("rate", 0.5),
    Flag("backend", "lmdb"),
    Flag("note", "", "nothing"),
    Flag("allow_python_layer", ()),
)


@pytest.mark.parametrize(
    "words",
    [
        ["-backend=leveldb"],
        ["--backend=leveldb"],
        ["-backend", "leveldb"],
        ["--backend", "leveldb"],
        ["-backend", "x", "--backend", "leveldb"],
    ],
)
def test_every_way_to_give_a_value(words):
    options, rest = parse(words, FLAGS)
    assert options.backend == "leveldb"
    assert rest == []


@pytest.mark.parametrize(
    "word, gray, verbose",
    [
        ("-gray", True, True),
        ("--gray=true", True, True),
        ("--gray=F", False, True),
        ("-noverbose", False, False),
        ("--noverbose", False, False),
        ("--verbose=0", False, False),
    ],
)
def test_booleans(word, gray, verbose):
    options, _ = parse([word], FLAGS)
    assert (options.gray, options.verbose) == (gray, verbose)


def test_a_boolean_takes_no_following_word():
    options, rest = parse(["-gray", "false"], FLAGS)
    assert options.gray is True
    assert rest == ["false"]


def test_types_defaults_and_mixed_words():
    options, rest = parse(
        ["root/", "-resize_width", "-3", "list.txt", "--rate=1e-3", "--", "-db"], FLAGS
    )
    assert (options.resize_width, options.rate) == (-3, 1e-3)
    assert options.backend == "lmdb"
    assert rest == ["root/", "list.txt", "-db"]


def test_repeated_flag_collects_and_dashes_are_underscores():
    options, _ = parse(["--allow-python-layer", "a", "-allow_python_layer=b"], FLAGS)
    assert options.allow_python_layer == ["a", "b"]
    assert parse([], FLAGS)[0].allow_python_layer == []


def test_unknown_flag_names_the_closest():
    with pytest.raises(FlagError, match="'resize_width'"):
        parse(["--resize_widht=3"], FLAGS)
    with pytest.raises(FlagError, match="-backend"):
        parse(["-zzz"], FLAGS)


@pytest.mark.parametrize("word", ["-resize_width=three", "-gray=maybe", "-rate=", "-backend"])
def test_bad_or_missing_value_names_the_flag(word):
    with pytest.raises(FlagError, match=word.split("=")[0]):
        parse([word], FLAGS)


@pytest.mark.parametrize("word", ["-nobackend", "-nogray=true"])
def test_no_negates_only_a_bare_boolean(word):
    with pytest.raises(FlagError, match="known flag"):
        parse([word], FLAGS)


def test_help_shows_usage_and_flags():
    with pytest.raises(HelpRequest) as caught:
        parse(["--help"], FLAGS, "tool [FLAGS] FILE")
    text = str(caught.value)
    assert text.startswith("tool [FLAGS] FILE")
    assert "-resize_width: width (default: 0)" in text
    assert "-gray: grayscale (default: false)" in text
    assert "-note: nothing" in text


def test_command_turns_errors_into_a_line_and_a_status(capsys):
    @command
    def main(argv=None):
        if argv == ["data"]:
            raise DataError("a.jpg", "an image", "nothing")
        if argv == ["usage"]:
            raise usage_error("tool FILE", "one file", argv)
        if argv == ["file"]:
            open("/nonexistent/x").close()
        return parse(argv, FLAGS, "usage line") and None

    assert main([]) == 0
    assert main(["data"]) == 1
    assert "a.jpg: expected an image" in capsys.readouterr().err
    assert main(["usage"]) == 1
    assert "Usage: tool FILE" in capsys.readouterr().err
    assert main(["file"]) == 1
    error = "error: /nonexistent/x: expected a file to read or to write, found No such file"
    assert capsys.readouterr().err.startswith(error)
    assert main(["-help"]) == 0
    assert "usage line" in capsys.readouterr().out
