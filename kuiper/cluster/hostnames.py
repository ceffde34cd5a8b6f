"""Names and addresses of hosts, as people write them: in worker_ips, ps_ip and host files."""

from __future__ import annotations

import ipaddress
import re

LOCAL = "localhost"
LOCAL_NAMES = ("localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback")
LOOPBACK = ("127.0.0.1", "::1")
_BRACKETS = re.compile(r"\[([^][]*)\](?::(.*))?", re.DOTALL)
_COUNTED = re.compile(r"(.*):\d{1,3}", re.DOTALL)


class BadHost(ValueError):
    """What is no host.

    Attributes:
        remedy: what to write.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def not_reached(server: str, said: str) -> str:
    """Return the remedy where a worker's host cannot connect to the server's: `said` is its OSError."""
    if "[Errno -" in said:  # of getaddrinfo
        return (f"write in ps_ip a name or an address that the workers know: {server} may be "
                "in this machine's ssh config only")
    return "open it in the firewalls between, or give a range that is open: job_conf.ports"


def split(text: str) -> tuple[str, str | None]:
    """A host, and what stands behind its colon, None without one.

    An IPv6 address needs brackets when something follows it: `[fe80::1%eth0]:4`.

    Raises:
        BadHost: it names a user, or is ambiguous.
    """
    text = text.strip()
    if "@" in text:
        raise BadHost("which names a user", "write `auth: {ssh_user: ...}` in the spec, or User in ~/.ssh/config")
    found = _BRACKETS.fullmatch(text)
    if found and is_ipv6(found[1]):
        return found[1], found[2]
    if found and found[1]:
        raise BadHost("which has brackets around what is no IPv6 address",
                      f"write {found[1]}:2 for two processes; the port of sshd is {{host: {found[1]}, port: 2222}}")
    if is_ipv6(text):
        counted = _COUNTED.fullmatch(text)
        if counted and is_ipv6(counted[1]):
            raise BadHost("which is an IPv6 address, or one with a number behind it",
                          f"write [{text}], or [{counted[1]}]{text[len(counted[1]):]}")
        return text, None
    host, colon, rest = text.partition(":")
    if ":" in rest and "[" not in rest:
        raise BadHost("which is no host name or address", "write host, host:2, or [IPv6 address]:2")
    return host.strip(), rest if colon else None


def canonical(host: str) -> str:
    """One spelling of a host: an address in its shortest form, a name in ASCII, without the dot that may end it.

    Raises:
        BadHost: a name or address that no host can have.
    """
    found = _BRACKETS.fullmatch(host)
    if found and found[2] is None:
        host = found[1]
    if ":" in host:
        if not is_ipv6(host):
            raise BadHost("which is no IPv6 address", "write an address such as fd00::2, or a name")
        address = ipaddress.IPv6Address(host)
        return str(address.ipv4_mapped or address)
    try:
        host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise BadHost("which is no host name", "write it as its address book does: xn--...") from None
    return LOCAL if host.lower().rstrip(".") in LOCAL_NAMES else host.removesuffix(".")


def is_ipv6(text: str) -> bool:
    """Whether it is an IPv6 address, maybe with a zone: fe80::1%eth0."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
