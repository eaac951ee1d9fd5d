"""The recall of proposals, against a brute force, and the files they are kept in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import iou, make_dataset, random_boxes

from demitasse.detection.evaluate import proposal_recall, recall_at
from demitasse.detection.proposals import load_proposals, save_proposals
from demitasse.engine.errors import DataError, ModelFileError

AREAS = {"all": (0, 1e10), "small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e10)}


def brute_force(dataset, proposals, limit, limits):
    """The IoU of each object's proposal, ascending: the best pair first, then the next."""
    overlaps = []
    for record in dataset.records:
        objects = [
            box
            for box, ignored in zip(record.boxes.tolist(), record.difficult | record.crowd)
            if not ignored
            and limits[0] <= (box[2] - box[0] + 1) * (box[3] - box[1] + 1) <= limits[1]
        ]
        boxes = proposals[record.name][:limit].tolist()
        pairs = [(iou(g, b), -i, -j) for i, g in enumerate(objects) for j, b in enumerate(boxes)]
        used, found = set(), []
        for value, i, j in sorted(pairs, reverse=True):
            if value > 0 and not used & {("g", i), ("b", j)}:
                used |= {("g", i), ("b", j)}
                found.append(value)
        overlaps += found + [0.0] * (len(objects) - len(found))
    return np.sort(overlaps)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([8, 40, 250]),
    limit=st.sampled_from([None, 1, 3]),
    area=st.sampled_from(list(AREAS)),
)
def test_recall_by_brute_force(seed, size, limit, area):
    rng = np.random.default_rng(seed)
    kinds = ["", "", "", "difficult", "crowd"]
    dataset = make_dataset(
        {
            f"i{k}": [(1, *box, rng.choice(kinds)) for box in random_boxes(rng, n, size)]
            for k, n in enumerate(rng.integers(0, 5, rng.integers(1, 4)))
        }
    )
    proposals = {r.name: random_boxes(rng, rng.integers(0, 8), size) for r in dataset.records}
    result = proposal_recall(dataset, proposals, limit=limit, area=area)
    expected = brute_force(dataset, proposals, limit, AREAS[area])
    np.testing.assert_allclose(result.overlaps, expected, atol=1e-12)
    assert result.objects == len(expected)
    np.testing.assert_allclose(result.thresholds, np.arange(10) * 0.05 + 0.5)
    if len(expected):
        recalls = [(expected >= t).mean() for t in result.thresholds]
        np.testing.assert_allclose(result.recalls, recalls)
        assert result.ar == pytest.approx(np.mean(recalls))
    else:
        assert np.isnan(result.recalls).all() and np.isnan(result.ar)


def test_a_proposal_serves_one_object():
    """The better pair wins, and the other object is left with what remains."""
    dataset = make_dataset({"a": [(1, 0, 0, 9, 9), (2, 0, 0, 9, 11)]})
    result = proposal_recall(dataset, {"a": np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 5, 0.8]])})
    assert result.overlaps.tolist() == [0.5, 1.0]
    assert result.recalls.tolist() == [1.0] + [0.5] * 9  # an IoU equal to the threshold counts
    result = proposal_recall(dataset, {"a": np.array([[0, 0, 9, 9, 0.9]])}, thresholds=[0, 0.9])
    assert result.overlaps.tolist() == [0, 1] and result.recalls.tolist() == [1, 0.5]


def test_areas_of_the_records_count():
    dataset = make_dataset({"a": [(1, 0, 0, 150, 150)]})
    object.__setattr__(dataset.records[0], "areas", np.array([100.0]))  # of a segmentation
    proposals = {"a": np.zeros((0, 5))}
    counts = [proposal_recall(dataset, proposals, area=a).objects for a in ("small", "large")]
    assert counts == [1, 0]


def test_limits_of_areas_belong_to_both_sides():
    dataset = make_dataset({"a": [(1, 0, 0, 31, 31), (1, 0, 0, 95, 95)]})
    counts = {a: proposal_recall(dataset, {"a": []}, area=a).objects for a in AREAS}
    assert counts == {"all": 2, "small": 1, "medium": 2, "large": 1}


