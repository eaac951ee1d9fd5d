"""Random choices among boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demitasse.boxes.sampling import choose, sample, subsample_labels

seeds = st.integers(0, 2**32)


@given(st.lists(st.integers(0, 99), unique=True), st.integers(0, 30), seeds)
def test_choose(indices, count, seed):
    chosen = choose(np.array(indices, int), count, np.random.default_rng(seed)).tolist()
    assert len(chosen) == min(count, len(indices))
    places = [indices.index(i) for i in chosen]
    assert places == sorted(set(places))


def test_every_index_is_chosen_alike():
    rng = np.random.default_rng(1)
    counts = np.zeros(8)
    for _ in range(4000):
        counts[choose(np.arange(8), 3, rng)] += 1
    # 1500 expected each, with a standard deviation of 31.
    assert abs(counts - 1500).max() < 130


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 12), st.integers(0, 12), seeds)
def test_sample(foreground, background, count, most, seed):
    fg, bg = np.arange(foreground), 100 + np.arange(background)
    chosen_fg, chosen_bg = sample(fg, bg, count, most, np.random.default_rng(seed))
    assert set(chosen_fg) <= set(fg) and set(chosen_bg) <= set(bg)
    assert len(chosen_fg) == min(foreground, count, most)
    assert len(chosen_bg) == min(background, count - len(chosen_fg))


@given(arrays(int, st.integers(0, 20), elements=st.integers(-1, 1)), st.integers(0, 12), seeds)
def test_subsample_labels(labels, count, seed):
    before = labels.copy()
    out = subsample_labels(labels, count, 0.5, np.random.default_rng(seed))
    np.testing.assert_array_equal(labels, before)
    assert ((out == labels) | (out == -1)).all()
    positive = min((labels == 1).sum(), count // 2)
    assert (out == 1).sum() == positive
    assert (out == 0).sum() == min((labels == 0).sum(), count - positive)


def test_a_generator_of_the_same_seed_chooses_the_same():
    labels = np.tile([0, 1, -1], 50)
    first, second, other = (
        subsample_labels(labels, 20, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == second).all() and (first != other).any()
