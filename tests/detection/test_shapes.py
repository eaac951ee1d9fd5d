"""The drawn data set: what it promises about images, boxes and difficulty."""

import colour_baseline
import cv2
import numpy as np
import pytest

from demitasse.detection.datasets import shapes
from demitasse.detection.datasets.record import Dataset
from demitasse.detection.datasets.shapes import CLASSES, make_mask, make_scene, make_shapes
from demitasse.engine.errors import DataError

SPLITS = ("train", "val", "test")


def scenes(count=150):
    return [make_scene(split, i) for split in SPLITS for i in range(count // 3)]


@pytest.mark.parametrize("split, count", [("train", 300), ("val", 60), ("test", 200)])
def test_default_counts(split, count):
    dataset = make_shapes(split)
    assert (dataset.name, len(dataset)) == (f"shapes_{split}", count)
    assert dataset.classes == ("__background__", *CLASSES[1:]) and len(set(CLASSES)) == 7
    assert dataset.problems == []


def test_a_larger_count_begins_with_the_same_images():
    few, more = make_shapes("val", 3), make_shapes("val", 5)
    assert more.name == "shapes_val:5"
    for a, b in zip(few.records, more.records):
        assert a.name == b.name
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_trainval_is_train_and_val():
    names = {s: [r.name for r in make_shapes(s, n).records] for s, n in (("train", 10), ("val", 2))}
    few = make_shapes("trainval", 12).records
    assert [r.name for r in few] == names["train"] + names["val"]
    splits = [r.name.split("_")[1] for r in make_shapes("trainval").records]
    assert splits == ["train"] * 300 + ["val"] * 60


@pytest.mark.parametrize("split, count", [("tset", None), ("train", 0), ("train", -3)])
def test_bad_requests(split, count):
    with pytest.raises(DataError, match="'test'" if count is None else "at least 1 image"):
        make_shapes(split, count)


def test_an_image_depends_on_split_and_index_alone():
    backwards = [r.read() for r in reversed(make_shapes("train", 6).records)][::-1]
    np.random.seed(1)  # nothing global counts
    cv2.setRNGSeed(1)
    for record, image in zip(make_shapes("train", 9).records, backwards):
        assert image.dtype == np.uint8 and image.shape == (record.height, record.width, 3)
        np.testing.assert_array_equal(record.read(), image)


def test_splits_share_no_image():
    drawn = {split: [r.read() for r in make_shapes(split, 20).records] for split in SPLITS}
    keys = [image.tobytes() for images in drawn.values() for image in images]
    assert len(set(keys)) == len(keys)
    geometry = [r.boxes.tobytes() for s in SPLITS for r in make_shapes(s, 100).records]
    assert len(set(geometry)) == len(geometry)


def test_boxes_are_tight_around_the_whole_shape():
    for scene, record in zip(
        [make_scene("test", i) for i in range(60)], make_shapes("test").records
    ):
        for shape, box, label in zip(scene.shapes, record.boxes, record.labels):
            whole = np.zeros((scene.height + 400, scene.width + 400), bool)
            h, w = shape.mask.shape
            whole[200 + shape.y :, 200 + shape.x :][:h, :w] = shape.mask != 0
            rows, columns = np.nonzero(whole[200:-200, 200:-200])
            tight = [columns.min(), rows.min(), columns.max(), rows.max()]
            assert box.tolist() == tight and label == shape.label


def test_shapes_stay_visible():
    lowest = []
    for scene in scenes():
        owners = scene.owners()
        for number, shape in enumerate(scene.shapes, 1):
            visible = np.count_nonzero(owners == number) / np.count_nonzero(shape.mask)
            assert visible >= 0.7
            lowest.append(visible)
    assert min(lowest) < 0.75 and np.mean(np.array(lowest) < 0.95) > 0.1  # occlusion does occur


def test_later_shapes_cover_earlier_ones():
    """Painting the masks one after another, pixel by pixel, gives the owners."""
    scene = next(s for s in scenes() if len(s.shapes) >= 3)
    owners = np.zeros((scene.height, scene.width), int)
    for number, shape in enumerate(scene.shapes, 1):
        for (i, j), value in np.ndenumerate(shape.mask):
            y, x = shape.y + i, shape.x + j
            if value and 0 <= y < scene.height and 0 <= x < scene.width:
                owners[y, x] = number
    np.testing.assert_array_equal(scene.owners(), owners)


def test_sizes_counts_and_classes_are_spread():
    records = [r for split in SPLITS for r in make_shapes(split, 200).records]
    assert {len(r.labels) for r in records} == {1, 2, 3, 4, 5, 6}
    boxes = np.concatenate([r.boxes for r in records])
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).max(axis=1)
    assert sides.min() >= 16 and sides.max() <= 160
    quarters = np.histogram(sides, [16, 52, 88, 124, 161])[0] / len(sides)
    assert quarters.min() > 0.15
    classes = np.bincount(np.concatenate([r.labels for r in records]), minlength=7)[1:]
    assert classes.min() > 0.8 * classes.mean() and classes.max() < 1.2 * classes.mean()
    for r in records:
        assert 256 <= r.width <= 320 and 192 <= r.height <= 240
        assert (r.boxes >= 0).all() and (r.boxes[:, 2:] < (r.width, r.height)).all()


@pytest.mark.parametrize("label", range(1, 7))
def test_a_mask_has_the_side_asked_for(label):
    for side in (16, 41, 160):
        for angle in (0.0, 0.3, 1.0):
            mask = make_mask(label, side, angle, 0.8)
            assert max(mask.shape) == side
            assert mask.any(0).all() and mask.any(1).all() and set(np.unique(mask)) == {0, 1}


def test_masks_are_those_of_their_class():
    """Holes and areas of shapes that are not turned, by geometry."""
    part = {name: make_mask(i, 101, 0.0, 1.0).mean() for i, name in enumerate(CLASSES) if i}
    assert part["disc"] == pytest.approx(np.pi / 4, abs=0.02)
    assert part["ring"] == pytest.approx(np.pi / 4 * (1 - 0.55**2), abs=0.02)
    assert part["square"] == pytest.approx(0.5, abs=0.02)  # it stands on a corner
    assert part["triangle"] == pytest.approx(0.5, abs=0.02)
    assert part["cross"] == pytest.approx(1 - (1 - 0.32) ** 2, abs=0.02)
    assert make_mask(CLASSES.index("ring"), 101, 0.0, 1.0)[50, 50] == 0


def test_colours_do_not_give_the_classes_away():
    """Mean colours of each class, over many objects, are alike."""
    sums, counts = np.zeros((7, 3)), np.zeros(7)
    for i in range(120):
        image, scene = shapes.draw_image("train", i), make_scene("train", i)
        owners = scene.owners()
        for number, shape in enumerate(scene.shapes, 1):
            sums[shape.label] += image[owners == number].mean(axis=0)
            counts[shape.label] += 1
    means = sums[1:] / counts[1:, None]
    assert np.abs(means - means.mean(axis=0)).max() < 30


def test_objects_stand_out():
    """Every outline has a step in colour between inside and outside."""
    steps = []
    for i in range(40):
        image, scene = shapes.draw_image("val", i).astype(float), make_scene("val", i)
        owners = scene.owners()
        for number in range(1, len(scene.shapes) + 1):
            mine = (owners == number).astype(np.uint8)
            near = cv2.dilate(mine, np.ones((9, 9))) - mine
            steps.append(np.linalg.norm(image[mine > 0].mean(0) - image[near > 0].mean(0)))
    assert min(steps) > 45 and np.percentile(steps, 5) > 70


def test_colours_alone_do_not_find_the_objects():
    dataset = make_shapes("test", 60)
    assert colour_baseline.best_score(dataset, [r.read() for r in dataset.records]) < 0.15


def test_the_baseline_works_where_colours_do_suffice():
    """Single shapes of one colour on a plain background."""
    records = [r for r in make_shapes("test").records if len(r.labels) == 1][:30]
    plain = []
    for record in records:
        owners = make_scene("test", int(record.name[-6:])).owners()
        plain.append(np.where(owners[:, :, None] > 0, np.uint8([200, 50, 90]), np.uint8(20)))
    dataset = Dataset("plain", CLASSES, records)
    assert colour_baseline.best_score(dataset, plain) > 0.7
