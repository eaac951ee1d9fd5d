"""The tool that lists what is wrong in a data set."""

import data_on_disk as disk
import pytest

from demitasse.tools.check_dataset import main

CAT, DOG = ("cat", (1, 1, 20, 30)), ("dog", (11, 11, 20, 40), 1)


def test_a_sound_data_set(tmp_path, capsys):
    disk.voc(tmp_path, {"1": [CAT, CAT], "2": [DOG, CAT], "3": []})
    assert main([f"voc:{tmp_path}:all", "--images"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][1:] == ["3", "images,", "1", "of", "them", "without", "objects"]
    assert " ".join(lines[1]) == (
        "image sizes: 1; most often 60 x 40 (3 images); width 60 to 60; height 40 to 40"
    )
    # Objects, images, difficult, crowd, and the least, median and greatest side.
    assert lines[3:] == [
        ["cat", "3", "2", "0", "0", "20", "25", "30"],
        ["dog", "1", "1", "1", "0", "10", "20", "30"],
        ["all", "4", "2", "1", "0", "10", "25", "30"],
        ["No", "problems."],
    ]


def test_every_problem_is_listed(tmp_path, capsys):
    bad = ("cat", (5, 5, 5, 5))
    disk.voc(tmp_path, {f"{i}": [CAT, bad] for i in range(30)})
    assert main([f"voc:{tmp_path}:all"]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    listed = [line for line in lines if "object 2: cat (5, 5, 5, 5) has no size" in line]
    assert len(listed) == 30 and lines[-1] == "30 problems." and output.err == ""


def test_images_are_decoded_if_asked_for(tmp_path, capsys):
    disk.voc(tmp_path, {"1": [CAT], "2": [CAT]})
    path = tmp_path / "JPEGImages" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    name = f"voc:{tmp_path}:all"
    assert main([name]) == 0
    assert "No problems." in capsys.readouterr().out
    assert main([name, "--images"]) == 1
    output = capsys.readouterr().out
    assert f"{path}: expected a complete image" in output and output.endswith("1 problem.\n")


def test_data_dir(tmp_path, capsys):
    root = tmp_path / "VOCdevkit2007" / "VOC2007"
    disk.voc(root, {"1": [CAT]}, {"test": ["1"]})
    assert main(["voc_2007_test", "--data_dir", str(tmp_path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + 1 + 20 + 1 + 1
    (empty,) = [line.split() for line in table if line.startswith("sofa")]
    assert empty == ["sofa", "0", "0", "0", "0", "-", "-", "-"]


@pytest.mark.parametrize("name", ["voc_2007_tset", "voc:nowhere"])
def test_a_data_set_that_cannot_be_loaded(name, capsys):
    assert main([name]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("error: data set")
    assert len(output.err.splitlines()) == 1
