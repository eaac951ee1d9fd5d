"""Boxes for tests: made up, and those of the reference numbers."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

GOLDEN = Path(__file__).parents[1] / "golden" / "frcnn"


def golden(name):
    """The arrays of one file of tests/golden/frcnn, by name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@st.composite
def boxes(draw, most=6):
    """(N, 4) float64 with corners at whole and half pixels."""
    count = draw(st.integers(0, most))
    number = st.integers(-40, 80).map(lambda v: v / 2)
    corner = draw(arrays(float, (count, 2), elements=number))
    side = draw(arrays(float, (count, 2), elements=number.map(abs)))
    return np.concatenate([corner, corner + side], axis=1)
