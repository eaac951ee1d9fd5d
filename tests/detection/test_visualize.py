"""Pictures: boxes where they belong, sheets with every image, curves of what is in a log."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from demitasse.detection import plots
from demitasse.detection.datasets.voc import CLASSES
from demitasse.detection.visualize import (
    colour_of,
    detection_sheet,
    draw_detections,
    save_image,
)
from demitasse.engine.errors import DataError


@dataclass
class Found:
    label: str
    score: float | None
    box: tuple


GREY = np.full((200, 300, 3), 128, np.uint8)


def test_a_box_is_drawn_in_its_classes_colour_and_the_image_is_left_alone():
    image = GREY.copy()
    picture = draw_detections(image, [Found("cat", 0.9, (60.2, 70, 200, 150))])
    np.testing.assert_array_equal(image, GREY)
    colour = colour_of("cat")
    for x, y in ((60, 110), (200, 110), (180, 150)):  # left, right, below
        np.testing.assert_array_equal(picture[y, x], colour)
    np.testing.assert_array_equal(picture[110, 130], [128] * 3)  # the inside is not filled
    changed = (picture != GREY).any(axis=2)
    assert changed[50:70, 60:120].mean() > 0.5  # the label, above
    assert not changed[160:].any() and not changed[:, 210:].any()


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (280, 2, 299, 199), (-20, -30, 500, 400)])
def test_a_label_stays_in_the_picture(box):
    """At the edges it moves inside: as many pixels of its ground as in the middle."""
    colour = colour_of("a long label")
    pictures = [
        draw_detections(GREY, [Found("a long label", 0.5, b)]) for b in (box, (100, 100, 140, 140))
    ]
    painted = [(p == colour).all(axis=2).sum() for p in pictures]
    assert painted[0] > 0.5 * painted[1]


def test_the_best_detection_is_on_top():
    worse, better = Found("cat", 0.2, (50, 50, 150, 150)), Found("dog", 0.8, (50, 50, 150, 150))
    for order in ([worse, better], [better, worse]):
        picture = draw_detections(GREY, order)
        np.testing.assert_array_equal(picture[120, 50], colour_of("dog"))


def test_classes_have_colours_of_their_own():
    colours = {colour_of(name, CLASSES) for name in CLASSES}
    assert len(colours) == len(CLASSES)
    apart = min(
        max(abs(a - b) for a, b in zip(c, d)) for c in colours for d in colours if c != d
    )  # fmt: skip
    assert apart > 20
    assert colour_of("cat", CLASSES) != colour_of("cat")
    assert colour_of("cat", ("dog",)) == colour_of("cat")


def test_a_tiny_image_can_be_drawn_on():
    assert draw_detections(np.zeros((3, 2, 3), np.uint8), [Found("x", 0.1, (0, 0, 1, 2))]).any()


def test_a_sheet_shows_every_image_once_or_with_its_truth_twice():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 250, 250), (250, 250, 0)]
    images = [np.full((40 + 20 * k, 70, 3), c, np.uint8) for k, c in enumerate(colours)]
    for truths, times in ((None, 1), ([[]] * 5, 2)):
        sheet = detection_sheet(images, [[]] * 5, truths, columns=2, cell=(100, 80))
        assert sheet.shape == (3 * 112, 2 * times * 106, 3)
        for image, colour in zip(images, colours):
            factor = min(100 / 70, 80 / image.shape[0])
            area = (sheet == colour).all(axis=2).sum()
            assert area == pytest.approx(times * image.shape[0] * 70 * factor**2, rel=0.03)


def test_detections_and_truth_are_on_their_sides():
    true, found = Found("cat", None, (10, 10, 40, 40)), Found("dog", 0.7, (50, 20, 90, 60))
    sheet = detection_sheet([GREY], [[found]], [[true]], ["photo"], cell=(300, 200))
    left, right = np.split(sheet, 2, axis=1)
    assert (left == colour_of("cat")).all(axis=2).any()
    assert not (left == colour_of("dog")).all(axis=2).any()
    assert (right == colour_of("dog")).all(axis=2).any()
    assert not (right == colour_of("cat")).all(axis=2).any()
    assert (sheet[:26] < 100).any()  # a caption


def test_lists_that_do_not_fit_a_sheet_are_refused():
    with pytest.raises(DataError, match="detections: expected 1 items, found 0"):
        detection_sheet([GREY], [])
    with pytest.raises(DataError, match="expected images, found none"):
        detection_sheet([], [])


def test_images_are_saved_whole(tmp_path):
    path = tmp_path / "picture.png"
    save_image(path, GREY)
    np.testing.assert_array_equal(cv2.imread(str(path)), GREY)
    with pytest.raises(DataError, match="ending"):
        save_image(tmp_path / "picture.nothing", GREY)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


# ---- curves


def write_log(path, stages=("rpn", "fast_rcnn"), count=60):
    lines = []
    for s, stage in enumerate(stages):
        for i in range(1, count + 1):
            line = {"stage": stage, "iteration": i, "loss": 2.0 / (s + 1) + 1 / i, "lr": 0.001}
            lines.append(json.dumps({**line, "loss_bbox": None if i == 3 else 0.5}))
    path.write_text("\n".join(lines) + "\n")
    return path


def drawn(monkeypatch):
    """Have figures kept, to look at their axes."""
    figures = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda f, p: (figures.append(f), save(f, p)))
    return figures


def test_losses_of_all_stages_one_after_the_other(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plots.loss_curve(write_log(tmp_path / "losses.jsonl"), tmp_path / "loss.png")
    assert cv2.imread(str(tmp_path / "loss.png")).shape[2] == 3
    (axes,) = figures[0].axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["loss", "loss_bbox"]
    raw = axes.lines[0]
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, 121))
    assert raw.get_ydata()[0] == 3.0 and raw.get_ydata()[60] == 2.0
    assert sorted(t.get_text() for t in axes.texts) == ["fast_rcnn", "rpn"]
    boundaries = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in boundaries] == [60]
    bbox = next(line for line in axes.lines if len(line.get_xdata()) == 118)
    assert 3 not in bbox.get_xdata() and 63 not in bbox.get_xdata()  # null is no number


def test_losses_from_a_table(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    path = tmp_path / "log.train"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["NumIters", "Seconds", "rpn_loss"], [0, 1, 4.0], [20, 2, 2.0]])
    plots.loss_curve(path, tmp_path / "loss.svg", smoothing=1)
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [4, 2])
    assert (tmp_path / "loss.svg").read_text().count("<svg") == 1


def test_running_mean():
    assert plots.running_mean(np.full(9, 3.0), 4) == pytest.approx(np.full(9, 3.0))
    values = np.random.default_rng(0).normal(size=30)
    weights = np.exp(-(29 - np.arange(30)) / 5)
    assert plots.running_mean(values, 5)[-1] == pytest.approx(np.average(values, weights=weights))


def test_recall_curves(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    curves = {"300": ([0.5, 0.75, 1.0], [0.9, 0.5, 0.0]), "50": ([0.5, 1.0], [0.7, 0.0])}
    plots.recall_plot(curves, tmp_path / "recall.png", "shapes")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["300", "50"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.9, 0.5, 0.0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "a,b\n1,2\n", "a column iteration"),
        ("log.csv", "iteration,loss\n1,many\n", "numbers, found 'many'"),
        ("log.csv", "iteration,loss\n", "0 lines without"),
        ("log.jsonl", '{"stage": "rpn", "iteration": 1, "lr": 1}\n', "1 lines without"),
        ("log.jsonl", "\x00\n", "stage"),
        ("log.jsonl", None, "No such file"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        plots.loss_curve(tmp_path / name, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_an_unknown_kind_of_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match="ends in"):
        plots.recall_plot({"a": ([0, 1], [1, 0])}, tmp_path / "recall.xyz")


def test_no_state_of_pyplot(tmp_path):
    path = write_log(tmp_path / "losses.jsonl")
    program = (
        "import sys\nfrom demitasse.detection import plots\n"
        f"plots.loss_curve({str(path)!r}, {str(tmp_path / 'loss.png')!r})\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr
