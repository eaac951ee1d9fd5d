"""Messages between ranks through the process that has started them, which notices who dies.

A rank connects to the hub over TCP on this machine and says who it is. Its connection ends with
what became of it: a status, the text of an error, or nothing, if the process has died. Ranks that
no MPI connects also gather values here (`HubCommunicator`).

A message is a line of JSON.
"""

import json
import secrets
import selectors
import socket

from .communicator import Communicator, ParallelError

_LIMIT = 64 << 20  # bytes of a message


class Hub:
    """The launcher's side.

    Args: size: how many ranks there will be.

    Attributes:
        address: what a rank connects to, as text with a secret in it.
        processes: {rank: process id} of the ranks that have connected.
        statuses: {rank: exit status} of those that have ended well.
        errors: [(rank, text)] of those that have not, the first first; the text is None for a rank
            that has died.
    """

    def __init__(self, size):
        self.size = size
        self.processes, self.statuses, self.errors = {}, {}, []
        self._token = secrets.token_hex(16)
        self._selector = selectors.DefaultSelector()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._peers = {}  # rank -> its _Connection
        host, port = self._server.getsockname()
        self.address = f"{host}:{port}:{self._token}"

    def serve(self, seconds):
        """Handle what arrives within a time."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._server:
                connection = _Connection(self._server.accept()[0])
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            else:
                self._read(key.data)

    def close(self):
        """Close all connections."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()
        self._selector.close()

    def _read(self, connection):
        try:
            messages, ended = connection.read()
            for message in messages:
                self._handle(connection, message)
        except (ValueError, KeyError, TypeError):  # none of ours
            ended = True
        if ended:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            known = {*self.statuses, *(rank for rank, _ in self.errors)}
            if connection.rank is not None and connection.rank not in known:
                self.errors.append((connection.rank, None))

    def _handle(self, connection, message):
        if connection.rank is None:
            if not secrets.compare_digest(message["token"], self._token):
                raise ValueError("a stranger")
            connection.rank = message["rank"]
            self.processes[connection.rank] = message["process"]
            self._peers[connection.rank] = connection
        elif "status" in message:
            self.statuses[connection.rank] = message["status"]
        elif "error" in message:
            self.errors.append((connection.rank, message["error"]))
        else:
            connection.values.append(message["value"])
            self._answer()

    def _answer(self):
        """Tell all ranks what they gather, once each has sent its value."""
        ranks = range(self.size)
        while all(r in self._peers and self._peers[r].values for r in ranks):
            values = [self._peers[r].values.pop(0) for r in ranks]
            for rank in ranks:
                self._peers[rank].send(values)


class _Connection:
    """The hub's end of a connection; `values` are what the rank gathers and the hub has not yet
    told the others."""

    def __init__(self, sock):
        self.socket = sock
        sock.setblocking(True)
        self.rank = None
        self.values = []
        self._data = b""

    def read(self):
        """(complete messages, whether the connection has ended)."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:  # reset by a process that was killed
            data = b""
        self._data += data
        *lines, self._data = self._data.split(b"\n")
        if len(self._data) > _LIMIT:
            raise ValueError("too long")
        return [json.loads(line) for line in lines], not data

    def send(self, values):
        _send(self.socket, values)


class Line:
    """A rank's side: its connection to the hub at an address.

    Raises: ParallelError if there is no hub.
    """

    def __init__(self, address, rank, process):
        host, port, token = address.split(":")
        try:
            self._socket = socket.create_connection((host, int(port)))
        except OSError as e:
            raise ParallelError(
                f"rank {rank}", "the process that has started it", e.strerror or e
            ) from None
        self._file = self._socket.makefile("rb")
        self._rank = rank
        self.send(token=token, rank=rank, process=process)

    def send(self, **message):
        """Send a message: what the rank gathers (`value`), or what became of it."""
        try:
            _send(self._socket, message)
        except OSError:
            self._refuse()

    def receive(self):
        """The next message from the hub."""
        try:
            line = self._file.readline()
        except OSError:
            line = b""
        if not line:
            self._refuse()
        return json.loads(line)

    def check(self):
        """Raise ParallelError if the hub is gone. Only while no message is awaited."""
        self.wait(0)

    def wait(self, seconds):
        """Wait for a time; raises ParallelError as soon as the hub is gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            if selector.select(seconds):
                self.receive()

    def _refuse(self):
        raise ParallelError(
            f"rank {self._rank}", "the process that has started it", "that it has ended"
        ) from None


class HubCommunicator(Communicator):
    """Messages of ranks over a `Line`; sums are for others to compute."""

    def __init__(self, line, rank, size):
        self.rank, self.size = rank, size
        self._line = line

    def gather(self, value):
        self._line.send(value=value)
        return self._line.receive()


def _send(sock, message):
    sock.sendall(json.dumps(message).encode() + b"\n")
