"""The environment variables that users may set are in the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("boxes", "caffe", "detection", "engine", "layers", "solvers", "tools")
OWN = {"DEMITASSE_HUB", "DEMITASSE_RANK", "DEMITASSE_RANKS"}  # what ranks tell each other


def names(paths):
    """The variables' names that are in files."""
    return {n for p in paths for n in re.findall(r"DEMITASSE_[A-Z_]*[A-Z]", p.read_text("utf-8"))}


def test_environment_variables_are_documented():
    used = names(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    assert used > OWN
    assert used - OWN <= names((ROOT / "docs").glob("*.md"))
