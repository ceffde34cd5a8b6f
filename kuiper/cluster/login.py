"""The connection to a host: how it is opened, kept, and explained when it cannot be. Strict host keys, no pty."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import invoke.exceptions
import paramiko
from fabric import Config, Connection

from kuiper.cluster.dial import SILENCE, check_key, let_in, reached
from kuiper.cluster.host import AT_ONCE
from kuiper.cluster.slots import Slots
from kuiper.cluster.ssh_config import CONNECT_TIMEOUT, Jump, LocalFault, Route, route
from kuiper.errors import HostError, Unreachable

TRIES, PAUSE = 3, 1.0
"""A busy sshd drops some of those who knock at once (MaxStartups): they come back one by one, after up to PAUSE
seconds, and then up to twice that."""
KEEPALIVE = 15
SESSIONS = 5
"""At once over one connection, at most. OpenSSH's MaxSessions is 10, and it counts one for some time after its end."""
OPEN = Slots(AT_ONCE)
FOREIGN = (paramiko.SSHException, invoke.exceptions.Failure, invoke.exceptions.ThreadException,
           invoke.exceptions.SubprocessPipeError, EOFError, OSError, ValueError, LookupError, struct.error)
"""What Paramiko, Fabric and invoke raise of a connection, of what a host sends, and of files and agents here."""
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it says is raised as well


class Reopening(Connection):
    """A connection that was lost since its last use is opened again, once, before anything is asked of it.

    Args:
        login: whose it is.
    """

    def __init__(self, login: Login) -> None:
        # No file of Fabric's or invoke's, and ssh's are read elsewhere
        super().__init__(login.name, config=Config(lazy=True, ssh_config=paramiko.SSHConfig()))
        self._login = login

    def open(self) -> None:
        if not self.is_connected:
            self.transport = self._login.transport()

    def close(self) -> None:
        super().close()
        if self.transport is not None:
            self.transport.close()

    def create_session(self) -> paramiko.Channel:
        return self.again(super().create_session)

    def again(self, begin: Callable[[], Any]) -> Any:
        try:
            return begin()
        except paramiko.ChannelException:
            raise
        except (paramiko.SSHException, EOFError, OSError):
            self.close()
            self.open()
            return begin()

    @contextlib.contextmanager
    def answering(self, seconds: float) -> Iterator[None]:
        """Paramiko waits without end for some answers: the connection is closed if the block takes longer.

        Raises:
            Unreachable: it did.
        """
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            self.close()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            if not overdue.is_set():
                raise
            message = f"{self.original_host}: it did not answer within {seconds:g} s"
            raise Unreachable(message, "is it overloaded?") from error
        finally:
            timer.cancel()


