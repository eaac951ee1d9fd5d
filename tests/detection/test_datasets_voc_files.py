"""The files of PASCAL VOC's layout: where they may lie, and those missing or broken."""

import time
from pathlib import Path

import data_on_disk as disk
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_records import CAT, load, only_record, problems

from demitasse.detection.datasets import get_imdb
from demitasse.detection.datasets.voc_xml import read_annotation
from demitasse.engine.errors import DataError

BCCD = Path(__file__).resolve().parents[3] / "shared" / "data" / "BCCD"


@pytest.mark.parametrize("extension", [".jpg", ".JPEG", ".png", ".bmp", ".tiff", ".webp"])
def test_images_of_any_kind_beside_the_annotations(tmp_path, extension):
    disk.image(tmp_path / f"a.b{extension}", 33, 21)
    disk.annotation(tmp_path / "a.b.xml", [CAT], size=None)
    dataset = load(tmp_path)
    assert (dataset.records[0].width, dataset.records[0].height) == (33, 21)
    assert dataset.records[0].read().shape == (21, 33, 3) and not dataset.problems


def test_other_folders(tmp_path):
    disk.annotation(tmp_path / "annotations" / "1.XML", [CAT], file_name="C:\\mine\\photo.png")
    disk.image(tmp_path / "images" / "photo.png")
    assert load(tmp_path).records[0].path == str(tmp_path / "images" / "photo.png")


@pytest.mark.parametrize("size", [None, (0, 0), (-5, 40), ("", "x"), ("nan", "inf")])
def test_missing_sizes_come_from_the_image(tmp_path, size):
    record, dataset = only_record(tmp_path, [CAT], size)
    assert (record.width, record.height) == (60, 40) and not dataset.problems


def test_a_wrong_size_is_corrected(tmp_path):
    record, dataset = only_record(tmp_path, [CAT], (40, 60))
    assert (record.width, record.height) == (60, 40) and record.read().shape == (40, 60, 3)
    assert problems(dataset) == [
        ("a.xml", None, "size 40 x 60, but its image has 60 x 40; corrected")
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_a_photograph_that_exif_turns(tmp_path, turned):
    """Pixels are as the annotator saw them, which the annotated size tells."""
    disk.image(tmp_path / "a.jpg", turn=6)
    size = (40, 60) if turned else (60, 40)
    disk.annotation(tmp_path / "a.xml", [CAT], size)
    dataset = load(tmp_path)
    (record,) = dataset.records
    assert (record.width, record.height) == size and not dataset.problems
    assert record.read().shape == (size[1], size[0], 3)


BAD_XML = {
    "cut short": "<annotation><object><name>cat</name>",
    "empty": "",
    "other": "<html></html>",
    "bytes": "<annotation>\0</annotation>",
    "encoding": '<?xml version="1.0" encoding="klingon"?><annotation/>',
    "multi-byte": '<?xml version="1.0" encoding="gbk"?><annotation/>',
    "document type": '<!DOCTYPE a [<!ENTITY x "yyy">]><annotation>&x;</annotation>',
    "utf-16": '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a SYSTEM "/etc/x"><annotation/>',
}


@pytest.mark.parametrize("kind", BAD_XML)
def test_one_broken_annotation_among_others(tmp_path, kind):
    root = disk.voc(tmp_path, {"a": [CAT], "b": [CAT]})
    path = root / "Annotations" / "b.xml"
    path.write_text(BAD_XML[kind], encoding="utf-16" if kind == "utf-16" else "utf-8")
    with pytest.raises(DataError, match=r"b\.xml: expected an "):
        read_annotation(str(path))
    dataset = load(root)
    assert [r.name for r in dataset.records] == ["a"]
    ((file, number, reason),) = problems(dataset)
    assert (file, number) == ("b.xml", None) and reason.endswith("The image is left out.")
    path.with_name("a.xml").unlink()
    with pytest.raises(DataError, match=r"at least one usable image, found 1 problems.*b\.xml"):
        load(root)


def test_entities_do_not_expand(tmp_path):
    entities = '<!ENTITY e0 "x">' + "".join(
        f'<!ENTITY e{i + 1} "{"".join([f"&e{i};"] * 10)}">' for i in range(12)
    )
    path = tmp_path / "a.xml"
    path.write_text(f"<!DOCTYPE a [{entities}]><annotation>&e12;</annotation>")
    start = time.perf_counter()
    with pytest.raises(DataError, match="document type"):
        read_annotation(str(path))
    assert time.perf_counter() - start < 1


def test_a_huge_annotation_is_not_read(tmp_path):
    path = tmp_path / "a.xml"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match="of at most 16 MB"):
        read_annotation(str(path))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_an_annotation_or_a_data_error(tmp_path, data):
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.xml: expected"):
        read_annotation(str(path))


