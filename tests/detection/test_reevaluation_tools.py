"""tools/reval.py and tools/eval_recall.py as command lines."""

import cv2
import numpy as np
import pytest

from demitasse.detection.datasets import get_imdb
from demitasse.detection.evaluate import save_detections
from demitasse.detection.proposals import save_proposals
from demitasse.tools import eval_recall, reval

IMDB = "shapes_val:6"


@pytest.fixture
def dataset():
    return get_imdb(IMDB)


def perfect_detections(dataset, copies=1):
    """Each object `copies` times, moved a pixel to the right each time."""
    all_boxes = [[[] for _ in dataset.records] for _ in dataset.classes]
    for i, record in enumerate(dataset.records):
        for label, box in zip(record.labels, record.boxes):
            for k in range(copies):
                all_boxes[label][i].append([*(box + [k, 0, k, 0]), 0.9 - 0.1 * k])
    return [[np.array(rows).reshape(-1, 5) for rows in images] for images in all_boxes]


def test_reval_of_a_folder_or_file(dataset, tmp_path, capsys):
    save_detections(tmp_path / "detections.json", dataset, perfect_detections(dataset))
    for path in (tmp_path, tmp_path / "detections.json"):
        assert reval.main([str(path), "--imdb", IMDB]) == 0
        assert "mean AP   1.0000" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["detections.json"]


def test_reval_with_nms_and_voc_files(dataset, tmp_path, capsys):
    save_detections(tmp_path / "detections.json", dataset, perfect_detections(dataset, copies=2))
    lines = {}
    choices = {
        "plain": [], "nms": ["--nms", "0.5"], "switch": ["--nms"], "late": ["--nms", "0.99"],
    }  # fmt: skip
    for key, flags in choices.items():
        assert reval.main([str(tmp_path), "--imdb", IMDB, "--comp", *flags]) == 0
        files = tmp_path.glob("comp4_det_test_*.txt")
        lines[key] = sum(len(path.read_text().splitlines()) for path in files)
    objects = sum(len(record.labels) for record in dataset.records)
    assert lines == {"plain": 2 * objects, "nms": objects, "switch": objects, "late": 2 * objects}
    assert f"Wrote 6 files to {tmp_path}" in capsys.readouterr().out


def test_reval_takes_old_command_lines(dataset, tmp_path, capsys):
    save_detections(tmp_path / "detections.json", dataset, perfect_detections(dataset))
    assert reval.main([str(tmp_path), "--imdb", IMDB, "--matlab", "--nms"]) == 0
    captured = capsys.readouterr()
    assert "mean AP   1.0000" in captured.out
    assert captured.err == "--matlab has no effect: evaluation is in Python.\n"
    with pytest.raises(SystemExit):
        reval.main(["--nms", str(tmp_path)])
    assert "A folder goes before --nms." in capsys.readouterr().err


def test_reval_says_what_is_missing(tmp_path, capsys):
    assert reval.main([str(tmp_path), "--imdb", IMDB]) == 1
    assert "detections.json: expected a file of detections" in capsys.readouterr().err


def test_eval_recall(dataset, tmp_path, monkeypatch, capsys):
    """The worst box of each image comes last."""
    scores = {r.name: np.arange(len(r.boxes), 0, -1)[:, None] for r in dataset.records}
    proposals = {r.name: np.hstack([r.boxes, scores[r.name]]) for r in dataset.records}
    path, plot = tmp_path / "p.npz", tmp_path / "plot.png"
    save_proposals(path, proposals)
    flags = ["--imdb", IMDB, "--rpn-file", str(path), "--limit", "1", "300"]
    assert eval_recall.main([*flags, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    objects = sum(len(record.labels) for record in dataset.records)
    alls = [line.split() for line in out.splitlines() if line.startswith("all")]
    assert [row[1] for row in alls] == [str(objects)] * 2
    assert float(alls[0][2]) == pytest.approx(len(dataset) / objects, abs=1e-3)
    assert [float(value) for value in alls[1][2:]] == [1.0] * 11
    assert "rpn, 1 an image on shapes_val:6" in out and "large" in out
    picture = cv2.imread(str(plot))
    assert picture is not None and picture.std() > 5
    monkeypatch.chdir(tmp_path)
    assert eval_recall.main(flags) == 0
    assert "Wrote output/default/shapes_val_6/recall.png" in capsys.readouterr().out
    assert (tmp_path / "output/default/shapes_val_6/recall.png").stat().st_size > 1000


def test_eval_recall_says_what_is_wrong(dataset, tmp_path, capsys):
    assert eval_recall.main(["--imdb", IMDB]) == 1
    assert "tools/rpn_generate.py" in capsys.readouterr().err
    save_proposals(tmp_path / "p.npz", {"another": np.zeros((0, 5))})
    assert eval_recall.main(["--imdb", IMDB, "--rpn-file", str(tmp_path / "p.npz")]) == 1
    assert "image 'shapes_val_000000'" in capsys.readouterr().err
