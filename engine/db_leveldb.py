"""LevelDB, for `db` (Caffe: util/db_leveldb.cpp)."""

import os

from . import db
from .errors import DataError


class Handle:
    """A LevelDB, which one process at a time may have open."""

    backend = "LEVELDB"

    def __init__(self, path, where):
        plyvel = db.package("plyvel", where)
        self.where = where
        self.error = plyvel.Error
        self._process = os.getpid()
        self._count = None
        try:
            self._db = plyvel.DB(path, max_open_files=100)
        except (plyvel.Error, OSError) as e:
            raise DataError(where, "a readable LevelDB", _text(e), _leveldb_hint(e)) from None

    def check_process(self, where):
        """Refuse the handle that a forked child inherited: LevelDB's threads are not in it."""
        if self._process != os.getpid():
            raise DataError(
                where, "a LevelDB that the parent process does not have open",
                "one that it was reading when it forked",
                "Fork before the net's first forward pass, or use LMDB.",
            )  # fmt: skip

    def count(self):
        if self._count is None:
            self._count = sum(1 for _ in self._db.iterator(include_value=False))
        return self._count

    def cheap_count(self):
        return self._count

    def walk(self):
        return Walk(self)


class Walk:
    """A position in a LevelDB: first(), next() -> whether there is a record; item()."""

    def __init__(self, handle):
        self._handle = handle
        self._iterator = handle._db.raw_iterator(verify_checksums=True)

    def first(self):
        return self._move(self._iterator.seek_to_first)

    def next(self):
        return self._move(self._iterator.next)

    def _move(self, step):
        try:
            step()
            return self._iterator.valid()
        except self._handle.error as e:
            raise DataError(self._handle.where, "intact records", _text(e)) from None

    def item(self):
        return self._iterator.item()


def _text(error):
    """The message of a plyvel error, which carries bytes."""
    first = error.args[0] if error.args else ""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)


def _leveldb_hint(error):
    if "lock" in _text(error).lower():
        return (
            "Only one process may have a LevelDB open, and its folder must be writable: "
            "close the other one, copy the database, or convert it to LMDB."
        )
    return "The database is damaged: make it again."


class Writer(db.Writer):
    """A LevelDB open for writing."""

    def __init__(self, path, mode, where):
        super().__init__(where)
        plyvel = db.package("plyvel", where)
        self._error = plyvel.Error
        try:
            # Block and buffer sizes as Caffe sets them for images.
            self._db = plyvel.DB(
                path, create_if_missing=True, error_if_exists=mode == "w",
                block_size=65536, write_buffer_size=256 << 20,
            )  # fmt: skip
        except (plyvel.Error, OSError) as e:
            raise DataError(where, "a folder that can be written", _text(e)) from None

    def _write(self, records):
        try:
            with self._db.write_batch(transaction=True) as batch:
                for key, value in records:
                    batch.put(key, value)
        except self._error as e:
            raise DataError(self._where, "records that can be written", _text(e)) from None

    def _close(self):
        self._db.close()
