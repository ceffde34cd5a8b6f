"""Host keys: what a host shows, and taking it as its own from now on."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from kuiper.cluster.files import locked, make_folder, write_bytes
from kuiper.cluster.host import AT_ONCE, LOCAL, Address
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.login import CONNECT_TIMEOUT, fingerprint, resolved
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec


@dataclass(frozen=True)
class Shown:
    """The key that a host shows now.

    Attributes:
        entry: its name in known_hosts: the host, or [host]:port.
        known: 'yes', 'no', or 'changed' when another one is on record.
    """

    host: str
    entry: str
    key: paramiko.PKey
    known: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


def shown(address: Address) -> Shown:
    """Ask a host for its key, without logging in.

    Raises:
        HostError: it cannot be reached.
    """
    name, port = resolved(address)
    try:
        with socket.create_connection((name, port), CONNECT_TIMEOUT) as connection:
            transport = paramiko.Transport(connection)
            try:
                transport.start_client(timeout=CONNECT_TIMEOUT)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise HostError(f"{address.host}: it cannot be reached at {name} port {port}: {error}",
                        "is it up, and does its sshd listen there?") from error
    entry = name if port == 22 else f"[{name}]:{port}"
    files = (path for path in (Path.home() / ".ssh" / "known_hosts", known_hosts()) if path.exists())
    on_record = [paramiko.HostKeys(str(path)).lookup(entry) for path in files]
    of_type = [found[key.get_name()] for found in on_record if found and key.get_name() in found]
    known = "no" if not of_type else "yes" if key in of_type else "changed"
    return Shown(address.host, entry, key, known)


def accept(found: Shown) -> None:
    """Write the key to kuiper's known_hosts, in place of another one that was there."""
    path = known_hosts()
    make_folder(path.parent)
    with locked(path.with_name("known_hosts.lock")):
        keys = paramiko.HostKeys(str(path) if path.exists() else None)
        if keys.lookup(found.entry):
            del keys[found.entry]
        keys.add(found.entry, found.key.get_name(), found.key)
        lines = (f"{entry} {kind} {key.get_base64()}\n" for entry, kinds in keys.items() for kind, key in kinds.items())
        write_bytes(path, "".join(lines).encode(), 0o600)


def shown_by_all(spec: Spec) -> tuple[list[Shown], list[str]]:
    """What every host of a spec shows, and what is said of those that cannot be reached."""
    names = dict.fromkeys(entry.host for entry in (*spec.ps_ip, *spec.worker_ips) if entry.host != LOCAL)

    def ask(name: str) -> Shown | str:
        try:
            return shown(spec.address(name))
        except HostError as error:
            return error.message

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, names))
    return ([one for one in answers if isinstance(one, Shown)], [one for one in answers if isinstance(one, str)])
