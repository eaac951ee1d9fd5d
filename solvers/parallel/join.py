"""What a rank does before and after it trains."""

import contextlib
import logging
import os
import socket
import sys

from ...engine.cores import usable_cores
from ...engine.errors import DemitasseError
from .communicator import ALONE, ParallelError
from .hub import HubCommunicator, Line
from .mpi import MpiCommunicator
from .nccl import NcclCommunicator

_WAIT = 60  # seconds in which the launcher stops a rank that has told of an error


@contextlib.contextmanager
def joined(place, device=None):
    """Yields the Communicator of this process; `ALONE` for one that nobody has started as a rank.

    While the context lasts, an exception in one rank ends all of them: the launcher, or under an
    mpirun the rank itself, prints it with the rank's number. Ranks other than 0 write nothing to
    stdout, and of the log warnings alone.

    Args: place: the `Place` of this process. device: where it computes; None for the CPU.
    """
    if not place.started or (place.size == 1 and place.hub is None):
        yield ALONE
        return
    line = None if place.hub is None else Line(place.hub, place.rank, os.getpid())
    messages = None
    try:
        messages = _messages(place, line)
        _share_cores(messages)
        on_gpu = device is not None and device.name == "gpu"
        communicator = NcclCommunicator(messages, device) if on_gpu else messages
        with _quiet(communicator):
            yield communicator
            communicator.close()
    except BaseException as error:
        _leave(error, place, line, messages)
    else:
        if line is not None:
            line.send(status=0)


def _messages(place, line):
    """What carries this rank's messages to the others."""
    if place.uses_mpi:
        return MpiCommunicator(place.size, line.check if line else lambda: None)
    return HubCommunicator(line, place.rank, place.size)


def _leave(error, place, line, messages):
    """End this rank, and thereby the others, for an exception; does not return normally."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        if line is None:
            raise error
        line.send(status=error.code or 0)
        raise SystemExit(0)  # mpirun would have much to say of any other
    text = _text_of(error)
    if not isinstance(error, ParallelError):  # which names the rank that it is about
        text = f"rank {place.rank}: {text}"
    if line is not None:
        with contextlib.suppress(DemitasseError):
            line.send(error=text)
            line.wait(_WAIT)  # the launcher stops this rank like the others
    print(f"error: {text}", file=sys.stderr, flush=True)
    if isinstance(messages, MpiCommunicator):
        messages.abort()
    os._exit(1)


def _text_of(error):
    """An exception in one line, after the traceback of one that is not about bad input."""
    if isinstance(error, (DemitasseError, OSError)):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    sys.excepthook(type(error), error, error.__traceback__)
    return f"{type(error).__name__}: {error}"


# ---- surroundings


def _share_cores(communicator):
    """Limit this rank's threads to its share of the cores that several ranks may run on.

    A rank that mpirun has bound to cores of its own keeps these. Kernels look at the limit when
    the first is loaded.
    """
    limits = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    affinity = getattr(os, "sched_getaffinity", None)
    own = sorted(affinity(0)) if affinity else list(range(usable_cores()))
    everyone = communicator.gather([socket.gethostname(), own])
    host = socket.gethostname()
    sharing = sum(name == host and bool({*cores} & {*own}) for name, cores in everyone)
    if not any(name in os.environ for name in limits):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(own) // sharing))


@contextlib.contextmanager
def _quiet(communicator):
    """Have ranks other than 0 write nothing to stdout, and log warnings alone, with their rank."""
    if communicator.is_root:
        yield
        return
    handlers = logging.getLogger("demitasse").handlers
    only_warnings = _Warnings(communicator.rank)
    for handler in handlers:
        handler.addFilter(only_warnings)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(only_warnings)


class _Warnings(logging.Filter):
    def __init__(self, rank):
        super().__init__()
        self._rank = rank

    def filter(self, record):
        """Whether to log a record, which gets the rank's number, once for all handlers."""
        if record.levelno < logging.WARNING:
            return False
        if not hasattr(record, "rank"):
            record.rank = self._rank
            record.msg, record.args = f"rank {self._rank}: {record.getMessage()}", ()
        return True
