"""LMDB, for `db` (Caffe: util/db_lmdb.cpp)."""

import os

from . import db
from .errors import DataError

_FIRST_MAP_SIZE = 64 << 20  # of a database being written; doubled whenever it is full


class Handle:
    """An LMDB environment opened without locks, which works in read-only folders as well.

    NOTE: Caffe takes LMDB's read lock where it can; here a database must not be rewritten by
    another process while it is being read. Without locks the mapping is plain memory, which a
    forked child may go on reading.
    """

    backend = "LMDB"

    def __init__(self, path, where):
        lmdb = db.package("lmdb", where)
        self.where = where
        self.error = lmdb.Error
        try:
            self.env = lmdb.open(path, readonly=True, lock=False, create=False)
        except lmdb.Error as e:
            raise DataError(where, "a readable LMDB database", str(e)) from None
        # A page beyond the end of the file would be a bus error, not an exception.
        needed = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        size = os.path.getsize(os.path.join(path, "data.mdb"))
        if size < needed:
            raise DataError(
                where, f"data.mdb of at least {needed} bytes", f"{size} bytes",
                "The file is truncated: copy it again.",
            )  # fmt: skip

    def check_process(self, where):
        """Any process may use the handle."""

    def count(self):
        return self.env.stat()["entries"]

    cheap_count = count

    def walk(self):
        return Walk(self)


class Walk:
    """A position in an LMDB: first(), next() -> whether there is a record; item()."""

    def __init__(self, handle):
        self._handle = handle
        self._cursor = handle.env.begin().cursor()

    def first(self):
        return self._try(self._cursor.first)

    def next(self):
        return self._try(self._cursor.next)

    def item(self):
        return self._try(self._cursor.item)

    def _try(self, step):
        try:
            return step()
        except self._handle.error as e:
            raise DataError(self._handle.where, "intact records", str(e)) from None


class Writer(db.Writer):
    """An LMDB open for writing, which grows as needed."""

    def __init__(self, path, mode, where):
        super().__init__(where)
        self._lmdb = db.package("lmdb", where)
        try:
            self._env = self._lmdb.open(path, map_size=_FIRST_MAP_SIZE)
        except (self._lmdb.Error, OSError) as e:
            raise DataError(where, "a folder that can be written", str(e)) from None

    def _write(self, records):
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except self._lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except self._lmdb.Error as e:
                raise DataError(self._where, "records that can be written", str(e)) from None

    def _close(self):
        self._env.close()
