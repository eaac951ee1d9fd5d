"""How many ranks on which devices, which rank this process is, and what is refused."""

import pytest

from caffe import cli
from demitasse.engine import device as devices
from demitasse.engine.context import Context, Shard
from demitasse.engine.errors import DeviceError
from demitasse.solvers.parallel import ParallelError, Plan, gpu_numbers, make_plan, place
from demitasse.solvers.parallel.place import Place

ALONE = Place()


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)


# ---- GPUs


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), (None, ()), ("1", (1,)), ("1,0", (1, 0)), ("0, 1", (0, 1)), ("all", (0, 1))],
)
def test_numbers_of_gpus(text, numbers, two_gpus):
    assert gpu_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0", "expected each GPU once, found '0,0'"),
        ("0,1,2", "expected GPUs below 2, as many as this machine has, found '0,1,2'"),
        ("0,", "expected numbers as in 0,1, found '0,'"),
        ("0,-1", "expected numbers as in 0,1, found '0,-1'"),
        ("0;1", "expected a number, or 'all', found '0;1'"),
        ("²", "expected a number, or 'all', found '²'"),
    ],
)
def test_gpus_that_cannot_be(text, message, two_gpus):
    with pytest.raises(ParallelError, match="flag -gpu: ") as caught:
        gpu_numbers(text)
    assert message in str(caught.value)


def test_several_gpus_where_there_is_none(monkeypatch):
    def gpu_device(index):
        raise DeviceError(f"GPU {index}", "a driver", "none")

    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    monkeypatch.setattr(devices, "gpu_device", gpu_device)
    with pytest.raises(DeviceError, match="GPU 1: expected a driver"):
        gpu_numbers("1,0")


# ---- plans


@pytest.mark.parametrize(
    ("ranks", "gpus", "plan"),
    [
        (0, (), Plan(1)),
        (3, (), Plan(3)),
        (0, (1,), Plan(1, (1,))),
        (0, (0, 1), Plan(2, (0, 1))),
        (2, (0, 1), Plan(2, (0, 1))),
    ],
)
def test_plans(ranks, gpus, plan):
    assert make_plan(ranks, gpus, ALONE) == plan


@pytest.mark.parametrize(
    ("ranks", "gpus", "message"),
    [
        (-1, (), "flag -ranks: expected at least 1, found -1"),
        (4, (0, 1), "flag -ranks: expected 2, one a GPU of -gpu 0,1, found 4"),
        (1, (0, 1), "flag -ranks: expected 2"),
    ],
)
def test_contradictions(ranks, gpus, message):
    with pytest.raises(ParallelError) as caught:
        make_plan(ranks, gpus, ALONE)
    assert message in str(caught.value)


def test_what_mpirun_says_counts():
    here = Place(rank=3, size=4, local_rank=1, local_size=2, started=True, uses_mpi=True)
    assert make_plan(0, (), here) == Plan(4)
    assert make_plan(4, (0, 1), here) == Plan(4, (0, 1))  # two machines with two GPUs each
    with pytest.raises(ParallelError, match="expected 4, as many as mpirun has started, found 2"):
        make_plan(2, (), here)
    with pytest.raises(ParallelError, match="a GPU for each of 2 ranks on this machine, found 0"):
        make_plan(0, (0,), here)


def test_the_device_of_a_rank(monkeypatch):
    monkeypatch.setattr(devices, "gpu_device", lambda index: f"gpu {index}")
    here = Place(rank=3, size=4, local_rank=1, local_size=2, started=True)
    assert Plan(4, (5, 7)).device(here) == "gpu 7"
    assert Plan(4).device(here) is devices.CPU


# ---- places


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place()),
        (
            {"DEMITASSE_RANK": "1", "DEMITASSE_RANKS": "2", "DEMITASSE_HUB": "h"},
            Place(1, 2, 1, 2, True, False, "h"),
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "DEMITASSE_HUB": "h",
            },
            Place(3, 4, 1, 2, True, True, "h"),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Place(1, 2, 1, 2, True, True)),
    ],
)
def test_places(environment, expected):
    assert place(environment) == expected


# ---- shards


def test_shards_are_all_batches():
    shards = [Shard(index, 3) for index in range(3)]
    assert sorted(s.number(k) for s in shards for k in range(4)) == list(range(12))
    assert [shards[1].number(k) for k in range(3)] == [1, 4, 7]
    load = shards[2].reader(lambda: lambda k: f"batch {k}")()
    assert [load(k) for k in range(2)] == ["batch 2", "batch 5"]
    assert Context(shard=shards[2]).passes == 2 and Context().passes == 0


# ---- caffe train


def test_bad_flags_are_one_line(tmp_path, capsys, two_gpus):
    (tmp_path / "solver.prototxt").write_text("base_lr: 1")
    train = ["train", "-solver", str(tmp_path / "solver.prototxt")]
    for flags, message in (
        (["-gpu", "0,0"], "flag -gpu: expected each GPU once, found '0,0'."),
        (["-gpu", "0,2"], "flag -gpu: expected GPUs below 2, as many as this machine has"),
        (["-ranks", "3", "-gpu", "0,1"], "flag -ranks: expected 2, one a GPU of -gpu 0,1"),
        (["-ranks", "-2"], "flag -ranks: expected at least 1"),
        (["-ranks", "two"], "flag -ranks: expected a whole number"),
    ):
        assert cli.main([*train, *flags]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: " + message)


def test_ranks_without_mpi4py_are_one_line(tmp_path, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "mpi4py" else find(n))
    (tmp_path / "solver.prototxt").write_text("base_lr: 1")
    assert cli.main(["train", "-solver", str(tmp_path / "solver.prototxt"), "-ranks", "2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ranks on CPUs: expected mpi4py, found none. pip install mpi4py")


def test_a_trace_of_one_rank_is_refused(tmp_path, capsys):
    import rank_work

    text = rank_work.SOLVER + "net_param {" + rank_work.NET + "} max_iter: 1"
    (tmp_path / "solver.prototxt").write_text(text)
    argv = ["train", "-solver", str(tmp_path / "solver.prototxt"), "-trace", "t.json", "-cpu"]
    assert cli.main(argv) == 1
    assert "error: flag -trace: expected several ranks, found one." in capsys.readouterr().err
