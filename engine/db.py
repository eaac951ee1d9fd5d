"""Databases of records in key order, LMDB and LevelDB (Caffe: util/db_lmdb.cpp, db_leveldb.cpp)."""

import importlib
import os
import threading
import weakref

from .errors import DataError, closest

_BACKENDS = ("LEVELDB", "LMDB")  # in the order of DataParameter.DB's numbers
_MARKS = {"LEVELDB": "CURRENT", "LMDB": "data.mdb"}  # a file that every such database has


def open_db(path, backend, mode="r", where=None):
    """Open a database.

    Args:
        path: the database's folder.
        backend: "LMDB" or "LEVELDB", in any case, or a number of `DataParameter.DB`.
        mode: "r" to read, giving a `Reader`; "w" to make a new one (an existing path is an
            error) or "a" to add to one, giving a `Writer`.
        where: who asks, named in errors (a layer, say).

    Raises DataError for a missing package, a missing or broken database, or one of another kind.
    Any number of readers may have a database open, in one process or several; LevelDB itself
    lets only one process at a time.
    """
    path = os.fspath(path)
    backend = _backend_name(backend, where)
    where = f"{where}: {backend} {path!r}" if where else f"{backend} {path!r}"
    if mode == "r":
        return Reader(_shared_handle(path, backend, where))
    if mode not in ("w", "a"):
        raise DataError(where, "mode 'r', 'w' or 'a'", repr(mode))
    if mode == "w" and os.path.lexists(path):
        raise DataError(
            where, "a path that does not exist yet", "something there",
            "Remove it or choose another path.",
        )  # fmt: skip
    return _module(backend).Writer(path, mode, where)


def _backend_name(backend, where):
    if isinstance(backend, int) and 0 <= backend < len(_BACKENDS):
        return _BACKENDS[backend]
    name = str(backend).upper()
    if name not in _BACKENDS:
        raise DataError(
            where or "database", "backend LMDB or LEVELDB", repr(backend),
            closest(name, _BACKENDS),
        )  # fmt: skip
    return name


def _module(backend):
    # Imported when needed: they and their packages are not for everyone.
    return importlib.import_module(f".db_{backend.lower()}", __package__)


def package(name, where):
    """The module `name`, or an error that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise DataError(
            where, f"the Python package {name!r}", str(e), "Run: pip install 'demitasse[data]'"
        ) from None


class Reader:
    """A database open for reading. Cursors keep it open; `close` only lets go of it here."""

    def __init__(self, handle):
        self._handle = handle

    @property
    def count(self):
        """The number of records. LevelDB has to walk over them to know; LMDB has it written."""
        return self._handle.count()

    def cursor(self):
        """A new `Cursor` before the first record, for use by one thread at a time."""
        return Cursor(self._handle)

    def items(self, start=0):
        """Yield (key, value), both bytes, in key order from record number `start` to the last."""
        walk = self._handle.walk()
        more = walk.first()
        for _ in range(start):
            more = more and walk.next()
        while more:
            yield walk.item()
            more = walk.next()

    def close(self):
        """Let go of the database."""
        self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Cursor:
    """Reads the records in key order, round and round: after the last comes the first."""

    def __init__(self, handle):
        self._where = handle.where
        self._walk = handle.walk()
        self._known_count = handle.cheap_count()
        self._rewind()

    def read(self):
        """The (key, value) at the cursor, which then moves on."""
        if not self._valid:
            self._known_count = self._index
            self._rewind()
        item = self._walk.item()
        self._advance()
        return item

    def seek(self, index):
        """Move to record `index` of the endless sequence, counted from the first record."""
        if self._known_count:
            index %= self._known_count
        if index < self._index:
            self._rewind()
        while self._index < index:
            if not self._valid:  # only now is it known how many there are
                self._known_count = self._index
                index %= self._known_count
                self._rewind()
            else:
                self._advance()

    def _rewind(self):
        self._valid = self._walk.first()
        self._index = 0
        if not self._valid:
            raise DataError(self._where, "at least one record", "none")

    def _advance(self):
        self._valid = self._walk.next()
        self._index += 1


class Writer:
    """A database open for writing. Records become permanent, all or none, with each `commit`.

    As a context manager it commits what is left at the end, unless an exception passes through.
    """

    def __init__(self, where):
        self._where = where
        self._pending = []

    def put(self, key, value):
        """Add a record, or replace the one of the same key. Both are bytes."""
        self._pending.append((bytes(key), bytes(value)))

    def commit(self):
        """Write the records put since the last commit."""
        if self._pending:
            self._write(self._pending)
            self._pending = []

    def close(self):
        """Close the database. What was not committed is dropped."""
        self._pending = []
        self._close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()


# Both libraries refuse to open a database twice in one process, so readers share a handle.
_handles = weakref.WeakValueDictionary()
_handles_lock = threading.Lock()


def _new_lock_after_fork():
    global _handles_lock
    _handles_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)


def _shared_handle(path, backend, where):
    with _handles_lock:
        key = os.path.realpath(path)
        handle = _handles.get(key)
        if handle is None or handle.backend != backend:
            _check_folder(path, backend, where)
            handle = _module(backend).Handle(path, where)
            _handles[key] = handle
        handle.check_process(where)
        return handle


def _check_folder(path, backend, where):
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "no such folder"
        hint = f"Paths are relative to the working directory, {os.getcwd()!r}."
        raise DataError(where, f"a folder with a {backend} database", found, hint)
    present = [name for name in _MARKS if os.path.exists(os.path.join(path, _MARKS[name]))]
    if backend not in present:
        found = f"a {present[0]} database" if present else "a folder without one"
        hint = f"Write `backend: {present[0]}`." if present else ""
        raise DataError(where, f"a {backend} database", found, hint)
