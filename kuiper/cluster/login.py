"""The connection to a host: how it is opened, kept, and explained when it cannot be. Strict host keys, no pty."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import paramiko
from fabric import Config, Connection

from kuiper.cluster.host import AT_ONCE, Address
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.slots import Slots
from kuiper.errors import HostError, Unreachable

if TYPE_CHECKING:
    from paramiko.sftp_client import SFTPClient

CONNECT_TIMEOUT = 10.0
TRIES, PAUSE = 3, 1.0
"""A busy sshd drops some of those who knock at once (MaxStartups): they come back one by one, after up to PAUSE
seconds, and then up to twice that."""
KEEPALIVE = 15
SILENCE = 20.0
"""Seconds without a word from a host, or from its kernel, after which a connection to it counts as lost."""
SESSIONS = 5
"""At once over one connection. OpenSSH's MaxSessions is 10, and it counts one for some time after its end."""
OPEN = Slots(AT_ONCE)
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it says is raised as well


class Reopening(Connection):
    """A connection that was lost since its last use is opened again, once, before anything is asked of it."""

    def open(self) -> None:
        super().open()
        self.transport.set_keepalive(KEEPALIVE)
        watch(self.transport.sock)

    def close(self) -> None:
        super().close()
        self.client.close()  # Fabric leaves one open that was not let in, and its thread with it

    def create_session(self) -> paramiko.Channel:
        return self.again(super().create_session)

    def open_sftp(self) -> SFTPClient:
        return self.again(self.client.open_sftp)

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
    """

    def __init__(self, host: str, user: str | None, port: int | None, key: str | None) -> None:
        self.name, self._user, self._port, self._key = host, user, port, key
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
            connection = self._connected()
            try:
                yield connection
            except paramiko.ssh_exception.NoValidConnectionsError as error:  # it was lost, and cannot be opened again
                raise self._explained(error)[0] from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not isinstance(error, paramiko.ChannelException):  # the others' sessions go on
                    connection.close()
                said = str(error) or type(error).__name__
                raise Unreachable(f"{self.name}: the connection was lost: {said}",
                                  "try again: what was started there goes on without it") from error

    def _connected(self) -> Reopening:
        asked = time.monotonic()
        with self._lock:
            if self._connection is not None and self._connection.is_connected:
                return self._connection
            if self._refused is not None and self._refused[0] > asked:  # while this thread waited
                raise self._refused[1]
            for tried in range(1, TRIES + 1):
                connection = self._made()
                try:
                    connection.open()
                    break
                except (OSError, EOFError, paramiko.SSHException) as error:
                    connection.close()
                    problem, lasting = self._explained(error)
                    if lasting or tried == TRIES:
                        self._refused = time.monotonic(), problem
                        raise problem from error
                    time.sleep(PAUSE * random.uniform(0.2, tried))
            self._connection = connection
            return connection

    def _made(self) -> Reopening:
        login = {"key_filename": [self._key]} if self._key else {}
        connection = Reopening(
            self.name, user=self._user, port=self._port, config=Config(),
            connect_timeout=CONNECT_TIMEOUT,
            connect_kwargs={**login, "banner_timeout": CONNECT_TIMEOUT, "auth_timeout": CONNECT_TIMEOUT,
                            "channel_timeout": CONNECT_TIMEOUT})
        # Fabric's own policy lets any unknown host in
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        connection.client.load_system_host_keys()
        if known_hosts().exists():
            connection.client.load_host_keys(str(known_hosts()))
        return connection

    def _explained(self, error: Exception) -> tuple[HostError, bool]:
        """What it means to the user, and whether trying again is pointless."""
        where = f"{self.name}: " if not self._port else f"{self.name} port {self._port}: "
        if isinstance(error, paramiko.BadHostKeyException):
            return HostError(f"{where}its host key has changed: {fingerprint(error.key)} instead of "
                             f"{fingerprint(error.expected_key)}",
                             "find out why; if it is right, remove the old key from known_hosts and use `kuiper trust conf.yml`"), True
        if isinstance(error, paramiko.AuthenticationException):
            who = self._user or "this user"
            return HostError(f"{where}it does not let {who} in: {error}",
                             "check auth.ssh_user and auth.ssh_private_key, or load the key into ssh-agent"), True
        if isinstance(error, paramiko.SSHException) and "not found in known_hosts" in str(error):
            return HostError(f"{where}its host key is not known", "compare and accept it: `kuiper trust conf.yml`"), True
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        down = Unreachable(f"{where}it cannot be reached: {said}", "is it up, and does its sshd listen there?")
        return down, isinstance(error, TimeoutError)  # TCP has tried again all the time


def watch(connection: Any) -> None:
    """Have the kernel end a connection whose other end is silent; a proxy has to watch its own."""
    if not isinstance(connection, socket.socket):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", int(SILENCE / 5) - 1),
                          ("TCP_USER_TIMEOUT", int(1000 * SILENCE))):
        if hasattr(socket, option):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def resolved(address: Address) -> tuple[str, int]:
    """Name and port that ssh connects to, ~/.ssh/config heard."""
    connection = Connection(address.host, port=address.port)
    return connection.host, connection.port


def fingerprint(key: paramiko.PKey) -> str:
    """As ssh-keygen -l shows it: type and SHA256."""
    return f"{key.get_name()} {key.fingerprint}"
