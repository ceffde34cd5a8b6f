"""Host keys on record, read line by line as ssh does: what is not understood is skipped, and costs only itself.

    node1,10.0.0.1 ssh-ed25519 AAAA...       names, or |1|salt|hash of one, or patterns with *, ? and !
    [node1]:2222 ssh-rsa AAAA...             another port than 22
    @revoked * ssh-rsa AAAA...               a key that is refused everywhere
    @cert-authority *.example.org ...        certificates of hosts are not read: the line counts for nothing
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

REVOKED, AUTHORITY = "@revoked", "@cert-authority"
ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Of key types that are not called as what they sign with."""


@dataclass(frozen=True)
class KnownKey:
    """A line.

    Attributes:
        marker: "", REVOKED or AUTHORITY.
        hosts: names and patterns, with commas between, or one hashed name.
        blob: the public key as it travels.
        where: "known_hosts:3".
    """

    marker: str
    hosts: str
    blob: bytes
    where: str

    @property
    def kind(self) -> str:
        return kind(self.blob)

    def names(self, name: str) -> bool:
        """Whether the line is about a host, by its name in known_hosts, in lower case."""
        if self.hosts.startswith("|"):
            return _hashed(self.hosts, name)
        patterns = self.hosts.lower().split(",")
        if any(_pattern(pattern[1:]).fullmatch(name) for pattern in patterns if pattern.startswith("!")):
            return False
        return name in patterns or any(_pattern(pattern).fullmatch(name) for pattern in patterns
                                       if "*" in pattern or "?" in pattern)


@dataclass(frozen=True)
class Verdict:
    """What the files say of the key that a host shows.

    Attributes:
        known: "yes", "no", "changed" when they have another one of its type, or "revoked".
        where: the line that says so, "" for none; of "no", one that trusts an authority for the host.
        expected: the key on record, of "changed".
    """

    known: str
    where: str = ""
    expected: bytes = b""


def parse(line: str, where: str) -> KnownKey | None:
    """One line; None for one that is empty, a comment, or not understood."""
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", REVOKED, AUTHORITY):
        return None
    hosts, name, encoded = words[:3]
    blob = decoded(encoded)
    return KnownKey(marker, hosts, blob, where) if blob and kind(blob) == name else None


def read(files: Iterable[Path]) -> list[KnownKey]:
    """The lines of all files that can be read."""
    found: list[KnownKey] = []
    for path in files:
        try:
            stat = path.stat()
            found += _read(path, stat.st_mtime_ns, stat.st_size)
        except OSError:  # as ssh does: what it says is not known then
            continue
    return found


@lru_cache(64)
def _read(path: Path, changed: int, size: int) -> tuple[KnownKey, ...]:
    if not path.is_file():
        return ()
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    keys = (parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))
    return tuple(key for key in keys if key is not None)


def judge(keys: Sequence[KnownKey], names: Sequence[str], blob: bytes) -> Verdict:
    """Compare the key that a host shows with those on record.

    Args:
        names: of the host; only the first has a say in whether its key has changed.
    """
    about = [key for key in keys if any(key.names(name) for name in names)]
    for key in about:
        if key.marker == REVOKED and key.blob == blob:
            return Verdict("revoked", key.where)
    for key in about:
        if not key.marker and key.blob == blob:
            return Verdict("yes", key.where)
    for key in about:
        if not key.marker and key.kind == kind(blob) and key.names(names[0]):
            return Verdict("changed", key.where, key.blob)
    return Verdict("no", next((key.where for key in about if key.marker == AUTHORITY), ""))


def preferred(keys: Sequence[KnownKey], names: Sequence[str], algorithms: Sequence[str]) -> list[str]:
    """Host key algorithms, with those first for which a key is on record, as ssh asks for them."""
    kinds = {key.kind for key in keys if not key.marker and any(key.names(name) for name in names)}
    known = {algorithm for one in kinds for algorithm in ALGORITHMS.get(one, (one,))}
    return sorted(algorithms, key=lambda algorithm: algorithm not in known)


def revoked_in(path: Path, blob: bytes) -> bool:
    """Whether a list of public keys, one a line, has a key.

    Raises:
        OSError, ValueError: it cannot be read, or is not such a list.
    """
    lines = path.read_bytes().decode().splitlines()
    return any(decoded(word) == blob for line in lines for word in line.split()[:2])


def with_key(lines: Sequence[str], name: str, blob: bytes) -> Iterator[str]:
    """The lines of a file with a key for a host, in place of one of the same type under exactly that name."""
    for line in lines:
        key = parse(line, "")
        if key is None or key.marker or key.hosts != name or key.kind != kind(blob):
            yield line
    yield f"{name} {kind(blob)} {base64.b64encode(blob).decode()}"


def kind(blob: bytes) -> str:
    """The type that a public key says it has, "" when it says none."""
    size = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + size].decode(errors="replace") if len(blob) > 4 + size else ""


def fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l shows it: type and SHA256."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"{kind(blob)} SHA256:{digest}"


def decoded(text: str) -> bytes:
    """A key from its base64; b"" when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _hashed(hosts: str, name: str) -> bool:
    parts = hosts.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    expected = hmac.new(decoded(parts[2]), name.encode(), hashlib.sha1).digest()
    return hmac.compare_digest(expected, decoded(parts[3]))


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern))
