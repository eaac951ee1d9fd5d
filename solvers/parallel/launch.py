"""Starting the ranks that a flag asks for, and stopping all of them when one dies."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

from ...engine.cores import usable_cores
from ...engine.errors import describe
from .communicator import ParallelError
from .hub import Hub
from .mpi import INSTALL
from .place import HUB, RANK, SIZE

_PATIENCE = 5  # seconds between asking a process to end and killing it
_LAST_WORDS = 2  # seconds that the hub waits for what dying ranks still say


def launch(module, argv, plan):
    """Run `python -m MODULE ARGV...` once for each rank of a `Plan`, and wait for all.

    CPU ranks are started by mpirun, those on GPUs directly. Ctrl-C and hang-ups are handed to
    rank 0, a second Ctrl-C stops all. If a rank fails or dies, the others are stopped, and one line
    says which it was.

    Returns: the exit status.
    Raises: ParallelError if mpi4py or mpirun is missing.
    """
    command = [sys.executable, "-P", "-m", module, *argv]
    hub = Hub(plan.size)
    environment = _environment(plan.size, hub.address)
    try:
        if plan.gpus is None:
            command = [find_mpirun(), "-n", str(plan.size), *command]
            commands = [(command, environment | _mpi_environment(plan.size))]
        else:
            places = [{RANK: str(r), SIZE: str(plan.size)} for r in range(plan.size)]
            commands = [(command, environment | place) for place in places]
        return _Watch(hub, commands).run()
    finally:
        hub.close()


def find_mpirun():
    """The path of the mpirun to start CPU ranks with, one beside this Python first.

    Raises: ParallelError if mpi4py or mpirun is missing.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise ParallelError("ranks on CPUs", "mpi4py", "none", INSTALL)
    folders = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    for name in ("mpirun", "mpiexec"):
        path = shutil.which(name, path=folders)
        if path is not None:
            return path
    raise ParallelError("ranks on CPUs", "the program mpirun", "none", INSTALL)


def _environment(size, address):
    """The environment of the ranks: where the hub is, and a share of the cores for each."""
    paths = [sys.path[0] or os.getcwd(), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ)
    environment[HUB] = address
    # Where Python looked for modules first: the script's folder or the working directory.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if "NUMBA_NUM_THREADS" not in environment:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // size)))
    return environment


def _mpi_environment(size):
    """What Open MPI is to do otherwise than by default; other libraries take no notice."""
    wanted = {
        # One core a rank would be too few for a rank with threads.
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        # More ranks than cores, if the flag says so.
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    if size > usable_cores():
        wanted["OMPI_MCA_mpi_yield_when_idle"] = "1"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # The ranks do what this process would do, which runs as root already.
        wanted["OMPI_ALLOW_RUN_AS_ROOT"] = wanted["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return {name: value for name, value in wanted.items() if name not in os.environ}


class _Watch:
    """Runs processes until all have ended or one has failed."""

    def __init__(self, hub, commands):
        self._hub, self._commands = hub, commands
        self._processes = []
        self._asked = False  # whether a signal has asked rank 0 to stop
        self._stop = None  # the status of a signal that stops everything
        self._deadline = None  # for ranks to end after one has ended early

    def run(self):
        """The exit status of all."""
        before = {number: signal.signal(number, self._handle) for number in _signals()}
        try:
            for command, environment in self._commands:
                # In a session of its own: a terminal's Ctrl-C reaches this process alone.
                self._processes.append(
                    subprocess.Popen(
                        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
                    )
                )
            while self._goes_on():
                self._hub.serve(0.1)
            return self._outcome()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _goes_on(self):
        if any(self._hub.statuses.values()) and self._deadline is None:
            self._deadline = time.monotonic() + _PATIENCE
        late = self._deadline is not None and time.monotonic() > self._deadline
        if self._hub.errors or self._stop is not None or late:
            return False
        return any(process.poll() is None for process in self._processes)

    def _handle(self, number, frame):
        root = self._hub.processes.get(0)
        gentle = number == getattr(signal, "SIGHUP", None) or (
            number == signal.SIGINT and not self._asked
        )
        if root is None or not gentle or 0 in self._hub.statuses:
            self._stop = 128 + number
            return
        self._asked |= number == signal.SIGINT
        try:
            os.kill(root, number)
        except ProcessLookupError:
            self._stop = 128 + number

    def _outcome(self):
        """The exit status, after the line that says what went wrong."""
        if self._stop is not None:
            return self._stop
        self._hear_last_words()
        if self._hub.errors:
            # A rank that tells why is told of before those that merely died.
            rank, text = min(self._hub.errors, key=lambda error: error[1] is None)
            _say(text or self._obituary(rank))
            return 1
        for status in self._hub.statuses.values():
            if status:
                return status
        if len(self._hub.statuses) < self._hub.size:
            _say(self._missing())
            return 1
        return 0

    def _hear_last_words(self):
        """Let the hub take in what ranks have said that have ended."""
        end = time.monotonic() + _LAST_WORDS
        while time.monotonic() < end:
            silent = [text for _, text in self._hub.errors] == [None]
            finished = len(self._hub.statuses) == self._hub.size
            if finished or any(self._hub.statuses.values()) or (self._hub.errors and not silent):
                return
            self._hub.serve(0.05)

    def _obituary(self, rank):
        found = "that it has died"
        if len(self._processes) > 1:
            status = _status(self._processes[rank])
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            found += f" ({cause})"
        return describe(
            f"rank {rank} of {self._hub.size}", "a process that trains to the end", found,
            "All ranks were stopped; a snapshot can be resumed.",
        )  # fmt: skip

    def _missing(self):
        missing = sorted({*range(self._hub.size)} - {*self._hub.statuses})
        statuses = sorted({_status(p) for p in self._processes})
        return describe(
            f"{self._hub.size} ranks", "all to train to the end",
            f"no word of rank {', '.join(map(str, missing))} (exit status "
            f"{', '.join(map(str, statuses))})", "What is printed above may say why.",
        )  # fmt: skip

    def _end(self):
        """Have all processes end, with force if need be."""
        running = [p for p in self._processes if p.poll() is None]
        for process in running:
            process.terminate()
        end = time.monotonic() + _PATIENCE
        for process in running:
            try:
                process.wait(max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _status(process):
    """The exit status of a process that has ended or is about to; one that is not is killed."""
    try:
        return process.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _signals():
    return [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def _say(text):
    print(f"error: {text}", file=sys.stderr, flush=True)
