"""The command `caffe`: train, test, time, device_query (Caffe: tools/caffe.cpp)."""

import contextlib
import logging
import os
import sys
import time
from collections import defaultdict

from demitasse.engine import device as devices
from demitasse.engine import precision
from demitasse.engine import weights as weight_files
from demitasse.engine.context import Context
from demitasse.engine.errors import closest
from demitasse.engine.net import Net
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import read_net, read_solver
from demitasse.layers.python import allow_python_layers

from ._caffe import __version__
from .flags import Flag, FlagError, command, parse, usage_text
from .log import init_log, log_to_folder

log = logging.getLogger("demitasse.caffe")

USAGE = """caffe: command line brew
usage: caffe <command> <flags>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show the devices that nets can run on
  time            benchmark model execution time

flags:"""

FLAGS = [
    Flag("solver", "", "The solver definition prototxt file."),
    Flag("model", "", "The model definition prototxt file."),
    Flag("weights", "", "Weights to start from or to test, separated by ','."),
    Flag("snapshot", "", "The snapshot (.solverstate) to resume training from."),
    Flag("iterations", 50, "The number of iterations to run (test, time)."),
    Flag("phase", "", "TRAIN or TEST: the network phase (time)."),
    Flag("level", 0, "The network level."),
    Flag("stage", "", "The network stages, separated by ','."),
    Flag("gpu", "", "The GPU to run on; several as in 0,1, or 'all', to train on (train)."),
    Flag("ranks", 0, "How many processes train together, each with a share of the cores (train)."),
    Flag("trace", "", "A file for what ran when while ranks train together (train)."),
    Flag("cpu", False, "Run on the CPU, whatever the solver file says."),
    Flag("precision", "", f"How products are computed on a GPU: {', '.join(precision.MATHS)}."),
    Flag("sigint_effect", "stop", "What Ctrl-C does in training: snapshot, stop or none."),
    Flag("sighup_effect", "snapshot", "What a hang-up signal does: snapshot, stop or none."),
    Flag("allow_python_layer", (), "A module that Python layers may come from; may be repeated."),
    # Those of glog that people give. The lines always go to stderr, too.
    Flag("log_dir", os.environ.get("GLOG_log_dir", ""), "A folder for a file with the log."),  # noqa: SIM112
    Flag("minloglevel", -1, "0 logs all, 1 from warnings on, 2 errors alone."),
    Flag("logtostderr", True, "Accepted, and always true."),
    Flag("alsologtostderr", True, "Accepted, and always true."),
    Flag("version", False, "Show the version of Caffe that this is like."),
]


@command
def main(argv):
    """Run the command line `argv`; returns the exit status."""
    flags, words = parse(argv, FLAGS, USAGE)
    if flags.version:
        print(f"caffe version {__version__}")
        return 0
    if len(words) != 1:
        print(usage_text(USAGE, FLAGS), file=sys.stderr)
        return 1
    if words[0] not in COMMANDS:
        hint = closest(words[0], COMMANDS) or f"Known: {', '.join(COMMANDS)}."
        raise FlagError("command line", "a command", repr(words[0]), hint)
    init_log(None if flags.minloglevel < 0 else flags.minloglevel)
    allow_python_layers(*flags.allow_python_layer)
    if flags.precision:
        precision.choose(flags.precision)
    if words[0] == "train":
        return train(flags, argv)
    _log_to_folder(flags)
    if flags.gpu and not flags.cpu:
        devices.set_default_device(devices.gpu_device(_gpu_index(flags.gpu)))
    return COMMANDS[words[0]](flags)


def _log_to_folder(flags):
    if flags.log_dir:
        log_to_folder(flags.log_dir)


def _gpu_index(text):
    first = "0" if text == "all" else text.split(",")[0]
    if not first.isdigit():
        raise FlagError("flag -gpu", "a number, or 'all'", repr(text))
    return int(first)


def _split(text):
    return [part for part in text.split(",") if part]


def _need(flags, *names):
    for name in names:
        if not getattr(flags, name):
            raise FlagError("command line", f"-{name}", "none", f"Give -{name} FILE.")


