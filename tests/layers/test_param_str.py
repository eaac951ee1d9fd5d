"""The param_str of the detector's layers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demitasse.engine.errors import LayerError
from demitasse.layers.param_str import parse_param_str

KEYS = ("feat_stride", "scales", "ratios", "num_classes")


def parse(text):
    return parse_param_str(text, "here", KEYS)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", {}),
        ("'feat_stride': 16", {"feat_stride": 16}),
        ("'feat_stride': 16 \n'scales': !!python/tuple [4, 8]\n",
         {"feat_stride": 16, "scales": (4, 8)}),
        ("{'feat_stride': 8.5, 'ratios': [0.5, 1, 2]}",
         {"feat_stride": 8.5, "ratios": (0.5, 1, 2)}),
        ('"num_classes": 21', {"num_classes": 21}),
    ],
)  # fmt: skip
def test_values(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1, 2]", r"of the form .* found \[1, 2\]"),
        ("16", "of the form"),
        ("feat_stride: [", "param_str in YAML, found .*line 1"),
        ("feat_strid: 16", "found 'feat_strid'. Did you mean 'feat_stride'"),
        ("3: 16", "with keys of .*found 3"),
        ("[a]: 16", "unhashable"),
        ("feat_stride: 0", "a number above 0, found 0"),
        ("feat_stride: true", "found True"),
        ("feat_stride: .nan", "found nan"),
        ("feat_stride: " + "9" * 400, "a number above 0"),
        ("feat_stride: " + "9" * 5000, "param_str in YAML"),
        ("feat_stride: 0x" + "9" * 5000, "thousands of digits"),
        ("scales: 8", "a list of numbers above 0, found 8"),
        ("scales: []", r"found \[\]"),
        ("scales: [8, x]", "a list of numbers"),
        ("scales: &a [*a]", "a list of numbers"),
        ("num_classes: 2.0", "a whole number above 1"),
        ("num_classes: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        ("num_classes: !!python/name:os.getpid", "could not determine a constructor"),
        ("[" * 2000, "param_str in YAML"),
    ],
)
def test_errors(text, message):
    with pytest.raises(LayerError, match=f"^here: expected .*{message}"):
        parse(text)


def test_lists_of_lists_of_lists_are_not_written_out():
    """Nine times a list of ten of the one before: a thousand million numbers in all."""
    lists = ["&a [" + "1, " * 10 + "]"]
    lists += [f"&{new} [" + f"*{old}, " * 10 + "]" for old, new in pairwise("abcdefghi")]
    with pytest.raises(LayerError, match="a list of numbers") as error:
        parse(f"scales: [{', '.join(lists)}]")
    assert len(str(error.value)) < 1000


@given(st.text(alphabet="ab:[]{}&*!,'\" \n-0159.?|>%@#", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        assert set(parse(text)) <= set(KEYS)
    except LayerError as e:
        assert str(e).startswith("here: ")
