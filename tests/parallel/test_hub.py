"""Messages over the hub, between threads of this process."""

import os
import socket
import threading

import pytest

from demitasse.solvers.parallel import ParallelError
from demitasse.solvers.parallel.hub import Hub, HubCommunicator, Line


@pytest.fixture
def hub():
    hub = Hub(2)
    yield hub
    hub.close()


def connect(hub):
    lines = [Line(hub.address, rank, 1000 + rank) for rank in range(2)]
    while len(hub.processes) < 2:
        hub.serve(1)
    return lines


def serve_until(hub, done):
    for _ in range(100):
        if done():
            return
        hub.serve(0.1)
    raise AssertionError("the hub has not heard it")


def test_gathering_and_sharing(hub):
    found = {}

    def work(rank, line):
        ranks = HubCommunicator(line, rank, 2)
        values = [ranks.gather([rank, "x" * 100_000]), ranks.share(rank), ranks.mean([rank, 5])]
        found[rank] = values
        line.send(status=0)

    threads = [threading.Thread(target=work, args=(r, line)) for r, line in enumerate(connect(hub))]
    for thread in threads:
        thread.start()
    serve_until(hub, lambda: len(hub.statuses) == 2)
    for thread in threads:
        thread.join()
    expected = [[[0, "x" * 100_000], [1, "x" * 100_000]], 0, [0.5, 5.0]]
    assert found == {0: expected, 1: expected}
    assert hub.processes == {0: 1000, 1: 1001} and not hub.errors


def test_who_failed_who_died_and_who_ended(hub):
    first, second = connect(hub)
    first.send(error="no more disk")
    first._socket.close()
    first._file.close()
    second._file.close()
    second._socket.close()  # as the system does for a process that dies
    serve_until(hub, lambda: len(hub.errors) == 2)
    assert sorted(hub.errors) == [(0, "no more disk"), (1, None)]


@pytest.mark.parametrize(
    "words",
    [
        b'{"token": "guessed", "rank": 0, "process": 1}\n',
        b'{"value": 1}\n',
        b"GET / HTTP/1.1\n",
        b"\xff\xff\n",
        b"[]\n",
    ],
)
def test_strangers_are_not_heard(hub, words):
    host, port, _ = hub.address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(words)
        stranger.settimeout(10)
        for _ in range(3):
            hub.serve(0.1)
        assert stranger.recv(1) == b""
    assert not hub.processes and not hub.errors


def test_a_hub_that_is_gone(hub):
    address = hub.address
    first, _ = connect(hub)
    first.check()
    hub.close()
    with pytest.raises(ParallelError, match="rank 0: expected the process that has started it"):
        first.check()
    with pytest.raises(ParallelError, match="rank 1: expected the process that has started it"):
        Line(address, 1, os.getpid())
