import os
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demitasse.engine import db_lmdb
from demitasse.engine.db import open_db
from demitasse.engine.errors import DataError

BACKENDS = ["LMDB", "LEVELDB"]
RECORDS = [(b"%04d" % i, b"value %d" % i) for i in range(7)]


def write(path, backend, records=RECORDS):
    with open_db(path, backend, "w") as out:
        for key, value in reversed(records):
            out.put(key, value)
    return str(path)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def path(tmp_path, backend):
    return write(tmp_path / "db", backend)


def in_child(function):
    """Run `function` in a forked child; its status says whether it raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_items_come_in_key_order_from_any_start(path, backend):
    with open_db(path, backend) as db:
        assert db.count == len(RECORDS)
        for start in (0, 3, 7, 9):
            assert list(db.items(start)) == RECORDS[start:]


@given(
    count=st.integers(1, 9),
    moves=st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=20),
    kind=st.sampled_from(BACKENDS),
)
@settings(deadline=None, max_examples=40)
def test_cursor_reads_an_endless_sequence(tmp_path_factory, count, moves, kind):
    records = [(struct.pack(">I", i), bytes([i]) * i) for i in range(count)]
    path = write(tmp_path_factory.mktemp("db") / "db", kind, records)
    cursor = open_db(path, kind).cursor()
    position = 0
    for move in moves:  # None reads, a number seeks
        if move is None:
            assert cursor.read() == records[position % count]
            position += 1
        else:
            cursor.seek(move)
            position = move
    assert cursor.read() == records[position % count]


def test_appending_replaces_and_adds(path, backend):
    with open_db(path, backend, "a") as out:
        out.put(b"0000", b"new")
        out.put(b"zzz", b"last")
    items = list(open_db(path, backend).items())
    assert items == [(b"0000", b"new"), *RECORDS[1:], (b"zzz", b"last")]


def test_commits_are_all_or_none(tmp_path, backend):
    path = str(tmp_path / "db")
    with pytest.raises(KeyError), open_db(path, backend, "w") as out:
        out.put(b"a", b"1")
        out.commit()
        out.put(b"b", b"2")
        raise KeyError
    assert list(open_db(path, backend).items()) == [(b"a", b"1")]


def test_lmdb_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(db_lmdb, "_FIRST_MAP_SIZE", 1 << 16)
    records = [(b"%05d" % i, b"x" * 3000) for i in range(200)]
    path = write(tmp_path / "db", "LMDB", records)
    assert list(open_db(path, "LMDB").items()) == records


def test_readers_share_a_database(path, backend):
    first, second = open_db(path, backend), open_db(os.path.join(path, "."), backend)
    a, b = first.cursor(), second.cursor()
    a.seek(2)
    assert (a.read(), b.read()) == (RECORDS[2], RECORDS[0])
    first.close()
    assert second.count == len(RECORDS)


def test_a_closed_database_can_be_opened_elsewhere(path, backend):
    with open_db(path, backend) as db:
        db.cursor().read()

    def read():
        assert list(open_db(path, backend).items()) == RECORDS

    assert in_child(read) == 0


def test_forked_child_reads_an_lmdb_that_is_open(tmp_path):
    path = write(tmp_path / "db", "LMDB")
    cursor = open_db(path, "LMDB").cursor()
    cursor.read()

    def read():
        assert list(open_db(path, "LMDB").items()) == RECORDS

    assert in_child(read) == 0
    assert cursor.read() == RECORDS[1]


def test_forked_child_is_refused_a_leveldb_that_is_open(tmp_path):
    path = write(tmp_path / "db", "LEVELDB")
    cursor = open_db(path, "LEVELDB").cursor()

    def read():
        with pytest.raises(DataError, match=r"parent process does not have open.*use LMDB"):
            open_db(path, "LEVELDB")

    assert in_child(read) == 0
    assert cursor.read() == RECORDS[0]


def test_backend_numbers_are_the_schema_s(path, backend):
    assert open_db(path, BACKENDS[::-1].index(backend)).count == len(RECORDS)


def test_empty_database(tmp_path, backend):
    path = write(tmp_path / "db", backend, [])
    assert open_db(path, backend).count == 0
    with pytest.raises(DataError, match="at least one record"):
        open_db(path, backend).cursor()


def test_missing_and_foreign_paths(tmp_path, backend):
    with pytest.raises(DataError, match=r"layer 'd'.*no such folder.*working directory"):
        open_db(str(tmp_path / "none"), backend, where="layer 'd'")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="found a file"):
        open_db(str(tmp_path / "file"), backend)
    with pytest.raises(DataError, match="a folder without one"):
        open_db(str(tmp_path), backend)
    with pytest.raises(DataError, match=r"does not exist yet"):
        open_db(str(tmp_path), backend, "w")
    with pytest.raises(DataError, match="can be written"):
        open_db(str(tmp_path / "file" / "below"), backend, "w")


def test_the_other_backend_is_suggested(path, backend):
    other = BACKENDS[1 - BACKENDS.index(backend)]
    with pytest.raises(DataError, match=f"Write `backend: {backend}`"):
        open_db(path, other)


def test_unknown_backend_and_mode(path, backend):
    with pytest.raises(DataError, match=r"'lmbd'.*Did you mean 'LMDB'"):
        open_db(path, "lmbd")
    with pytest.raises(DataError, match="mode"):
        open_db(path, backend, "rw")


@pytest.mark.parametrize("keep", [0, 5000, -1])
def test_truncated_lmdb(tmp_path, keep):
    path = write(tmp_path / "db", "LMDB")
    data = tmp_path / "db" / "data.mdb"
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(DataError, match="LMDB"):
        open_db(path, "LMDB")


def test_damaged_databases(tmp_path):
    lmdb, level = write(tmp_path / "a", "LMDB"), write(tmp_path / "b", "LEVELDB")
    (tmp_path / "a" / "data.mdb").write_bytes(b"junk" * 4096)
    (tmp_path / "b" / "CURRENT").write_text("junk")
    with pytest.raises(DataError, match="not an LMDB"):
        open_db(lmdb, "LMDB")
    with pytest.raises(DataError, match="damaged"):
        open_db(level, "LEVELDB")


def test_leveldb_with_a_damaged_table(tmp_path):
    path = write(tmp_path / "db", "LEVELDB", [(b"%d" % i, os.urandom(5000)) for i in range(99)])
    with open_db(path, "LEVELDB") as db:  # opening moves the records from the log to a table
        db.cursor().read()
    table = next((tmp_path / "db").glob("*.ldb"))
    raw = bytearray(table.read_bytes())
    raw[1000] ^= 255
    table.write_bytes(raw)
    with pytest.raises(DataError, match=r"intact records.*[Cc]orruption"):
        list(open_db(path, "LEVELDB").items())


def test_missing_package(path, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, {"LMDB": "lmdb", "LEVELDB": "plyvel"}[backend], None)
    with pytest.raises(DataError, match=r"pip install 'demitasse\[data\]'"):
        open_db(path, backend)