def test_missing_and_corrupt_images(tmp_path):
    root = disk.voc(tmp_path, {name: [CAT] for name in "abcd"}, {"train": "abcde"})
    (root / "JPEGImages" / "b.jpg").unlink()
    (root / "JPEGImages" / "c.jpg").write_bytes(b"no image")
    (root / "JPEGImages" / "d.jpg").write_bytes(b"")
    dataset = load(root, "train")
    assert [r.name for r in dataset.records] == ["a"]
    found = {file: reason for file, _, reason in problems(dataset)}
    assert list(found) == ["b.xml", "c.jpg", "d.jpg", "e.xml"]
    assert "no image b.*" in found["b.xml"] and "8 bytes" in found["c.jpg"]
    assert "no such file" in found["e.xml"]


def test_reading_says_which_file_is_bad(tmp_path):
    root = disk.voc(tmp_path, {"a": [CAT]})
    (record,) = load(root).records
    path = root / "JPEGImages" / "a.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"a\.jpg: expected a complete image.*cut short"):
        record.read()
    disk.image(path, 20, 10)
    with pytest.raises(DataError, match=r"a\.jpg: .*60 x 40 pixels, as annotated, found 20 x 10"):
        record.read()
    path.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: expected an image file, found No such file"):
        record.read()


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    disk.voc(tmp_path / "kit" / "VOC2007", {"a": [CAT]})
    for name, match in {
        "voc:nowhere": rf"{tmp_path}/nowhere, found nothing there.*working directory",
        "voc:C:\\data\\cells": r"C:\\data\\cells, found nothing",
        "voc:file": "found a file there",
        "voc:": "voc:FOLDER",
        "voc::test": "found nothing there",
        "voc:empty": r"annotations \*\.xml in .*empty/Annotations or .*empty, found none",
        "voc:kit": "Did you mean its folder VOC2007",
        "voc_2007_test": rf"{tmp_path}/data/VOCdevkit2007/VOC2007 or .*VOCtest_06-Nov-2007.tar",
    }.items():
        with pytest.raises(DataError, match=match):
            get_imdb(name)


def test_paths_with_colons_pluses_and_a_tilde(tmp_path, monkeypatch):
    root = disk.voc(tmp_path / "a:b+c d", {f"{i}": [CAT] for i in range(5)})
    assert len(get_imdb(f"voc:{root}")) == 4
    assert len(get_imdb(f"voc:{root}:test")) == 1
    assert len(get_imdb(f"voc:{root}:test + voc:{root}:trainval")) == 5
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(get_imdb("voc:~/a:b+c d:train")) == 3
    monkeypatch.chdir(tmp_path)
    assert len(get_imdb("voc:a:b+c d:val")) == 1


# -------------------------------------------------------------------------- real data


@pytest.mark.skipif(not BCCD.is_dir(), reason="no ../shared/data/BCCD")
def test_bccd():
    sizes = {"train": 205, "val": 87, "trainval": 292, "test": 72, "all": 364}
    assert {s: len(load(BCCD, s)) for s in sizes} == sizes
    dataset = load(BCCD)
    assert dataset.classes == ("__background__", "Platelets", "RBC", "WBC")
    labels = np.concatenate([r.labels for r in dataset.records])
    assert np.bincount(labels).tolist() == [0, 361, 4155 - 2, 372]
    assert [(f, n) for f, n, _ in problems(dataset)] == [
        ("BloodImage_00338.xml", 13), ("BloodImage_00343.xml", 4),
    ]  # fmt: skip
    boxes = np.concatenate([r.boxes for r in dataset.records])
    assert boxes.min() == 0 and boxes.max(axis=0)[2:].tolist() == [639, 479]
