"""Host keys: what a host shows, and taking it as its own from now on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kuiper.cluster import known_keys
from kuiper.cluster.dial import reached, verdict
from kuiper.cluster.files import locked, make_folder, write_bytes
from kuiper.cluster.host import AT_ONCE, LOCAL
from kuiper.cluster.login import FOREIGN, Login, jump_host, jumps, through
from kuiper.cluster.paths import known_hosts
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec


@dataclass(frozen=True)
class Shown:
    """The key that a host shows now.

    Attributes:
        entry: its name in known_hosts: the host, or [host]:port, or its HostKeyAlias.
        known: 'yes', 'no', 'changed' when another one is on record, or 'revoked'.
        where: the line of known_hosts that says so, '' for none.
    """

    host: str
    entry: str
    key: bytes
    known: str
    where: str = ""

    @property
    def fingerprint(self) -> str:
        return known_keys.fingerprint(self.key)


def shown(login: Login) -> list[Shown]:
    """Ask a host for its key, without logging in there, and the jump hosts on the way for theirs.

    The last is the host's own, unless one before it is not on record: nobody goes through such a host.

    Raises:
        HostError: one of them cannot be reached.
    """
    way = login.route()
    found: list[Shown] = []
    for each in [*(jump_host(jump) for jump in reversed(jumps(way))), login]:
        route = each.route()
        try:
            transport = reached(route, through)
            blob = transport.get_remote_server_key().asbytes()
            transport.close()
        except FOREIGN as error:
            raise each.explained(error)[0] from error
        said = verdict(route, blob)
        found.append(Shown(each.name, route.names[0], blob, said.known, said.where))
        if said.known != "yes":
            break
    return found


def accept(found: Shown) -> None:
    """Write the key to kuiper's known_hosts, in place of another one of its type that was there."""
    path = known_hosts()
    make_folder(path.parent)
    with locked(path.with_name("known_hosts.lock")):
        lines = path.read_text(errors="surrogateescape").splitlines() if path.exists() else []
        text = "".join(f"{line}\n" for line in known_keys.with_key(lines, found.entry, found.key))
        write_bytes(path, text.encode(errors="surrogateescape"), 0o600)


def shown_by_all(spec: Spec) -> tuple[list[Shown], list[str], list[str]]:
    """Ask every host of a spec, and every jump host on the way.

    Returns:
        Each key once; what is said of hosts that cannot be reached; and those behind a host that is not trusted yet.
    """
    names = list(dict.fromkeys(entry.host for entry in (*spec.ps_ip, *spec.worker_ips) if entry.host != LOCAL))

    def ask(name: str) -> Sequence[Shown] | str:
        address = spec.address(name)
        try:
            return shown(Login.of(address.host, address.user, address.port, address.key))
        except HostError as error:
            return error.message

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(names, pool.map(ask, names), strict=True))
    keys = [keys for keys in answers.values() if not isinstance(keys, str)]
    behind = [name for name, keys in answers.items() if not isinstance(keys, str) and keys[-1].host != name]
    failures = dict.fromkeys(answer for answer in answers.values() if isinstance(answer, str))
    return list(dict.fromkeys(key for each in keys for key in each)), list(failures), behind
