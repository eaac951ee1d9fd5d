"""Log lines in the form of glog, which tools that read Caffe's logs expect."""

import contextlib
import getpass
import logging
import os
import socket
import sys
import threading
from datetime import datetime

_logger = logging.getLogger("demitasse")
_sources = {"demitasse.solver": "solver.cpp", "demitasse.net": "net.cpp"}


class GlogFormatter(logging.Formatter):
    """`I1121 09:15:02.123456  4242 solver.cpp:239] message` (severity, time, thread, place)."""

    def format(self, record):
        """The line for a record."""
        time = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        severity = "F" if record.levelno >= logging.CRITICAL else record.levelname[0]
        place = _sources.get(record.name, "caffe.cpp")
        text = f"{severity}{time} {threading.get_native_id():5d} {place}:{record.lineno}] "
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Handler(logging.Handler):
    """Writes to stderr above a progress bar, if one is shown."""

    def emit(self, record):
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is not None and sys.stderr.isatty():
                tqdm.tqdm.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def init_log(level=None, force=True):
    """Show the engine's log lines on stderr.

    Args:
        level: a glog severity (0 info, 1 warning, 2 error); by default that of the environment
            variable GLOG_minloglevel, else 0.
        force: also if the program has set up logging of its own.
    """
    if level is None:
        text = os.environ.get("GLOG_minloglevel", "0")  # noqa: SIM112 (glog spells it so)
        level = int(text) if text.isdigit() else 0
    _logger.setLevel(logging.INFO + 10 * min(level, 3))
    if any(isinstance(h, _Handler) for h in _logger.handlers):
        return
    if force or not _logger.hasHandlers():
        handler = _Handler()
        handler.setFormatter(GlogFormatter())
        _logger.addHandler(handler)
        _logger.propagate = False


def log_to_folder(folder, program="caffe"):
    """Write the engine's log lines also into a new file in `folder`, named as glog would, with
    PROGRAM.INFO as a link to the latest one. Returns the file's path."""
    now = datetime.now()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "unknown-user"
    name = f"{program}.{socket.gethostname()}.{user}.log.INFO.{now:%Y%m%d-%H%M%S}.{os.getpid()}"
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"Log file created at: {now:%Y/%m/%d %H:%M:%S}\n")
        file.write(f"Running on machine: {socket.gethostname()}\n")
        file.write("Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n")
    link = os.path.join(folder, f"{program}.INFO")
    with contextlib.suppress(OSError):  # a convenience that some file systems do not have
        if os.path.islink(link):
            os.remove(link)
        os.symlink(name, link)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(GlogFormatter())
    _logger.addHandler(handler)
    return path


def log(message):
    """Write a line into the log."""
    _logger.info("%s", message)
