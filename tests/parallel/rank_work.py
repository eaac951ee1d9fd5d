"""What tests have ranks do: `python -m rank_work WORK FOLDER`, in each of several processes."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from demitasse.engine.device import CpuDevice
from demitasse.engine.errors import SolverError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver, signals
from demitasse.solvers.parallel import ALONE, joined, place
from demitasse.solvers.parallel.gradients import Gradients
from demitasse.solvers.parallel.trace import Trace

ITERATIONS = 6
# Dropout and DummyData draw random numbers by the number of the pass.
NET = """
layer { name: "data" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 dim: 3 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "uniform" } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "y"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }
"""
SOLVER = """base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.001
snapshot_after_train: false """


def small_solver(communicator=ALONE, text="max_iter: 6", seed=1, **options):
    """The Solver of a net that needs no data."""
    param = parse_text(SOLVER + text, caffe_pb2.SolverParameter)
    param.random_seed = seed
    param.net_param.CopyFrom(parse_text(NET, caffe_pb2.NetParameter))
    return make_solver(param, communicator=communicator, **options)


def weights_of(solver):
    """{name: array} of all parameters."""
    nodes = solver.net.nodes
    return {f"{nodes[p.layer].name}.{p.index}": p.blob.data for p in solver.net.learnable}


# ---- what ranks do


def digits(communicator, folder):
    """Train the digits net in double precision; all ranks write their weights, rank 0 a trace."""
    solver = digits_solver(folder, communicator)
    solver.net.after_gradients.clear()
    solver.gradients = Gradients(solver.net, communicator, bucket_bytes=1 << 12)
    solver.gradients.trace = Trace()
    solver.solve()
    np.savez(folder / f"rank{communicator.rank}.npz", **weights_of(solver))
    import numba

    (folder / f"threads{communicator.rank}").write_text(str(numba.get_num_threads()))
    if communicator.is_root:
        solver.gradients.trace.write(folder / "trace.json")


def digits_solver(folder, communicator=ALONE, iter_size=1):
    """The Solver of examples/digits, whose databases are there, for a few iterations."""
    path = folder / "examples" / "digits" / "lenet_solver.prototxt"
    param = parse_text(path.read_text(), caffe_pb2.SolverParameter)
    param.max_iter, param.iter_size, param.snapshot_after_train = ITERATIONS, iter_size, False
    param.ClearField("test_iter")
    param.ClearField("test_interval")
    return make_solver(param, path, dtype=np.float64, communicator=communicator)


def detector(communicator, folder):
    """Train the tiny Faster R-CNN in four stages."""
    train_detector(folder / "ranks", communicator)


def train_detector(folder, communicator=ALONE, iter_size=1):
    """Returns the path of the detector."""
    from tiny_net import CFG
    from tiny_run import make_job

    from demitasse.detection import alt_opt
    from demitasse.detection.config import merge

    folder.mkdir(exist_ok=True)
    cfg = merge(CFG, {"SOLVER": {"ITER_SIZE": iter_size}, "PRETRAIN": {"ITERS": 0}})
    return alt_opt.train(make_job(folder, cfg=cfg, communicator=communicator), [4, 4, 3, 3])


def _train_until(communicator, folder, end):
    """Train for long; `end(solver)` is called after each iteration of rank 1."""
    (folder / f"pid{communicator.rank}").write_text(str(os.getpid()))
    solver = small_solver(communicator, "max_iter: 100000000")
    if communicator.rank == 1:
        solver.on_progress.append(end)
    solver.solve()


def fails(communicator, folder):
    """Rank 1 cannot go on."""

    def end(solver):
        if solver.iter == 3:
            raise SolverError("iteration 3", "a finite loss", "nan")

    _train_until(communicator, folder, end)


def breaks(communicator, folder):
    """Rank 1 has a mistake in it."""
    _train_until(communicator, folder, lambda solver: 1 / (3 - solver.iter))


def dies(communicator, folder):
    """Rank 1 is killed."""

    def end(solver):
        if solver.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    _train_until(communicator, folder, end)


def waits(communicator, folder):
    """Train until a signal stops it, as `caffe train` does."""
    (folder / f"pid{communicator.rank}").write_text(str(os.getpid()))
    text = f'max_iter: 100000000 snapshot_prefix: "{folder}/small"'
    solver = small_solver(communicator, text)
    if communicator.is_root:
        solver.on_progress.append(lambda s: s.iter == 3 and (folder / "training").touch())
    with signals.handled(solver):
        solver.solve()


def differs(communicator, folder):
    """Rank 1 begins with other weights."""
    solver = small_solver(communicator)
    if communicator.rank == 1:
        solver.net.params["ip2"][0].data[0, 0] += 1e-6
    solver.solve()


def drifts(communicator, folder):
    """Rank 1 ends with other weights."""
    solver = small_solver(communicator)
    if communicator.rank == 1:
        solver.on_progress.append(lambda s: s.net.params["ip1"][1].data.__setitem__(0, 9))
    solver.solve()


def small(communicator, folder):
    """Train the small net; its seed is drawn by chance on each rank."""
    solver = small_solver(communicator, seed=-1, dtype=np.float64)
    solver.solve()
    seed = np.array(solver.net.context.random.seed)
    np.savez(folder / f"rank{communicator.rank}.npz", seed=seed, **weights_of(solver))


# ---- a GPU that is none


class StandIn(CpuDevice):
    """The host, which says it were a GPU, with sums over the hub in place of NCCL."""

    name = "gpu"

    def __init__(self):
        super().__init__()
        self.kernels.nccl = SimpleNamespace(unique_id=lambda: "ab" * 128, Group=_Group)


class _Group:
    def __init__(self, device, unique_id, rank, size):
        assert unique_id == "ab" * 128
        self.messages = device.messages

    def begin_sum(self, array):
        return array, self.messages.gather(array.tolist())

    def wait(self, ticket):
        array, rows = ticket
        array[...] = np.sum(rows, axis=0)

    def close(self):
        pass


def _stand_in():
    from demitasse.solvers.parallel import nccl

    device, make = StandIn(), nccl.NcclCommunicator.__init__

    def init(self, messages, device):
        device.messages = messages
        make(self, messages, device)

    nccl.NcclCommunicator.__init__ = init
    return device


def main():
    """Run a piece of work as a rank."""
    work, folder = sys.argv[1], Path(sys.argv[2])
    device = _stand_in() if os.environ.get("STAND_IN") else None
    with joined(place(), device) as communicator:
        globals()[work](communicator, folder)


if __name__ == "__main__":
    main()
