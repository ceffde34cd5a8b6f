"""From a route to a host that is known and has let us in: the connection, the host's key, our keys."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko

from kuiper.cluster import known_keys
from kuiper.cluster.identities import Identities, identities
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.ssh_config import CONNECT_TIMEOUT, LocalFault, Route
from kuiper.errors import Unreachable

SILENCE = 20.0
"""Seconds without a word from a host, or from its kernel, after which a connection to it counts as lost."""
Through = Callable[[Route], Any]
"""A route with a jump host -> a channel from that host to the route's end."""


class Proxy(socket.socket):
    """The near end of a ProxyCommand, run by the user's shell as ssh does; it ends with the connection."""

    def __init__(self, route: Route) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.said = tempfile.TemporaryFile()
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            self._process = subprocess.Popen([shell, "-c", f"exec {route.command}"], stdin=theirs, stdout=theirs,
                                             stderr=self.said, start_new_session=True)
        except OSError as error:
            why = f"{route.name}: its ProxyCommand cannot be run: {error}"
            raise LocalFault(why, "set SHELL to a shell") from error
        finally:
            theirs.close()

    def words(self) -> str:
        """What the command said on standard error."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip()[-300:]

    def close(self) -> None:
        super().close()
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)


def reached(route: Route, through: Through) -> paramiko.Transport:
    """A connection to a host's sshd on which it has shown a key that nobody has judged yet.

    Raises:
        OSError, EOFError, SSHException, Unreachable: there is none.
    """
    sock = Proxy(route) if route.command else through(route) if route.jump else _direct(route)
    try:
        transport = paramiko.Transport(sock)
    except BaseException:
        sock.close()
        raise
    try:
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = CONNECT_TIMEOUT
        options = transport.get_security_options()
        options.key_types = known_keys.preferred(on_record(route), route.names, options.key_types)
        transport.start_client(timeout=CONNECT_TIMEOUT)
    except Exception as error:
        words = sock.words() if isinstance(sock, Proxy) else ""
        transport.close()
        sock.close()
        if words:
            raise Unreachable(f"{route.name}: its ProxyCommand gives no connection: {words}",
                              f"does `ssh {route.name}` work?") from error
        raise
    return transport


def on_record(route: Route) -> list[known_keys.KnownKey]:
    """Of ssh's files for that host, and of kuiper's own."""
    return known_keys.read([*route.known_hosts, known_hosts()])


def verdict(route: Route, blob: bytes) -> known_keys.Verdict:
    """What is on record of the key that a host shows.

    Raises:
        LocalFault: there is a file of revoked keys that cannot be read.
    """
    if route.revoked:
        try:
            if known_keys.revoked_in(Path(route.revoked), blob):
                return known_keys.Verdict("revoked", route.revoked)
        except (OSError, ValueError) as error:
            raise LocalFault(f"{route.name}: RevokedHostKeys {route.revoked} cannot be read: {error}",
                             "make it a list of public keys, one a line") from error
    return known_keys.judge(on_record(route), route.names, blob)


def check_key(route: Route, where: str, blob: bytes) -> None:
    """Raises Unreachable when the key that a host shows is not on record as its own."""
    found, shown = verdict(route, blob), known_keys.fingerprint(blob)
    if found.known == "revoked":
        raise Unreachable(f"{where}its host key, {shown}, is revoked in {found.where}", "ask who runs that host")
    if found.known == "changed":
        raise Unreachable(f"{where}its host key has changed: {shown} instead of "
                          f"{known_keys.fingerprint(found.expected)} of {found.where}",
                          "find out why; if it is right, remove the old key from that file and use `kuiper trust conf.yml`")
    if found.known == "no":
        authority = f" ({found.where} trusts an authority for it, and certificates of hosts are not read)"
        raise Unreachable(f"{where}its host key is not known{authority if found.where else ''}",
                          "compare and accept it: `kuiper trust conf.yml`")


def let_in(transport: paramiko.Transport, route: Route, where: str, key: str | None) -> None:
    """Log in with a key of this machine.

    Raises:
        Unreachable: no key of this machine is accepted; LocalFault when it is this machine that lacks one.
        OSError, EOFError, SSHException: the connection was lost.
    """
    with contextlib.closing(identities(route, key)) as ours:
        refused = []
        for name, one in ours.keys:
            try:
                more = transport.auth_publickey(route.user, one)
            except paramiko.BadAuthenticationType as error:
                why = f"{where}it does not let {route.user} in with a key, only by {', '.join(error.allowed_types)}"
                raise Unreachable(why, "ask who runs that host to allow keys") from error
            except paramiko.AuthenticationException as error:
                refused.append(name)
                if not transport.is_active():
                    raise _refused(route, where, refused, ours, str(error)) from error
                continue
            except (paramiko.SSHException, OSError) as error:
                if not hasattr(one, "agent"):
                    raise
                raise LocalFault(f"{where}ssh-agent does not sign with {name}: {error}",
                                 f"confirm or unlock it there; does `ssh {route.name}` work?") from error
            if transport.is_authenticated():
                return
            raise Unreachable(f"{where}it wants {' and '.join(more)} beside a key, which kuiper cannot give",
                              "ask who runs that host for a login by key alone")
        raise _refused(route, where, refused, ours, "")


def _refused(route: Route, where: str, refused: list[str], ours: Identities, hung_up: str) -> Unreachable:
    """What it means that no key was accepted; a key of this machine that cannot be used comes first."""
    faults = sorted(ours.faults, key=lambda fault: not fault.asked)
    told = "; ".join(f"{fault.what} {fault.wrong}" for fault in faults)
    if faults and (faults[0].asked or not refused):
        others = f" ({len(refused)} other keys of this machine were refused)" if refused else ""
        return LocalFault(f"{where}this machine cannot log in as {route.user}: {told}{others}", faults[0].remedy)
    remedy = "check auth.ssh_user and auth.ssh_private_key, or load the key into ssh-agent"
    if not refused:
        return LocalFault(f"{where}this machine has no key to log in with as {route.user}: no ssh-agent holds one, "
                          f"and there is none of {', '.join(route.keys)}", remedy)
    if hung_up and len(refused) > 3:
        remedy = "it takes only so many keys: name the right one in auth.ssh_private_key or by IdentitiesOnly"
    said = f"it refused {', '.join(refused)}" + (f"; not tried: {told}" if told else "")
    return Unreachable(f"{where}it does not let {route.user} in: {said}", remedy)


def _direct(route: Route) -> socket.socket:
    """A TCP connection to the first of a host's addresses that takes one."""
    found = socket.getaddrinfo(route.host, route.port, route.family, socket.SOCK_STREAM)
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(route.timeout)
            if route.source:
                connection.bind((route.source, 0))
            connection.connect(address)
            connection.settimeout(None)
            return connection
        except OSError as error:
            connection.close()
            problem = error
    raise problem or OSError(f"no address of {route.host}")
