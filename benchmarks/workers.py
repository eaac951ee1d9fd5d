"""Processes of the sides of a comparison, one each, and what they are told.

No library's threads or memory are thus another's. A worker builds its side and then answers:
"results" by the numbers of a pass, "run" by the seconds of the passes of a turn, "peak" by the most
MB of memory it has held, "waited" by the seconds a pass waits for data (None if it reads none).
"""

import multiprocessing
import os
import resource
import time
import warnings

from ours import Unavailable

TURN = 0.1
"""Seconds of a side's turn, at least."""
CONTEXT = multiprocessing.get_context("spawn")


def _serve(connection, kind, case, threads):
    """Answer commands until told to stop, or left alone: ("ok", value) or ("failed", reason)."""
    warnings.simplefilter("ignore")
    commands = {}

    def start():
        made = kind(case, threads)
        waited = getattr(made, "waited", lambda: None)
        commands.update(
            run=lambda: _turn(made.run), results=made.results, peak=_peak_mb, waited=waited
        )

    commands["start"] = start
    while True:
        try:
            command = connection.recv()
            if command == "stop":
                return
            connection.send(("ok", commands[command]()))
        except EOFError:
            return
        except Unavailable as e:
            connection.send(("failed", str(e)))
        except Exception as e:
            connection.send(("failed", f"{type(e).__name__}: {e}"))


def _turn(function):
    # Seconds of the passes of a turn.
    passes = []
    while sum(passes) < TURN:
        start = time.perf_counter()
        function()
        passes.append(time.perf_counter() - start)
    return passes[1:] or passes


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


class Worker:
    """A side's process, seen from here. `kind` is the side's class, `side` what it is called."""

    def __init__(self, side, kind, case, threads):
        self.side, self.title = side, kind.name
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(theirs, kind, case, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.connection.send("start")

    def answer(self):
        """The answer to the last command; Unavailable if there is none."""
        try:
            status, value = self.connection.recv()
        except EOFError:
            raise Unavailable("its process ended (out of memory?)") from None
        if status == "failed":
            raise Unavailable(value)
        return value

    def ask(self, command):
        """Have a command carried out."""
        try:
            self.connection.send(command)
        except OSError:
            raise Unavailable("its process ended") from None
        return self.answer()

    def stop(self):
        """End the process."""
        if self.process.is_alive():
            try:
                self.connection.send("stop")
            except OSError:
                self.process.terminate()
        self.process.join()


class Workers:
    """The workers of a case that could start, as a context manager. `kinds`: {side: class}."""

    def __init__(self, case, kinds, threads, note):
        set_threads(threads)
        self.all = [Worker(side, kind, case, threads) for side, kind in kinds.items()]
        self.note = note

    def __enter__(self):
        return self.live(lambda worker: worker.answer())

    def live(self, action):
        """Do something with each worker; those that fail are noted and left out from now on."""
        for worker in list(self.all):
            try:
                action(worker)
            except Unavailable as e:
                self.note(f"{worker.title}: {e}")
                worker.stop()
                self.all.remove(worker)
        return self

    def __exit__(self, *_):
        for worker in self.all:
            worker.stop()


def set_threads(count):
    """What the libraries of processes started from now on take as their number of threads."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