def _check_iterations(flags):
    if flags.iterations < 1:
        raise FlagError("flag -iterations", "at least 1", flags.iterations)


def train(flags, argv):
    """Train, from scratch, from weights, or from a snapshot; in one process or in several."""
    from demitasse.solvers import parallel

    _need(flags, "solver")
    if flags.snapshot and flags.weights:
        raise FlagError(
            "command line", "-snapshot or -weights", "both",
            "Give a snapshot to resume training or weights to finetune, not both.",
        )  # fmt: skip
    place = parallel.place()
    gpus = () if flags.cpu else parallel.gpu_numbers(flags.gpu)
    plan = parallel.make_plan(flags.ranks, gpus, place)
    if plan.size > 1 and not place.started:
        read_solver(flags.solver)  # what is wrong with it need not be said by every rank
        return parallel.launch("caffe", argv, plan)
    if place.rank == 0:
        _log_to_folder(flags)
    param = _solver_param(flags)
    device = _training_device(param, plan, place)
    with parallel.joined(place, device) as communicator:
        _train(flags, param, device, communicator)


def _training_device(param, plan, place):
    from demitasse.solvers import device_of

    if plan.gpus is not None:
        param.solver_mode = caffe_pb2.SolverParameter.GPU
        param.device_id = plan.gpus[place.local_rank]
    elif plan.size > 1 and param.solver_mode == caffe_pb2.SolverParameter.GPU:
        raise FlagError(
            "command line", f"-gpu with the GPUs of {plan.size} ranks, or -cpu",
            "neither, with solver_mode: GPU", "For example: -gpu 0,1.",
        )  # fmt: skip
    return device_of(param)


def _solver_param(flags):
    """The SolverParameter with what the flags change."""
    param = read_solver(flags.solver)
    if flags.stage or flags.level:
        param.train_state.stage.extend(_split(flags.stage))
        param.train_state.level = flags.level
    if flags.cpu:
        param.solver_mode = caffe_pb2.SolverParameter.CPU
    if flags.weights:
        param.weights[:] = [flags.weights]
    if flags.snapshot:
        del param.weights[:]  # the snapshot has its own
    return param


def _train(flags, param, device, communicator):
    from demitasse.solvers import make_solver, signals
    from demitasse.solvers.progress import progress_bar

    _log_device(device)
    if communicator.size > 1:
        log.info("Training with %d ranks, of which this is rank 0.", communicator.size)
    if flags.snapshot:
        log.info("Resuming from %s", flags.snapshot)
    solver = make_solver(param, flags.solver, device=device, communicator=communicator)
    trace = _trace(flags, solver)
    log.info("Starting Optimization")
    handled = signals.handled(solver, flags.sigint_effect, flags.sighup_effect)
    with handled, progress_bar(solver) if communicator.is_root else contextlib.nullcontext():
        solver.solve(flags.snapshot or None)
    if trace is not None and communicator.is_root:
        trace.write(flags.trace)
    log.info("Optimization Done.")


def _trace(flags, solver):
    """The `Trace` that -trace asks for, or None."""
    from demitasse.solvers.parallel.trace import Trace

    if not flags.trace:
        return None
    if solver.gradients is None:
        raise FlagError("flag -trace", "several ranks", "one", "Give -ranks 2, or -gpu 0,1.")
    solver.gradients.trace = Trace(solver.communicator.rank)
    return solver.gradients.trace


def _log_device(device):
    if device is devices.CPU:
        log.info("Use CPU.")
    else:
        log.info("Using GPUs %d", device.index)
        log.info("GPU %d: %s", device.index, device.description)


def _load_net(flags, phase):
    _log_device(devices.default_device())
    net = Net(
        read_net(flags.model), phase, flags.level, _split(flags.stage),
        Context(folder=os.path.dirname(os.path.abspath(flags.model))),
    )  # fmt: skip
    for path in _split(flags.weights):
        weight_files.copy_from(net, path)
    return net


