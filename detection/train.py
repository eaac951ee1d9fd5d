"""One stage of training: a net, what it learns from, and how long; trained weights come out."""

import contextlib
import gc
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..engine import weights as weight_files
from ..engine.errors import SolverError
from ..engine.graph import filter_net
from ..engine.proto import caffe_pb2
from ..engine.random import RandomStream
from ..layers.roi_data import RoIDataSettings
from ..solvers import Solver, signals
from ..solvers.parallel.communicator import ALONE, Communicator
from . import config, finite, initialization, normalization, schedule
from .loss_log import LossLog
from .progress import Progress
from .recorder import Recorder
from .snapshots import Snapshots

log = logging.getLogger("demitasse.detection")


class Interrupted(KeyboardInterrupt):
    """Raised when Ctrl-C has stopped a training, after a snapshot."""

    @classmethod
    def at(cls, name, solver):
        """The exception of a stage's name and its solver."""
        return cls(
            f"Stopped in {name} after {solver.iter} of {solver.param.max_iter} iterations; "
            "--resume continues there."
        )


@dataclass(frozen=True)
class Source:
    """Weights to begin with.

    Attributes:
        path: a weights file.
        wanted: a function f(layer name) that says which layers to take; None for all.
        strict: whether a file of which nothing fits is an error.
    """

    path: str
    wanted: Callable | None = None
    strict: bool = False


@dataclass
class Stage:
    """What there is to know to train one stage.

    Attributes:
        name: of files and log lines, for example "stage1_rpn".
        net_param: the NetParameter, adapted to the data set, with the frozen layers frozen.
        net_stages: Caffe's stages that the training net is built in, for example ("rpn",).
        net_folder: of the prototxt, or None.
        solver_param: a SolverParameter without a net (`schedule.solver_param`).
        solver_path: of the file that it is from, for errors.
        cfg: the Config.
        batches: gives the input, by `load(k)` (`minibatch.RoiBatches`).
        statistics: BoxStatistics of the targets of the classes' boxes, or None.
        sources: the `Source`s of initial weights, in order; what none has begins as filled.
        pretrained: whether they go back to pretraining on crops (pretrain.py).
        seed: of the run; each stage draws its own numbers.
        folder: of the run.
        device: where to compute.
        validate: a function f(solver) -> {name: number}; runs every `eval_interval` iterations.
        communicator: the `Communicator` of the ranks that train the stage together; rank 0 writes
            the files.
    """

    name: str
    net_param: object
    net_stages: tuple
    net_folder: str | None
    solver_param: object
    cfg: object
    batches: object
    statistics: object = None
    sources: list = field(default_factory=list)
    pretrained: bool = False
    seed: int = 0
    folder: str = "."
    device: object = None
    validate: Callable | None = None
    eval_interval: int = 0
    solver_path: str | None = None
    communicator: Communicator = ALONE

    @property
    def weights(self):
        """The name, in the run's folder, of the file that the trained weights are written to."""
        return weights_name(self.name)

    @cached_property
    def box_layer(self):
        """`normalization.layer_of` the training net. Raises NetError."""
        state = caffe_pb2.NetState(phase=caffe_pb2.TRAIN, stage=self.net_stages)
        return normalization.layer_of(filter_net(self.net_param, state), self.statistics)


def weights_name(stage):
    """The name of the file with the weights of the stage of that name."""
    return f"{stage}_final.caffemodel"


def train(stage):
    """Train a stage to its end, from its last snapshot if there is one; returns `stage.weights`.

    The saved weights predict boxes that are not normalized (see normalization.py). They get their
    name only when they are complete; after that the snapshots are removed.

    Raises:
        Interrupted: Ctrl-C; there is a snapshot, from which the next call continues.
        SolverError: a loss, or a parameter, that is not finite, or weights that fit nowhere.
        NetError: targets are normalized, but there is no layer to undo it in.
    """
    box_layer = stage.box_layer  # an error before anything is trained
    snapshots = Snapshots(
        os.path.join(stage.folder, "snapshots", stage.name), stage.cfg.TRAIN.SNAPSHOT_ITERS
    )
    ranks = stage.communicator
    if ranks.is_root:
        snapshots.prepare()
    snapshots.state = ranks.share(snapshots.state)
    solver = make_solver(stage, snapshots.prefix)
    if snapshots.state is None:
        new = load_sources(solver.net, stage)
        if stage.pretrained:
            initialization.pass_on_parts(solver.net, new)
    snapshots.restore(solver)
    if solver.iter < solver.param.max_iter:
        _run(solver, stage, snapshots)
    finite.check_parameters(solver)
    if ranks.is_root:
        path = os.path.join(stage.folder, stage.weights)
        with normalization.folded(solver.net, stage.statistics, box_layer):
            weight_files.save(solver.net, path)
        snapshots.remove()
    ranks.share()  # the file is there when any rank goes on
    del solver
    gc.collect()  # nets of two stages need not be in memory at once
    return stage.weights


