"""How two processes become peers: TCP, TLS, then a hello and its answer, both of fixed size.

Between two processes there are two connections, one per direction, because an SSL object must not
be read and written by two threads at once. The same side dials both.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from kuiper.errors import HostError, ProtocolError
from kuiper.link import credentials as tls
from kuiper.link.holding import HOLDING_BYTES, Holding

SENDS, RECEIVES = 0, 1
"""What the side that dials does on the connection."""
WELCOME, OTHER_RUN, NOT_YOU, NOT_NEWER, NO_FIRST, OTHER_DATA = range(6)
REFUSALS = {
    OTHER_RUN: "it belongs to another run",
    NOT_YOU: "this process may not join there under its rank or at its attempt",
    NOT_NEWER: "this rank has joined there already, or came too late",
    NO_FIRST: "the connection that should have come first is not there",
    OTHER_DATA: "it holds other data",
}
HANDSHAKE_SECONDS = 5.0
_QUEUE_SECONDS = 20 * 86400.0
"""Without limit, as far as a socket can wait: poll counts milliseconds in 31 bits."""
_MAGIC = b"kuiper\x00\x02"  # the last byte is the version of everything on the wire
_HELLO = struct.Struct(f"<8sBBHII32s{HOLDING_BYTES}s")
_RETRY_SECONDS = 0.05
_REFUSALS_TAKEN = 40
SILENCE_SECONDS = 30
"""How long nothing may come from the other end's kernel before its host, or the link to it, counts as dead.

