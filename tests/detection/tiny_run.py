"""Runs alternating training of the tiny net, also as a program that kills itself on the way."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tiny_net

from demitasse.detection import alt_opt, networks, run_folder, train
from demitasse.detection.job import Job
from demitasse.engine import caffemodel
from demitasse.solvers.parallel import ALONE

ITERS = [5, 8, 5, 8]


def make_job(
    folder, method="alt_opt", resume=False, cfg=tiny_net.CFG, communicator=ALONE, **options
):
    """A Job of the tiny net on the tiny data set; its run is folder/run."""
    place = Path(folder) / "tiny"
    if communicator.is_root:
        tiny_net.write_network(place)
    communicator.share()
    network = networks.find(place, method)
    run = run_folder.Run.open(Path(folder) / "run", {"method": method}, resume, communicator)
    return Job(network, tiny_net.make_dataset(), cfg, run, **options)


def weights_of(path):
    """{layer name: arrays} of a weights file."""
    return {n: [b.data.copy() for b in blobs] for n, _, blobs in caffemodel.read_weights(str(path))}


def assert_same(a, b):
    """Fail unless two results of `weights_of` are equal bit by bit."""
    assert a.keys() == b.keys()
    for name in a:
        for left, right in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)


# ---- dying


def die():
    """End this process as SIGKILL does: nothing is cleared up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(owner, name, is_time):
    """Have the process die after the call of owner.name for which is_time(*arguments) is true."""
    function = getattr(owner, name)

    def dying(*args, **kwargs):
        result = function(*args, **kwargs)
        if is_time(*args):
            die()
        return result

    setattr(owner, name, dying)


def plan_death(place, step, iteration):
    """Arrange for the process to die.

    Args:
        place: "log", when an iteration has been written down; "forward", in its forward pass;
            "snapshot", when the weights of a snapshot are there, but not its state; "weights", when
            a stage's weights are there, but not in state.json; "proposals", when proposals are.
        step: the step of the run; iteration: for the first three.
    """
    if place == "log":
        die_after(train.LossLog, "add", lambda log, k, _: (log.stage, k) == (step, iteration))
    elif place == "forward":

        def is_time(solver, loss):
            return step in solver.param.snapshot_prefix and solver.iter == iteration

        die_after(train.finite, "check_loss", is_time)
    else:
        file = {
            "snapshot": f"{step}/snapshot_iter_{iteration}.caffemodel",
            "weights": f"{step}_final.caffemodel",
            "proposals": f"{step}.npz",
        }[place]
        die_after(os, "replace", lambda _, target: str(target).endswith(file))


def main(folder, *death):
    """Train in a folder, going on where an earlier process has died."""
    if death:
        plan_death(death[0], death[1], int(death[2]))
    alt_opt.train(make_job(folder, resume=True), ITERS)


if __name__ == "__main__":
    main(*sys.argv[1:])