class Login:
    """The connection to a host, opened by the first use, and again when it was lost or closed.

    Args:
        host, user, port, key: as in `Address`.
        through: as in `Jump`.
    """

    def __init__(self, host: str, user: str | None, port: int | None, key: str | None,
                 through: tuple[str, ...] | None = None) -> None:
        self.name, self._user, self._port, self._key, self._through = host, user, port, key, through
        self._lock = threading.Lock()
        self._sessions = threading.Semaphore(SESSIONS)
        self._connection: Reopening | None = None
        self._refused: tuple[float, HostError] | None = None
        """When the last attempt to connect failed, and why."""

    @classmethod
    @cache
    def of(cls, host: str, user: str | None, port: int | None, key: str | None) -> Login:
        """One object for all who log in alike."""
        return cls(host, user, port, key)

    def close(self) -> None:
        """End the connection, if there is one."""
        with self._lock:
            if self._connection is not None:
                sock = self._connection.transport.sock
                if isinstance(sock, socket.socket):  # at once: paramiko's thread may be reading from it
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def session(self) -> Iterator[Reopening]:
        """A turn on the connection; what ssh itself has to complain about becomes a HostError."""
        with self._sessions, OPEN.use(self):
            connection = self.connected()
            try:
                yield connection
            except FOREIGN as error:
                if not isinstance(error, paramiko.ChannelException):  # the others' sessions go on
                    connection.close()
                said = str(error) or type(error).__name__
                raise Unreachable(f"{self.name}: the connection was lost: {said}",
                                  "try again: what was started there goes on without it") from error

    def connected(self) -> Reopening:
        """The connection, opened if there is none.

        Raises:
            HostError: it cannot be.
        """
        asked = time.monotonic()
        with self._lock:
            if self._connection is not None and self._connection.is_connected:
                return self._connection
            if self._refused is not None and self._refused[0] > asked:  # while this thread waited
                raise self._refused[1]
            connection = Reopening(self)
            try:
                connection.open()
            except HostError as error:
                self._refused = time.monotonic(), error
                raise
            self._connection = connection
            return connection

    def transport(self) -> paramiko.Transport:
        """A new connection, to a host whose key is on record and which has let us in.

        Raises:
            HostError: there is none; says what it means, and names the host, and the jump host if it is that one's.
        """
        tried = 1
        while True:
            try:
                return self._opened()
            except FOREIGN as error:
                problem, lasting = self.explained(error)
                if lasting or tried == TRIES:
                    raise problem from error
            time.sleep(PAUSE * random.uniform(0.2, tried))
            tried += 1

    def route(self) -> Route:
        """The way there; see `ssh_config.route`."""
        return route(self.name, self._user, self._port, self._through)

    def _opened(self) -> paramiko.Transport:
        way = self.route()
        transport = reached(way, through)
        try:
            check_key(way, self._where, transport.get_remote_server_key().asbytes())
            let_in(transport, way, self._where, self._key)
            transport.set_keepalive(KEEPALIVE)
            watch(transport.sock)
        except BaseException:
            transport.close()
            raise
        return transport

    @property
    def _where(self) -> str:
        return f"{self.name}: " if not self._port else f"{self.name} port {self._port}: "

    def explained(self, error: Exception) -> tuple[HostError, bool]:
        """What it means to the user, and whether trying again is pointless."""
        if isinstance(error, socket.gaierror | UnicodeError):
            said = error.strerror if isinstance(error, OSError) else "it is no host name"
            return Unreachable(f"{self._where}it cannot be reached: this machine does not know its address: {said}",
                               "correct the name, or give it a HostName in ~/.ssh/config"), True
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        down = Unreachable(f"{self._where}it cannot be reached: {said}", "is it up, and does its sshd listen there?")
        return down, isinstance(error, TimeoutError)  # TCP has tried again all the time


@cache
def jump_host(jump: Jump) -> Login:
    """One connection for all who go that way; it stays open, and has no part in how many are open at once."""
    return Login(jump.name, jump.user, jump.port, None, jump.through)


def through(way: Route) -> paramiko.Channel:
    """A channel from a route's jump host to its end.

    Raises:
        HostError: the jump host cannot be used, or does not get there.
    """
    login = jump_host(jumps(way)[0])
    try:
        transport = login.connected().transport
    except HostError as error:
        raise type(error)(f"{way.name}: on the way there: {error.message}", error.remedy) from error
    try:
        return transport.open_channel("direct-tcpip", (way.host, way.port), ("127.0.0.1", 0), timeout=CONNECT_TIMEOUT)
    except paramiko.ChannelException as error:
        raise Unreachable(f"{way.name}: it cannot be reached from {login.name}: {error.text}",
                          f"is it up, and does its sshd listen at {way.host} port {way.port}?") from error


def jumps(way: Route) -> list[Jump]:
    """The jump hosts on the way, the one next to its end first.

    Raises:
        LocalFault: they go round in a circle.
    """
    found: list[Jump] = []
    jump = way.jump
    while jump is not None:
        if jump in found:
            names = " -> ".join([way.name, *(each.name for each in found), jump.name])
            raise LocalFault(f"{way.name}: ProxyJump goes round in a circle: {names}", "mend it in ~/.ssh/config")
        found.append(jump)
        jump = jump_host(jump).route().jump
    return found


def watch(connection: Any) -> None:
    """Have the kernel end a connection whose other end is silent; a proxy has to watch its own."""
    if not isinstance(connection, socket.socket) or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", int(SILENCE / 5) - 1),
                          ("TCP_USER_TIMEOUT", int(1000 * SILENCE))):
        if hasattr(socket, option):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