TCP sends again after 0.2 s, 0.6 s, 1.4 s, ..., each wait twice the one before: by then it has heard that a cut
of 10 s is over."""
_PROBE_SECONDS = 5
_LOCAL_BUFFER_BYTES = 192 << 10
"""Three segments of the loopback device; below one a stream stands still between delayed acknowledgements."""


@dataclass(frozen=True)
class Hello:
    """What each side says first: who it is, and of which run.

    Attributes:
        rank: of the process that says it.
        attempt: how often its agent has restarted it.
        run: SHA-256 of the run id.
        port: where it listens itself, 0 if it does not.
        direction: SENDS or RECEIVES, what the side that dials does.
        status: in an answer, WELCOME or why not.
        data: digests of the data set that it holds.
    """

    rank: int
    attempt: int
    run: bytes
    port: int = 0
    direction: int = SENDS
    status: int = WELCOME
    data: bytes = bytes(HOLDING_BYTES)

    def pack(self) -> bytes:
        return _HELLO.pack(
            _MAGIC, self.direction, self.status, self.port, self.rank, self.attempt, self.run, self.data
        )

    @staticmethod
    def unpack(data: bytes) -> Hello:
        magic, direction, status, port, rank, attempt, run, held = _HELLO.unpack(data)
        if magic != _MAGIC or direction not in (SENDS, RECEIVES):
            raise ProtocolError(f"a connection begins with {magic.hex()} instead of a hello")
        return Hello(rank, attempt, run, port, direction, status, held)


@dataclass
class Door:
    """What a process needs to dial others and to answer them.

    Args:
        run_id: of the run.
        names: of the processes, by rank.
        credentials: folder with ca.pem, cert.pem and key.pem, or None for plain TCP.
        holding: the data set of this process.
    """

    run_id: str
    names: list[str]
    credentials: Path | None
    holding: Holding = field(default_factory=Holding)
    run: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.run = hashlib.sha256(self.run_id.encode()).digest()
        self._server = tls.server_context(self.credentials) if self.credentials else None
        self._client = tls.client_context(self.credentials) if self.credentials else None

    def answer(self, connection: socket.socket) -> Hello:
        """On an accepted, wrapped connection: TLS and the hello, within HANDSHAKE_SECONDS in all.

        Returns a hello whose rank is the one that the certificate names. Whether to let it in is
        the caller's to say, and so is closing the connection.

        Raises:
            OSError: it closed, said nothing in time, or has no certificate of this run.
            ProtocolError: what it said is not a hello, or not what its certificate says.
        """
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        connection.settimeout(HANDSHAKE_SECONDS)
        if isinstance(connection, ssl.SSLSocket):
            try:
                connection.do_handshake()
            except ssl.SSLError:
                _let_it_read(connection, deadline)
                raise
        hello = Hello.unpack(_read(connection, deadline))
        if hello.rank >= len(self.names):
            raise ProtocolError(f"a hello claims rank {hello.rank} of {len(self.names)}")
        self._check_name(connection, hello.rank)
        return hello

    def wrap(self, raw: socket.socket) -> socket.socket:
        """An accepted connection, ready for `answer`; from here on `raw` is not to be used.

        Raises:
            OSError: it was closed already.
        """
        if self._server is None:
            return raw
        return self._server.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)

    def dial(self, rank: int, host: str, port: int, hello: Hello, timeout: float,
             queued: bool = False) -> socket.socket:
        """Connect to a process, trying again until the timeout is over if nobody is there yet.

        Of a `queued` one the agent keeps the port: a connection stands although nobody answers on it yet, and
        is waited on for as long as it stands. The timeout begins again when it breaks.

        Raises:
            HostError: nobody answers in time, it is not who it should be, or it refuses us.
            DifferentData: it refuses us because it holds another data set.
        """
        who = f"{self.names[rank]} at {host}:{port}"
        deadline = time.monotonic() + timeout
        refused = 0
        while True:
            began = time.monotonic()
            try:
                return self._dial_once(rank, host, port, hello, deadline, queued)
            except ssl.SSLError as error:
                if not isinstance(error, ssl.SSLEOFError):
                    raise HostError(
                        f"{who} and this process do not accept each other: {error}",
                        "both need certificates of one run that have not expired",
                    ) from error
                problem = error
            except ProtocolError as error:
                raise HostError(
                    f"{who} and this process do not accept each other: {error.message}",
                    "is the address that of this run, and is no second process of this rank up?",
                ) from error
            except ConnectionRefusedError as error:  # it bound its port before it said where: it is gone
                problem, refused = error, refused + 1
            except OSError as error:
                problem = error
            if queued and time.monotonic() - began > 2 * HANDSHAKE_SECONDS:  # it was connected
                deadline = time.monotonic() + timeout
            if time.monotonic() + _RETRY_SECONDS > deadline or refused > _REFUSALS_TAKEN:
                raise HostError(
                    f"{who} cannot be reached: {problem}",
                    "is the process up, and does a firewall let this host through to that port?",
                ) from problem
            time.sleep(_RETRY_SECONDS)

    def _dial_once(self, rank: int, host: str, port: int, hello: Hello, deadline: float,
                   queued: bool) -> socket.socket:
        patience = max(min(HANDSHAKE_SECONDS, deadline - time.monotonic()), 0.01)
        connection = socket.create_connection((host, port), timeout=patience)
        try:
            tune(connection, connection.getpeername()[0])
            if queued:
                patience = _QUEUE_SECONDS
                connection.settimeout(patience)
            if self._client is not None:
                connection = self._client.wrap_socket(connection)
            self._check_name(connection, rank)
            connection.sendall(hello.pack())
            answer = Hello.unpack(_read(connection, time.monotonic() + patience))
            if answer.run != self.run or answer.status == OTHER_RUN:
                raise ProtocolError(REFUSALS[OTHER_RUN])
            if answer.status == OTHER_DATA:
                raise self.holding.refused(self.names[rank], answer.data)
            if answer.status != WELCOME or answer.rank != rank:
                raise ProtocolError(REFUSALS.get(answer.status, f"it says it is rank {answer.rank}"))
            connection.settimeout(None)
            return connection
        except BaseException:
            connection.close()
            raise

    def _check_name(self, connection: socket.socket, rank: int) -> None:
        if not isinstance(connection, ssl.SSLSocket):
            return  # `security: none`: the hello is believed
        name = tls.identity(connection, self.run_id)
        if name != self.names[rank]:
            raise ProtocolError(f"a certificate of {name} was shown for {self.names[rank]}")


def tune(connection: socket.socket, peer: str) -> None:
    """Options of every connection: small frames leave at once, a host that vanished is noticed.

    Between hosts buffers are left to the kernel, because a size set by hand stops its tuning. On one
    host the kernel lets several MB a stream pile up, and rows leave the cache before they are read.

    Args:
        peer: address of the other end.
    """
    if connection.getsockname()[0] in (peer, f"::ffff:{peer}"):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _LOCAL_BUFFER_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set(connection, "TCP_KEEPIDLE", _PROBE_SECONDS)
    _set(connection, "TCP_KEEPINTVL", _PROBE_SECONDS)
    _set(connection, "TCP_KEEPCNT", SILENCE_SECONDS // _PROBE_SECONDS - 1)


def expect_no_silence(incoming: socket.socket) -> None:
    """On a stream that is only read, what little was written, of the handshake, must be acknowledged as well.

    Not on one that is written: there a peer that lives, but does not read, would be cut off for it. That its
    host is gone shows on the stream from it, which nobody's slowness can silence.
    """
    _set(incoming, "TCP_USER_TIMEOUT", 1000 * SILENCE_SECONDS)


def _set(connection: socket.socket, name: str, value: int) -> None:
    if hasattr(socket, name):  # not every system has all of them
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def shut(connection: socket.socket) -> None:
    """Wake whoever waits on the connection; the thread that owns it is left to close it.

    It is the plain socket's method, because SSLSocket.shutdown pulls the TLS state from under a
    running thread.
    """
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was quicker


def _read(connection: socket.socket, deadline: float) -> bytes:
    """A hello, with one deadline for all of it, so that a byte now and then does not hold the door."""
    data = b""
    while len(data) < _HELLO.size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no hello in time")
        connection.settimeout(left)
        more = connection.recv(_HELLO.size - len(data))
        if not more:
            raise ConnectionResetError("it closed before its hello was complete")
        data += more
    return data


def _let_it_read(connection: socket.socket, deadline: float) -> None:
    """Wait until a refused peer has read why: closing at once would reset what it has not read yet."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while socket.socket.recv(connection, 4096) and time.monotonic() < deadline:
            pass
    except OSError:
        pass  # it is gone