def test_recall_at():
    assert recall_at(np.array([0.2, 0.5, 0.5, 0.9]), [0.1, 0.5, 0.51, 1]).tolist() == [
        1, 0.75, 0.25, 0,
    ]  # fmt: skip
    assert np.isnan(recall_at(np.zeros(0), [0.5])).all()


@pytest.mark.parametrize(
    "options, match",
    [({"area": "smal"}, "'small'"), ({"limit": 0}, "at least 1"), ({}, "image 'a', found none")],
)
def test_bad_requests(options, match):
    proposals = {"a": np.zeros((0, 5))} if options else {}
    with pytest.raises(DataError, match=match):
        proposal_recall(make_dataset({"a": [(1, 0, 0, 9, 9)]}), proposals, **options)


# ---- files of proposals


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(0, 5), max_size=5),
    columns=st.sampled_from([4, 5]),
    names=st.lists(st.text("ab/ ü0", min_size=1), min_size=5, max_size=5, unique=True),
)
def test_proposals_come_back(tmp_path_factory, counts, columns, names):
    rng = np.random.default_rng(0)
    proposals = {n: rng.random((c, columns), np.float32) for n, c in zip(names, counts)}
    path = tmp_path_factory.mktemp("proposals") / "p.npz"
    save_proposals(path, proposals)
    loaded = load_proposals(path)
    assert list(loaded) == list(proposals)
    for name, boxes in proposals.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], boxes)


@pytest.mark.parametrize(
    "proposals, match",
    [
        ({"a": np.zeros((2, 3))}, r"\(R, 5\).*\[3\] columns"),
        ({"a": np.zeros((2, 4)), "b": np.zeros((2, 5))}, r"\[4, 5\] columns"),
        ({"a": np.full((1, 5), np.nan)}, "finite"),
    ],
)
def test_bad_proposals_are_not_written(tmp_path, proposals, match):
    with pytest.raises(DataError, match=match):
        save_proposals(tmp_path / "p.npz", proposals)
    assert list(tmp_path.iterdir()) == []


GOOD = {"names": np.array(["a", "b"]), "counts": np.array([1, 2]), "boxes": np.ones((3, 5), "f")}


@pytest.mark.parametrize(
    "change, match",
    [
        ({"names": np.array(["a", "a"])}, "each once"),
        ({"names": np.array([1, 2])}, "each once"),
        ({"counts": np.array([1, 1])}, "2 boxes as the counts say, found 3"),
        ({"counts": np.array([-1, 4])}, "2 'counts'"),
        ({"counts": np.array([3])}, "2 'counts'"),
        ({"counts": np.array([2**62, 2**62])}, "boxes as the counts say"),
        ({"boxes": np.ones((3, 6), "f")}, r"\(R, 5\) float32"),
        ({"boxes": np.ones((3, 5))}, "float64"),
        ({"boxes": np.full((3, 5), np.inf, "f")}, "finite"),
        ({"boxes": np.array([object()] * 3)}, "names, counts and boxes"),
        ({"boxes": None}, "names, counts and boxes"),
    ],
)
def test_bad_files(tmp_path, change, match):
    path = tmp_path / "p.npz"
    arrays = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=match) as error:
        load_proposals(path)
    assert str(path) in str(error.value)


def test_files_that_are_something_else(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("nothing of the kind")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("one.npy", "text.npz", "empty.npz"):
        with pytest.raises(DataError, match="names, counts and boxes"):
            load_proposals(tmp_path / name)
    with pytest.raises(ModelFileError, match="no such file"):
        load_proposals(tmp_path / "none.npz")


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.booleans())
def test_damaged_files_give_our_error_or_load(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("damage") / "p.npz"
    save_proposals(path, {"a": np.ones((3, 5)), "b": np.ones((0, 5))})
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] = value
    path.write_bytes(data[:place] if cut else data)
    try:
        assert {b.shape[1] for b in load_proposals(path).values()} <= {4, 5}
    except DataError as error:
        assert str(path) in str(error)
