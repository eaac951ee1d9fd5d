"""The training loop (Caffe: Solver and SGDSolver)."""

import contextlib
import logging
import math
import os
from collections import deque

import numpy as np

from ..engine import weights as weight_files
from ..engine.context import Shard
from ..engine.device import default_device
from ..engine.errors import SolverError, closest
from ..engine.proto import caffe_pb2
from ..engine.random import RandomStream
from ..engine.upgrade import upgrade_solver
from . import learning_rate as rates
from . import report, snapshot, testing
from .loss_scale import Scaler
from .nets import Sources, find_file, test_seed
from .optimizer import Optimizer
from .parallel.agreement import check_same
from .parallel.communicator import ALONE
from .parallel.gradients import Gradients
from .signals import NONE, SNAPSHOT, STOP
from .updates import rule_of

log = logging.getLogger("demitasse.solver")


class Solver:
    """Trains a net.

    Attributes:
        param: the SolverParameter.
        net: the training net; test_nets: the nets that are tested now and then, which use the
            training net's parameters.
        iter: how many updates have been made.
        lr: the learning rate of the next update.
        loss, smoothed_loss: of the last iteration, and its mean over `average_loss` iterations.
        optimizer: the `Optimizer`, which keeps what the update rule remembers.
        on_forward: functions f(solver, loss) to call after each forward pass of an iteration.
        on_progress: functions f(solver) to call after each iteration.
        stopped: whether a signal has ended the last `step` before its time.
        requested_action: a function without arguments that says what a signal has asked for:
            signals.NONE, STOP or SNAPSHOT; asked between iterations and test batches.
        communicator: the `Communicator` of the ranks that train this net together. Each makes
            `iter_size` passes an iteration over its own shard of the data; gradients are the means
            over the ranks. Rank 0 alone has test nets and writes snapshots.
        gradients: the `Gradients` that sums them; None for a solver that trains alone.
    """

    def __init__(
        self, param, folder=None, device=None, settings=(), dtype=np.float32, keep="all", path=None,
        communicator=ALONE,
    ):  # fmt: skip
        """Build the nets and load the initial `weights`.

        Args:
            param: a SolverParameter; a copy is kept.
            folder: of the solver file; files it names are found from there too.
            device: where to compute; the default device if not given. `device_of(param)` is
                what solver_mode asks for.
            settings: hyper-parameters for the layers (see `Context`).
            dtype, keep: of the nets (see `Net`).
            path: of the solver file, which errors name.
            communicator: of the ranks that train together; every rank makes a Solver.

        Raises:
            SolverError: settings that cannot be trained with; net errors as of `Net`.
        """
        self.communicator = communicator
        self.param = caffe_pb2.SolverParameter()
        self.param.CopyFrom(param)
        self.folder, self.path = folder, path
        with self._named():
            rule = self._check()
            self._make_nets(
                device=device or default_device(), settings=settings, dtype=dtype, keep=keep
            )
            self._load_initial_weights()
        self.optimizer = Optimizer(rule, self.net)
        self.scaler = Scaler(self.net)
        self.gradients = Gradients(self.net, communicator) if communicator.sums else None
        self.iter = 0
        self.on_forward, self.on_progress = [], []
        self.requested_action = lambda: NONE
        self.stopped = False
        self._on_start, self._on_gradients_ready = [], []
        self._loss, self._losses = 0.0, deque()
        self._warned_of_loss = False
        log.info("Solver scaffolding done.")

    # ---- building

    @contextlib.contextmanager
    def _named(self):
        # Has errors name the solver file, if there is one.
        try:
            yield
        except SolverError as error:
            if self.path is None:
                raise
            raise SolverError(f"{os.fspath(self.path)}: {error}") from error

    def _check(self):
        """Check the settings; returns the update rule."""
        upgrade_solver(self.param, os.fspath(self.path or "solver"))
        check_settings(self.param)
        rule = rule_of(self.param)
        log.info("Initializing solver from parameters: \n%s", self.param)
        if self.param.snapshot:
            snapshot.check_writable(self.param)
        return rule

    def _make_nets(self, **options):
        p, ranks = self.param, self.communicator
        seed = RandomStream(p.random_seed if p.random_seed >= 0 else None).seed
        seed = ranks.share(seed)  # one drawn by chance too
        sources = Sources(p, self.folder)
        state = p.train_state if p.HasField("train_state") else None
        shard = Shard(ranks.rank, ranks.size)
        self.net = sources.train().build(caffe_pb2.TRAIN, state, seed, shard=shard, **options)
        self.test_nets = []
        for i, source in enumerate(sources.tests() if ranks.is_root else ()):
            log.info("Creating test net (#%d) specified by %s", i, source.text)
            state = p.test_state[i] if p.test_state else None
            net = source.build(caffe_pb2.TEST, state, test_seed(seed, i), **options)
            net.debug_info = p.debug_info
            self.share_weights(net)
            self.test_nets.append(net)

    def _load_initial_weights(self):
        names = [name.strip() for given in self.param.weights for name in given.split(",")]
        for name in filter(None, names):
            log.info("Finetuning from %s", name)
            path = find_file(name, self.folder, "solver field weights")
            weight_files.copy_from(self.net, path)
            for net in self.test_nets:
                if not net.params.keys() <= self.net.params.keys():
                    weight_files.copy_from(net, path)

    def share_weights(self, net):
        """Have another net use the memory of the training net's parameters, by layer name."""
        weight_files.share_with(net, self.net)

    def add_callback(self, on_start, on_gradients_ready):
        """Call `on_start()` before each iteration's passes, `on_gradients_ready()` after them."""
        self._on_start.append(on_start)
        self._on_gradients_ready.append(on_gradients_ready)

    # ---- training

    def solve(self, resume_file=None):
        """Train until max_iter, from a snapshot's solver state if one is given."""
        p = self.param
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", p.lr_policy)
        with self._named():
            rates.check_policy(p)
            if p.snapshot or p.snapshot_after_train:
                snapshot.check_writable(p)
        if resume_file is not None:
            log.info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        check_same(self)
        self.step(p.max_iter - self.iter)
        check_same(self, learnt_only=True)
        self._snapshot_at_end()
        if self.stopped:
            log.info("Optimization stopped early.")
            return
        if p.display and self.iter % p.display == 0:
            # The loss with the final parameters; nothing is learned from this pass.
            self._smooth(self.net.forward())
            log.info("Iteration %d, loss = %g", self.iter, self._mean_loss())
        if p.test_interval and self.iter % p.test_interval == 0:
            self.test_all()
        log.info("Optimization Done.")

    def _snapshot_at_end(self):
        p = self.param
        # NOTE: Caffe writes no snapshot on Ctrl-C with snapshot_after_train: false; here a run
        # that was stopped can always be continued, if there is a name for the files.
        wanted = p.snapshot_after_train or (self.stopped and p.HasField("snapshot_prefix"))
        if wanted and not (p.snapshot and self.iter % p.snapshot == 0):
            self.snapshot()

    def step(self, iterations):
        """Train for some iterations, with tests, log lines and snapshots when they are due."""
        p = self.param
        with self._named():
            rates.check_policy(p)
        end = self.iter + iterations
        self.stopped = False
        if iterations > 0:
            self._losses.clear()
        self._clock = report.Clock(self.iter)
        while self.iter < end:
            self.net.clear_param_diffs(at_once=False)
            due = p.test_interval and self.iter % p.test_interval == 0
            if due and (self.iter > 0 or p.test_initialization):
                self.test_all()
                if self.stopped:
                    break
            self._iterate()
            actions = self.communicator.gather(self.requested_action())
            if (p.snapshot and self.iter % p.snapshot == 0) or SNAPSHOT in actions:
                self.snapshot()
            if STOP in actions:
                self.stopped = True
                break

    def _iterate(self):
        """One update: passes forward and backward, log lines, callbacks."""
        p = self.param
        for callback in self._on_start:
            callback()
        shown = bool(p.display) and self.iter % p.display == 0
        self.net.debug_info = shown and p.debug_info
        losses = [self._pass(last=k == p.iter_size - 1) for k in range(p.iter_size)]
        if self.gradients is not None:
            self.gradients.finish()
        self._smooth(sum(losses) / p.iter_size)
        if shown or self.net.device.is_host:
            self._check_loss()
        if shown:
            self.net.check()
            report.iteration(self, self._clock, self._mean_loss())
        for callback in self._on_gradients_ready:
            callback()
        self.apply_update()
        for callback in self.on_progress:
            callback(self)
        if self.net.device.transfers is not None:
            self.net.device.transfers.next_iteration()

    def _pass(self, last):
        """One pass forward and backward, the last of the iteration or not; returns its loss."""
        loss = self.net.forward()
        for callback in self.on_forward:
            callback(self, loss)
        if last and self.gradients is not None:
            self.gradients.begin()
        self.net.backward()
        return loss

    def _smooth(self, loss):
        """Take `loss` into the mean of the last `average_loss` losses of this run."""
        self._loss = loss
        self._losses.append(loss)
        if len(self._losses) > self.param.average_loss:
            self._losses.popleft()

    # Losses stay on the device until somebody looks at them, because that waits for it.

    @property
    def unread_loss(self):
        """The loss of the last iteration; on a GPU, an array of one element there."""
        return self._loss

    @property
    def loss(self):
        """The loss of the last iteration; 0 before the first."""
        return float(self._loss)

    @property
    def smoothed_loss(self):
        """The mean loss of the last `average_loss` iterations of this run."""
        return float(sum(self._losses) / max(1, len(self._losses)))

    def _mean_loss(self):
        """The smoothed loss, as the mean over all ranks."""
        return self.communicator.mean([self.smoothed_loss])[0]

    def _check_loss(self):
        # NOTE: Caffe says nothing and goes on. So do we, because one bad batch of a loss that
        # nothing is learned from does no harm; but the log tells where it began (on a GPU, at the
        # next iteration that is displayed).
        if not math.isfinite(self.loss) and not self._warned_of_loss:
            self._warned_of_loss = True
            log.warning(
                "Iteration %d: the loss is %g. If it stays so, lower base_lr, set clip_gradients, "
                "or check the data.", self.iter, self.loss,
            )  # fmt: skip

    @property
    def lr(self):
        """The learning rate of the next update."""
        return self.optimizer.learning_rate(self.iter)

    def apply_update(self):
        """Update the parameters from their gradients; counts as an iteration.

        With a loss scale, gradients that overflow are not used (see `loss_scale`).
        """
        scaler = self.scaler
        scaler.follow(self.optimizer.update(self.iter, scaler.scale, skip=scaler.state is not None))
        self.iter += 1

    # ---- testing

    def test_all(self):
        """Test all test nets; returns `test`'s results in a list. Other ranks wait for rank 0."""
        results = []
        for i in range(len(self.test_nets)):
            if not self.stopped:
                results.append(self.test(i))
        self.stopped = self.communicator.share(self.stopped)
        return results

    def test(self, index):
        """Run a test net for its test_iter batches and log the mean of each output.

        Returns: {output name: mean, an array in the output's shape}, or None if interrupted.
        """
        return testing.run(self, index)

    def act_on_requests(self):
        """Do what signals have asked for; returns whether the solver is to stop."""
        while (action := self.requested_action()) != NONE:
            if action == SNAPSHOT:
                self.snapshot()
            else:
                self.stopped = True
        return self.stopped

    # ---- snapshots

    def snapshot(self):
        """Write the weights and the solver's state; returns the path of the state file."""
        return snapshot.write(self)

    def restore(self, path):
        """Continue from a .solverstate or .solverstate.h5 file and the weights that it names."""
        snapshot.restore(self, os.fspath(path))


def check_settings(p):
    """Raise SolverError for values of a SolverParameter that no training can use."""
    for field, least in (("iter_size", 1), ("average_loss", 1), ("max_iter", 0), ("snapshot", 0)):
        if getattr(p, field) < least:
            raise SolverError("solver", f"{field} of at least {least}", getattr(p, field))
    if p.regularization_type not in ("L1", "L2"):
        raise SolverError(
            "solver", "regularization_type L1 or L2", repr(p.regularization_type),
            closest(p.regularization_type, ("L1", "L2")),
        )  # fmt: skip
    if p.HasField("lr_policy"):
        rates.check_policy(p)
    if not p.HasField("base_lr"):
        log.warning("The solver has no base_lr, so nothing will be learned: write base_lr: RATE.")