def test(flags):
    """Score a model: run it for a number of batches and average its outputs."""
    _need(flags, "model", "weights")
    _check_iterations(flags)
    net = _load_net(flags, caffe_pb2.TEST)
    log.info("Running for %d iterations.", flags.iterations)
    sums, loss = defaultdict(float), 0.0
    for i in range(flags.iterations):
        batch_loss = net.forward()
        loss += batch_loss
        for blob_id in net.output_ids:
            name = net.blob_names[blob_id]
            for k, value in enumerate(net.blob_list[blob_id].host_data.ravel().tolist()):
                sums[name, k] += value
                log.info("Batch %d, %s = %g", i, name, value)
    log.info("Loss: %g", loss / flags.iterations)
    weights = _loss_weights(net)
    for (name, _), total in sums.items():
        mean, weight = total / flags.iterations, weights.get(name, 0)
        note = f" (* {weight:g} = {weight * mean:g} loss)" if weight else ""
        log.info("%s = %g%s", name, mean, note)


def _loss_weights(net):
    return {
        net.blob_names[t]: weight
        for node in net.nodes
        for t, weight in zip(node.top_ids, node.loss_weights)
    }


def time_net(flags):
    """Measure the forward and backward time of each layer."""
    _need(flags, "model")
    phases = {"": caffe_pb2.TRAIN, "TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}
    if flags.phase not in phases:
        raise FlagError("flag -phase", "TRAIN or TEST", repr(flags.phase))
    _check_iterations(flags)
    net = _load_net(flags, phases[flags.phase])
    log.info("Performing Forward")
    log.info("Initial loss: %g", net.forward())
    log.info("Performing Backward")
    net.backward()
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", flags.iterations)
    clock = _LayerClock(net)
    begin = time.perf_counter()
    for i in range(flags.iterations):
        start = time.perf_counter()
        net.forward()
        middle = time.perf_counter()
        net.backward()
        net.device.synchronize()
        end = time.perf_counter()
        clock.forward_total += middle - start
        clock.backward_total += end - middle
        log.info("Iteration: %d forward-backward time: %.4g ms.", i + 1, 1e3 * (end - start))
    clock.report(flags.iterations, time.perf_counter() - begin)


class _LayerClock:
    """Adds up the time of each layer through the net's callbacks."""

    def __init__(self, net):
        self.net = net
        self.layers = {"forward": [0.0] * len(net.nodes), "backward": [0.0] * len(net.nodes)}
        self.forward_total = self.backward_total = 0.0
        net.before_forward.append(self._start)
        net.before_backward.append(self._start)
        net.after_forward.append(lambda i: self._stop("forward", i))
        net.after_backward.append(lambda i: self._stop("backward", i))

    def _start(self, _):
        self._begin = time.perf_counter()

    def _stop(self, verb, i):
        self.net.device.synchronize()
        self.layers[verb][i] += time.perf_counter() - self._begin

    def report(self, iterations, total):
        """Log the averages in Caffe's words."""
        ms = 1e3 / iterations
        log.info("Average time per layer: ")
        for i, node in enumerate(self.net.nodes):
            for verb in ("forward", "backward"):
                log.info("%10s\t%s: %.6g ms.", node.name, verb, self.layers[verb][i] * ms)
        log.info("Average Forward pass: %.6g ms.", self.forward_total * ms)
        log.info("Average Backward pass: %.6g ms.", self.backward_total * ms)
        log.info("Average Forward-Backward: %.6g ms.", total * ms)
        log.info("Total Time: %.6g ms.", total * 1e3)
        log.info("*** Benchmark ends ***")


def device_query(flags):
    """Show the devices that nets can run on."""
    log.info("Querying GPUs %s", flags.gpu)
    if flags.gpu:
        devices.gpu_device(_gpu_index(flags.gpu))
    affinity = getattr(os, "sched_getaffinity", None)
    log.info("CPU: %d usable cores", len(affinity(0)) if affinity else os.cpu_count())
    log.info("GPUs: %d", devices.gpu_count())
    for index in range(devices.gpu_count()):
        log.info("GPU %d: %s", index, devices.gpu_device(index).description)


COMMANDS = {"train": train, "test": test, "time": time_net, "device_query": device_query}
