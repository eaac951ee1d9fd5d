"""From command lines to runs: defaults, errors before anything is trained, the two programs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import data_on_disk
import py_faster_rcnn
import pytest
import tiny_net

from demitasse.detection import defaults, launch, networks
from demitasse.detection.final import final_stem
from demitasse.detection.run_folder import folder_name
from demitasse.engine.errors import DataError, ModelFileError, SolverError
from demitasse.tools import train_faster_rcnn_alt_opt, train_net

SMALL = [
    "--cpu", "--imdb", "shapes_train:6", "--test-imdb", "shapes_test:3", "--set", "TRAIN.SCALES",
    "[64]", "TEST.SCALES", "[64]", "PRETRAIN.ITERS", "0", "TRAIN.BATCH_SIZE", "16",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_net.write_network(tmp_path / "tiny")


def parse(*words):
    return launch.training_parser("").parse_args(["--cpu", *words])


# ---- defaults


def test_without_a_devkit_the_embedded_set_is_used_and_one_line_says_so(capsys):
    assert defaults.default_imdb(parse(), "alt_opt") == "shapes"
    (line,) = capsys.readouterr().out.splitlines()
    for part in ("No VOCdevkit was found", "data/VOCdevkit2007", "--imdb voc:FOLDER"):
        assert part in line
    Path("data/VOCdevkit2007").mkdir(parents=True)
    assert defaults.default_imdb(parse(), "alt_opt") == "voc_2007_trainval"
    moved = parse("--set", "DATA_DIR", "elsewhere")
    assert defaults.default_imdb(moved, "alt_opt") == "shapes"


def test_without_a_flag_the_network_is_vgg16():
    assert launch.find_network(parse(), "alt_opt").name == "vgg16"
    assert launch.find_network(parse("--net_name", "ZF"), "end2end").name == "zf"


def test_the_embedded_set_has_settings_of_its_own_unless_there_is_a_file():
    own = defaults.settings(parse(), "alt_opt", "shapes")
    assert own.ANCHOR_SCALES is not None and own.SOLVER.ALT_OPT_ITERS is not None
    assert defaults.settings(parse(), "alt_opt", "voc_2007_trainval").ANCHOR_SCALES is None
    Path("my.yml").write_text("RNG_SEED: 5")
    given = defaults.settings(parse("--cfg", "my.yml"), "alt_opt", "shapes")
    assert given.ANCHOR_SCALES is None and given.RNG_SEED == 5


def test_settings_of_the_methods_are_py_faster_rcnns():
    alternating = defaults.settings(parse(), "alt_opt", "voc_2007_trainval")
    joint = defaults.settings(parse(), "end2end", "voc_2007_trainval")
    assert (alternating.EXP_DIR, joint.EXP_DIR) == ("faster_rcnn_alt_opt", "faster_rcnn_end2end")
    assert alternating.TRAIN.BG_THRESH_LO == joint.TRAIN.BG_THRESH_LO == 0
    assert (alternating.TRAIN.IMS_PER_BATCH, joint.TRAIN.IMS_PER_BATCH) == (2, 1)
    assert joint.TRAIN.BBOX_NORMALIZE_TARGETS_PRECOMPUTED
    assert defaults.settings(parse(), "fast_rcnn", "voc_2007_trainval").TRAIN.IMS_PER_BATCH == 2
    assert defaults.settings(parse("--seed", "9"), "rpn", "shapes").RNG_SEED == 9
    seeds = {defaults.settings(parse("--rand"), "rpn", "shapes").RNG_SEED for _ in range(3)}
    assert len(seeds) > 1


def test_iterations_of_pretraining_are_a_flag():
    for count in (0, 7):
        words = ["--set", "PRETRAIN.ITERS", "3", "--pretrain-iters", str(count)]
        assert count == defaults.settings(parse(*words), "alt_opt", "shapes").PRETRAIN.ITERS
    shapes = defaults.settings(parse(), "alt_opt", "shapes")
    assert shapes.PRETRAIN.ITERS > 7  # prototxt/shapes.yml's


# ---- weights


def weights_for(*words, imdb="voc_2007_trainval", net="zf"):
    network = networks.find(net, "alt_opt")
    cfg = defaults.settings(parse(), "alt_opt", imdb)
    return launch.initial_weights(parse(*words).weights, network, imdb, cfg)


def test_real_images_need_imagenet_weights_or_the_word_none():
    with pytest.raises(DataError) as caught:
        weights_for()
    for part in ("data/imagenet_models/ZF.v2.caffemodel", "It comes from py-", "--weights none"):
        assert part in str(caught.value)
    assert weights_for("--weights", "none") is None
    assert weights_for(imdb="shapes_train:9+shapes_val") is None
    Path("data/imagenet_models").mkdir(parents=True)
    path = Path("data/imagenet_models/ZF.v2.caffemodel")
    path.write_bytes(b"")
    assert weights_for() == str(path)


def test_weights_that_are_not_there():
    with pytest.raises(ModelFileError, match=r"no\.caffemodel"):
        weights_for("--weights", "no.caffemodel")


# ---- solver files


def test_a_solver_file_replaces_the_networks_own():
    Path("mine.prototxt").write_text(tiny_net.SOLVER)
    args = parse("--net", "tiny", "--solver", "mine.prototxt")
    solvers = {stage.solver for stage in launch.find_network(args, "alt_opt").training}
    assert solvers == {"mine.prototxt"}
    with pytest.raises(DataError, match="one file, or 4"):
        launch.find_network(parse("--net", "tiny", "--solver", "a", "b"), "alt_opt")


def test_a_network_beside_which_no_solver_files_lie(capsys):
    Path("mine").mkdir()
    Path("mine/my.prototxt").write_text(tiny_net.NET)
    Path("mine/s.prototxt").write_text(tiny_net.SOLVER)
    words = ["--net", "mine/my.prototxt", "--solver", "mine/s.prototxt"]
    (stage,) = launch.find_network(parse(*words), "end2end").training
    assert (stage.net.path, stage.solver) == ("mine/my.prototxt", "mine/s.prototxt")
    assert run(train_net, *words, "--iters", "1") == 0
    folder = py_faster_rcnn.write(Path.cwd(), "ZF")
    for path in folder.rglob("*solver*"):
        path.unlink()
    for method in networks.METHODS:
        args = parse("--net", str(folder), "--solver", "mine/s.prototxt")
        assert {x.solver for x in launch.find_network(args, method).training} == {"mine/s.prototxt"}


def test_a_solver_file_names_the_net_that_is_trained(tmp_path):
    Path("tiny/other.prototxt").write_text(tiny_net.NET)
    for field, name in (("net", "faster_rcnn"), ("net", "other"), ("train_net", "other")):
        text = tiny_net.SOLVER.replace('net: "faster_rcnn', f'{field}: "{name}')
        Path("tiny/s.prototxt").write_text(text)
        network = launch.find_network(parse("--solver", "tiny/s.prototxt"), "alt_opt")
        assert {x.net.path for x in network.training} == {str(tmp_path / f"tiny/{name}.prototxt")}
        assert {x.solver for x in network.training} == {"tiny/s.prototxt"}
    with pytest.raises(DataError, match=r"name the same net, found .* and "):
        words = ["tiny/s.prototxt", *["tiny/rpn_solver.prototxt"] * 3]
        launch.find_network(parse("--solver", *words), "alt_opt")


def test_a_solver_file_names_one_stages_net(tmp_path):
    folder = py_faster_rcnn.write(tmp_path, "ZF")
    place = folder / "faster_rcnn_end2end"
    (place / "train.prototxt").rename(place / "train_foo.prototxt")
    solver = place / "solver.prototxt"
    solver.write_text(solver.read_text().replace("/train.", "/train_foo."))
    args = parse("--solver", str(solver))
    network = launch.find_network(args, "end2end")
    assert network.training[0].net.path == str(place / "train_foo.prototxt")
    assert network.test.path == str(place / "test.prototxt")
    with pytest.raises(DataError, match=r"4 files, one a stage.*train_foo\.prototxt.*found 1"):
        launch.find_network(args, "alt_opt")
    stages = sorted((folder / "faster_rcnn_alt_opt").glob("*_solver*"))
    solvers = [str(stages[i]) for i in (1, 0, 3, 2)]  # of each stage the RPN first
    given = launch.find_network(parse("--solver", *solvers), "alt_opt")
    assert given == networks.find(folder, "alt_opt")


def test_a_solver_file_that_names_no_net(tmp_path):
    solver = Path("s.prototxt")
    for text, message in (
        ('net: "nowhere.prototxt"', r"s\.prototxt, field net: .*'nowhere\.prototxt'"),
        ('train_net: "nowhere.pt"', r"s\.prototxt, field train_net: .*'nowhere\.pt'"),
        ("max_iter: 5", r"s\.prototxt: expected one field net or train_net, found none"),
        ('net: "a" train_net: "b"', r"one field net or train_net, found net and train_net"),
        ('net_param { name: "a" }', r"s\.prototxt: .*found net_param.*--net"),
    ):
        solver.write_text(text)
        with pytest.raises((SolverError, ModelFileError), match=message):
            launch.find_network(parse("--solver", str(solver)), "end2end")


def test_a_solver_file_of_py_faster_rcnns_names_the_network(tmp_path):
    for name, method, file in (
        ("ZF", "end2end", "faster_rcnn_end2end/solver.prototxt"),
        ("VGG16", "rpn", "faster_rcnn_alt_opt/stage1_rpn_solver60k80k.pt"),
    ):
        folder = py_faster_rcnn.write(tmp_path, name)
        network = launch.find_network(parse("--solver", str(folder / file)), method)
        assert network.name == str(folder) == networks.find(folder, method).name
        kind = "rpn" if method == "rpn" else "faster_rcnn"
        assert final_stem(SimpleNamespace(network=network)) == f"{name}_{kind}_final"


# ---- the programs


def run(program, *words):
    return program.main([*SMALL, *words])


def test_alternating_training_from_the_command_line(capsys):
    words = ["--net", "tiny", "--iters", "2", "--seed", "4"]
    assert run(train_faster_rcnn_alt_opt, *words) == 0
    folder = Path("output/faster_rcnn_alt_opt") / folder_name("shapes_train:6")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mean AP") for line in lines)
    written = lines[lines.index("Written:") + 1 :]
    names = {Path(line.split(" (")[0].strip()).name for line in written}
    stem = "tiny_faster_rcnn_final"
    assert names >= {
        f"{stem}.caffemodel", f"{stem}.prototxt", f"{stem}.yml", "losses.jsonl", "loss.png",
        "sheet.png", "average_precision.txt", "detections.json", "state.json",
    }  # fmt: skip
    assert f"The trained detector: {folder / stem}.prototxt" in lines
    assert not any(name.startswith("stage") and name.endswith("caffemodel") for name in names)
    # Another seed is another run; --resume says what differs.
    assert run(train_faster_rcnn_alt_opt, *words[:-1], "5", "--resume") == 1
    assert "config.RNG_SEED: was 4, is 5" in capsys.readouterr().err
    # A finished run needs nothing that was removed, whatever it is validated on now.
    weights = (folder / f"{stem}.caffemodel").read_bytes()
    more = ["--eval-interval", "1", "--val-imdb", "shapes_val:2"]
    assert run(train_faster_rcnn_alt_opt, *words, "--resume", *more) == 0
    assert (folder / f"{stem}.caffemodel").read_bytes() == weights
    assert run(train_faster_rcnn_alt_opt, *words[:-1], "5", "--keep-stages") == 0
    other = folder.with_name(f"{folder.name}_2")
    assert (other / f"{stem}.prototxt").exists()
    assert len(list(other.glob("stage*_final.caffemodel"))) == 4


def test_a_run_with_a_random_seed_is_resumed_with_it(capsys):
    words = ["--net", "tiny", "--iters", "1", "--rand", "--output", "here"]
    assert run(train_net, *words) == 0
    state = Path("here/state.json").read_text()
    assert run(train_net, *words, "--resume") == 0
    assert Path("here/state.json").read_text() == state and not Path("here_2").exists()
    args = train_net.parse_args([*SMALL, *words, "--resume"])
    seed = json.loads(state)["settings"]["config"]["RNG_SEED"]
    assert seed == launch.prepare(args, "end2end").job.cfg.RNG_SEED
    capsys.readouterr()
    with pytest.raises(SystemExit):
        parse("--rand", "--seed", "5")
    assert "not allowed with argument" in capsys.readouterr().err


def test_files_that_have_changed_since_a_run_began_are_named():
    images = {"a": [("cat", (1, 1, 20, 20))], "b": [("cat", (5, 5, 30, 30))]}
    root = data_on_disk.voc(Path("data"), images)
    weights = Path("w.caffemodel")
    weights.write_bytes(b"one")
    words = ["--net", "tiny", "--weights", str(weights), "--output", "here"]
    words += ["--imdb", f"voc:{root}:all", "--test-imdb", f"voc:{root}:all", "--resume"]

    def prepare():
        return launch.prepare(train_net.parse_args([*words, "--cpu"]), "end2end")

    prepare()
    assert prepare().job.run.folder == Path("here")
    weights.write_bytes(b"two")
    with pytest.raises(DataError, match=r"found weights: was '\w+', is '\w+'\. "):
        prepare()
    weights.write_bytes(b"one")
    moved = weights.rename("moved.caffemodel")
    words[words.index(str(weights))] = str(moved)
    assert prepare().job.run.folder == Path("here")
    for objects in ([("cat", (1, 1, 20, 21))], [("cat", (1, 1, 20, 20), 1)]):  # a box; difficult
        data_on_disk.annotation(root / "Annotations/a.xml", objects)
        with pytest.raises(DataError, match=r"found annotations: was '\w+', is '\w+'\. "):
            prepare()


def test_zero_iterations(capsys):
    assert run(train_net, "--net", "tiny", "--iters", "0", "--output", "here") == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("mean AP")]
    assert float(line.split()[-1]) < 0.15
    assert not Path("here/losses.jsonl").exists() and not Path("here/snapshots").exists()


def test_an_rpn_and_fast_rcnn_on_its_proposals(capsys):
    from demitasse.detection import proposals
    from demitasse.detection.datasets import get_imdb

    words = ["--method", "rpn", "--net", "tiny", "--iters", "1"]
    assert run(train_net, *words) == 0
    printed = capsys.readouterr().out
    for part in ("proposals an image, by IoU, on shapes_test:3:", "\nsmall ", "rpn_final.prototxt"):
        assert part in printed
    folder = Path("output/rpn/shapes_train_6")
    assert (folder / "recall.txt").read_text() in printed
    for name in ("loss.png", "recall.txt"):
        assert f"{folder / name} (" in printed
    assert run(train_net, *words, "--resume") == 0
    assert (folder / "recall.txt").read_text() in capsys.readouterr().out
    for name, file in (("shapes_train:6", "train.npz"), ("shapes_test:3", "test.npz")):
        records = get_imdb(name).records
        proposals.save_proposals(file, {r.name: r.boxes + 2 for r in records})
    words = ["--method", "fast_rcnn", "--net", "tiny", "--iters", "2"]
    assert run(train_net, *words, "--proposals", "train.npz", "test.npz") == 0
    assert "mean AP" in capsys.readouterr().out
    # Other proposals give another detector.
    again = [*words, "--resume", "--proposals", "train.npz", "test.npz"]
    assert run(train_net, *again) == 0
    records = get_imdb("shapes_train:6").records
    proposals.save_proposals("train.npz", {r.name: r.boxes + 1 for r in records})
    assert run(train_net, *again) == 1
    assert "proposals: was [" in capsys.readouterr().err
    assert run(train_net, *words, "--proposals", "nowhere.npz", "--output", "other") == 1
    assert "nowhere.npz" in capsys.readouterr().err and not Path("other").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--proposals", "train.npz"], "--method fast_rcnn.*found --method end2end"),
        (["--method", "rpn", "--proposals", "train.npz"], "found --method rpn"),
        (["--method", "fast_rcnn", "--proposals", *"abcd"], "at most 3 files, found 4"),
    ],
)
def test_proposals_that_nothing_learns_from_are_an_error(words, message, capsys):
    assert run(train_net, "--net", "tiny", "--output", "other", *words) == 1
    assert re.search(message, capsys.readouterr().err) and not Path("other").exists()


def test_errors_are_one_line(capsys):
    for words in (["--net", "vgg61"], ["--net", "tiny", "--imdb", "sharps"], ["--cfg", "no.yml"]):
        assert run(train_net, *words) == 1
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_ctrl_c_is_one_line_and_status_130():
    program = """if True:
        import signal, sys
        from demitasse.detection import train
        from demitasse.tools import train_net
        add = train.LossLog.add
        def pressing(self, k, values):
            add(self, k, values)
            if k == 2:
                signal.raise_signal(signal.SIGINT)
        train.LossLog.add = pressing
        sys.exit(train_net.main())
    """
    words = [*SMALL, "--net", "tiny", "--iters", "50"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    line = done.stdout.strip().splitlines()[-1]
    assert line == "Stopped in end2end after 2 of 50 iterations; --resume continues there."


# ---- data sets that do not fit, before anything is trained


def prepare(*words):
    args = parse("--net", "tiny", "--weights", "none", "--output", "other", *words)
    try:
        return launch.prepare(args, "end2end")
    finally:
        assert not Path("other").exists()


def test_a_data_set_without_any_object(tmp_path):
    images = {f"{k}": [] for k in range(4)}
    folder = data_on_disk.voc(tmp_path / "empty", images, {"train": images, "test": images})
    with pytest.raises(DataError, match=r"data set voc:.*empty:train: .*none in 4 im.*--imdb"):
        prepare("--imdb", f"voc:{folder}:train")
    name = data_on_disk.coco(tmp_path / "coco", [1, 2, 3], [])  # it has classes
    with pytest.raises(DataError, match="objects to learn, found none in 2 images"):
        prepare("--imdb", name)


def test_classes_that_differ_name_the_flag(tmp_path):
    folders = [
        data_on_disk.voc(tmp_path / name, {k: [(name, (5, 5, 30, 30))] for k in "abc"})
        for name in ("cat", "dog")
    ]
    words = [f"voc:{folder}:all" for folder in folders]
    with pytest.raises(DataError, match=r"classes of voc:.*: cat, found dog.*--test-imdb"):
        prepare("--imdb", words[0], "--test-imdb", words[1])
    val = ["--val-imdb", words[1], "--eval-interval", "1"]
    with pytest.raises(DataError, match=r"classes of voc:.*: cat, found dog.*--val-imdb"):
        prepare("--imdb", words[0], "--test-imdb", words[0], *val)


def test_a_split_that_is_not_there_names_the_flag(tmp_path):
    images = {k: [("cat", (5, 5, 30, 30))] for k in "abc"}
    folder = data_on_disk.voc(tmp_path / "data", images, {"train": "ab", "trainval": "abc"})
    with pytest.raises(DataError, match=r"'test', of which .*--test-imdb NAME"):
        prepare("--imdb", f"voc:{folder}")
    test = ["--test-imdb", f"voc:{folder}:train"]
    with pytest.raises(DataError, match=r"'val', of which .*--val-imdb NAME"):
        prepare("--imdb", f"voc:{folder}", *test, "--eval-interval", "1")
