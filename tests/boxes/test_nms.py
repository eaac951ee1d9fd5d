"""Greedy non-maximum suppression."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_boxes import boxes, golden

from demitasse.boxes.nms import nms
from demitasse.engine.kernels.cpu.nms import BLOCK

rng = np.random.default_rng(0)


def oracle(dets, thresh, limit=None):
    """The rule by loops, in the dtype of the boxes."""
    one, zero, thresh = (dets.dtype.type(v) for v in (1, 0, thresh))
    kept = []
    for i in sorted(range(len(dets)), key=lambda i: -dets[i, 4]):
        if limit is not None and len(kept) == limit:
            break
        for j in kept:
            a, b = dets[i], dets[j]
            width = max(min(a[2], b[2]) - max(a[0], b[0]) + one, zero)
            height = max(min(a[3], b[3]) - max(a[1], b[1]) + one, zero)
            inner = width * height
            of_a, of_b = ((v[2] - v[0] + one) * (v[3] - v[1] + one) for v in (a, b))
            if inner / (of_a + of_b - inner) > thresh:
                break
        else:
            kept.append(i)
    return kept


def vectorised_oracle(dets, thresh, limit):
    """The same for many boxes: each kept box strikes out what it overlaps."""
    x1, y1, x2, y2 = dets[:, :4].T
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    order, kept = np.argsort(-dets[:, 4], kind="stable"), []
    while len(order) and len(kept) < limit:
        i, rest = order[0], order[1:]
        kept.append(i)
        width = np.maximum(np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]) + 1, 0)
        height = np.maximum(np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]) + 1, 0)
        inner = width * height
        order = rest[inner / (area[i] + area[rest] - inner) <= np.float32(thresh)]
    return kept


def random_dets(count, reach, side):
    corner = rng.uniform(0, reach, (count, 2))
    other = corner + rng.uniform(0, side, (count, 2))
    scores = rng.permutation(count)[:, None]
    return np.concatenate([corner, other, scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("thresh", [0.3, 0.5, 0.7])
def test_reference_numbers(case, thresh):
    z = golden("nms")
    np.testing.assert_array_equal(nms(z[f"{case}/dets"], thresh), z[f"{case}/keep_{thresh}"])


@settings(deadline=None, max_examples=200)
@given(
    boxes(12), st.data(), st.sampled_from([0, 0.25, 0.5, 0.7, 1]),
    st.sampled_from([np.float32, np.float64]), st.sampled_from([None, 1, 3]),
)  # fmt: skip
def test_agrees_with_loops(some, data, thresh, dtype, limit):
    """Boxes at whole and half pixels, often with overlaps of exactly the threshold."""
    scores = data.draw(st.lists(st.integers(0, 5), min_size=len(some), max_size=len(some)))
    dets = np.concatenate([some, np.reshape(scores, (-1, 1))], axis=1).astype(dtype)
    assert nms(dets, thresh, limit).tolist() == oracle(dets, thresh, limit)


@pytest.mark.parametrize("side", [10, 60, 300])
@pytest.mark.parametrize("limit", [BLOCK - 1, BLOCK, 300, 10_000])
def test_agrees_on_many_boxes(side, limit):
    dets = random_dets(3000, 300, side)
    kept = nms(dets, 0.5, limit)
    np.testing.assert_array_equal(kept, vectorised_oracle(dets, 0.5, limit))


def test_a_limit_gives_the_first_of_all():
    dets = random_dets(2000, 100, 50)
    every = nms(dets, 0.6)
    assert len(every) > 2 * BLOCK
    for limit in (1, BLOCK, BLOCK + 1, len(every), 3000):
        np.testing.assert_array_equal(nms(dets, 0.6, limit), every[:limit])


def test_nothing_gives_nothing():
    found = nms(np.zeros((0, 5), np.float32), 0.5)
    assert found.dtype == np.int64 and len(found) == len(golden("nms")["empty/keep"])


def test_equal_boxes_and_equal_scores_keep_the_first():
    assert nms(np.tile(np.float32([[3, 4, 9, 9, 0.5]]), (200, 1)), 0.9).tolist() == [0]


def test_boxes_without_area_are_kept():
    empty = np.float32([[5, 5, 4, 4, 1], [5, 5, 4, 4, 0.5], [0, 0, 9, 9, 0.2]])
    assert nms(empty, 0.5).tolist() == [0, 1, 2]