def make_solver(stage, snapshot_prefix):
    """The Solver of a stage, without initial weights."""
    param = type(stage.solver_param)()
    param.CopyFrom(stage.solver_param)
    param.net_param.CopyFrom(stage.net_param)
    param.train_state.stage.extend(stage.net_stages)
    param.random_seed = stage_seed(stage.seed, stage.name)
    param.snapshot_prefix = snapshot_prefix
    settings = [*config.layer_settings(stage.cfg), RoIDataSettings(load=stage.batches.load)]
    solver = Solver(
        param, stage.net_folder, device=stage.device, settings=settings, keep="minimal",
        path=stage.solver_path, communicator=stage.communicator,
    )  # fmt: skip
    schedule.add_warm_up(solver, stage.cfg.SOLVER)
    return solver


def stage_seed(seed, name):
    """The seed of a stage's random numbers, so that stages do not repeat each other's."""
    return int(RandomStream(seed).generator("stage", name).integers(1 << 62))


# ---- initial weights


def load_sources(net, stage):
    """Load a stage's initial weights; layers of other shapes are left out, and named.

    Returns: the names of the layers that no source has weights for.

    Raises: SolverError if nothing of a strict source fits; ModelFileError for a bad file.
    """
    copied, misfits = set(), set()
    for source in stage.sources:
        report = weight_files.copy_fitting(net, source.path, source.wanted)
        if source.strict and not report.copied:
            raise SolverError(
                f"weights {source.path}", "layers that the net has, of the same shapes",
                "none", "Are they of another network? Its layers: " + ", ".join(net.params) + ".",
            )  # fmt: skip
        if stage.box_layer in report.copied:
            normalization.unfold(net, stage.statistics, stage.box_layer)
        copied.update(report.copied)
        misfits.update(report.misfits)
        log.info("%s: %d layers from %s", stage.name, len(report.copied), source.path)
    misfits -= copied
    if misfits:
        log.info("%s: of another shape in the file, so begun anew: %s", stage.name, _join(misfits))
    new = set(net.params) - copied - misfits
    if new and stage.sources:
        log.info("%s: begun anew: %s", stage.name, _join(new))
    return new | misfits


def _join(names):
    return ", ".join(sorted(names))


# ---- the loop


def _run(solver, stage, snapshots):
    """Train to max_iter; raises Interrupted if a signal stops it before."""
    total = solver.param.max_iter
    window = max(20, solver.param.average_loss)
    losses = bar = None
    with contextlib.ExitStack() as stack:
        if stage.communicator.is_root:
            losses = stack.enter_context(LossLog(stage.folder, stage.name, solver.iter))
            bar = Progress(stage.name, total, solver.iter, window)
            stack.callback(bar.close)
        stack.enter_context(stoppable(solver))
        recorder = Recorder(solver, losses, bar, (stage.eval_interval, snapshots.every))
        stack.callback(recorder.flush, together=False)
        solver.on_forward += [recorder.after_forward]
        solver.on_progress.append(recorder.after_iteration)
        if stage.validate is not None and stage.eval_interval > 0:
            solver.on_progress.append(lambda s: _validate(s, stage, losses, bar))
        solver.on_progress.append(snapshots.after_iteration)
        # A run that diverges is told of by check_loss; NumPy need not warn before.
        with finite.layers_explained(solver), np.errstate(over="ignore", invalid="ignore"):
            solver.solve()
    if solver.iter < total:
        stage.communicator.share()  # rank 0 has written its snapshot
        raise Interrupted.at(stage.name, solver)


def stoppable(solver):
    """A context in which Ctrl-C stops a solver after the iteration; only in the main thread."""
    if threading.current_thread() is threading.main_thread():
        return signals.handled(solver)
    return contextlib.nullcontext()


def _validate(solver, stage, losses, bar):
    if solver.iter % stage.eval_interval and solver.iter < solver.param.max_iter:
        return
    if stage.communicator.is_root:
        with normalization.folded(solver.net, stage.statistics, stage.box_layer):
            numbers = stage.validate(solver)
        losses.add(solver.iter, numbers)
        text = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        bar.say(f"{stage.name}, iteration {solver.iter}, validation: {text}")
    stage.communicator.share()
