"""The log of losses, the progress that is shown, and the stamps of snapshots."""

import io
import json
import logging
import re
import time

import pytest
from tiny_net import make_dataset

from demitasse.detection import progress
from demitasse.detection.loss_log import LossLog, forget, read_log
from demitasse.detection.progress import Progress, clock
from demitasse.detection.reading import ImageReader
from demitasse.engine.errors import DataError


def test_what_is_written_is_read(tmp_path):
    with LossLog(tmp_path, "a") as log:
        log.add(1, {"loss": 0.5, "lr": 0.1})
        log.add(2, {"loss": float("nan"), "lr": 0.1})
    with LossLog(tmp_path, "b") as log:
        log.add(1, {"loss": 3.0})
    assert read_log(tmp_path / "losses.jsonl") == [
        {"stage": "a", "iteration": 1, "loss": 0.5, "lr": 0.1},
        {"stage": "a", "iteration": 2, "loss": None, "lr": 0.1},
        {"stage": "b", "iteration": 1, "loss": 3.0},
    ]


def test_a_line_is_on_the_disk_as_soon_as_it_is_added(tmp_path):
    with LossLog(tmp_path, "a") as log:
        log.add(1, {"loss": 0.5})
        assert len(read_log(tmp_path / "losses.jsonl")) == 1


def test_resuming_removes_what_was_written_after_the_snapshot(tmp_path):
    path = tmp_path / "losses.jsonl"
    for stage, count in (("a", 2), ("b", 5)):
        with LossLog(tmp_path, stage) as log:
            for k in range(count):
                log.add(k + 1, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"stage": "b", "iterat')  # where a kill cut it off
    with LossLog(tmp_path, "b", iteration=3) as log:
        log.add(4, {"loss": 2.0})
    found = [(e["stage"], e["iteration"], e["loss"]) for e in read_log(path)]
    assert found == [("a", 1, 1), ("a", 2, 1), ("b", 1, 1), ("b", 2, 1), ("b", 3, 1), ("b", 4, 2)]


@pytest.mark.parametrize("line", ["nonsense", "{}", "[1]", '{"stage": "a"}'])
def test_a_foreign_line_is_an_error_that_says_where(line, tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text(json.dumps({"stage": "a", "iteration": 1}) + f"\n{line}\n")
    with pytest.raises(DataError, match=r"losses\.jsonl:2"):
        read_log(path)
    with pytest.raises(DataError):
        forget(path, "a", 0)
    assert line in path.read_text()


# ---- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run_progress(stream):
    bar = Progress("stage1_rpn", 100, initial=90, window=2, stream=stream)
    for k in range(91, 101):
        bar.update(k, {"loss": 2.0 * k, "part": 1.0 * k}, 0.00125, 3.25)
    bar.say("a line")
    bar.close()
    return stream.getvalue()


def test_without_a_terminal_there_are_lines():
    lines = run_progress(io.StringIO()).splitlines()
    expected = (
        r"stage1_rpn: 100/100, loss 199\.000 \(part 99\.500\), lr 0\.00125, waited 3\.2 s, "
        r"[\d.]+ it/s, 0:00:00 left"
    )
    assert re.fullmatch(expected, lines[0]) and lines[1:] == ["a line"]


def test_on_a_terminal_there_is_a_bar():
    text = run_progress(Terminal())
    assert "stage1_rpn" in text and "100/100" in text and "a line\n" in text
    assert "loss 199.000 (part 99.500), lr 0.00125, waited 3.2 s" in text


def read_images(monkeypatch, stream, shown=True):
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(logging.getLogger("demitasse"), "handlers", [])  # other tests' log
    reader = ImageReader(make_dataset(count=30), lambda image: image, shown)
    for _ in reader:
        time.sleep(0.01)  # a bar is drawn every 0.1 s at most
        reader.mark("looking")
    return stream.getvalue()


def test_images_that_are_read_are_shown_alike(monkeypatch):
    text = read_images(monkeypatch, Terminal())
    assert "tiny_train" in text and "/30 [" in text and "looking" in text
    assert read_images(monkeypatch, io.StringIO()) == ""  # all within 15 seconds
    assert read_images(monkeypatch, Terminal(), shown=False) == ""
    monkeypatch.setattr(progress, "_SECONDS", 0)
    lines = read_images(monkeypatch, io.StringIO()).splitlines()
    assert len(lines) == 30
    times = r"waiting [\d.]+ s, looking [\d.]+ s"
    assert re.fullmatch(
        rf"tiny_train: 8/30, {times}, [\d.]+ image/s, 0:00:0\d left", lines[7]
    )  # fmt: skip


def test_clock():
    assert [clock(s) for s in (0, 59.6, 3599, 3600, 90061)] == [
        "0:00:00", "0:01:00", "0:59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip
