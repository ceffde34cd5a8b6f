"""Host files: one host a line, in the place of ps_ip or worker_ips.

    # comments and empty lines are skipped
    node1                 one process
    node2:4               four
    node3:[2,2]           two on each of two GPUs
    [node4]:2222          the port of its sshd, written as in known_hosts
    [node4]:2222:4        and four processes

A host on several lines has that many times its processes, as in a list of the cores of a cluster's scheduler.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kuiper.config.schema import InvalidSpec, Problem, shown
from kuiper.config.source import MAX_BYTES

PORT = re.compile(r"\[([^][:]+)\]:(\d{1,5})(?::(.*))?")
LEAST_PORT = 1024


def read(path: Path) -> tuple[list[tuple[Any, str]], bytes]:
    """The entries of a host file, as in worker_ips, each with its place, "hosts:3"; and its bytes.

    Raises:
        InvalidSpec: it cannot be read, has no host, or has lines that name none.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidSpec([Problem(str(path), "", f"cannot be read: {said}", "one host a line")]) from None
    entries, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        where = f"{path}:{number}"
        message, remedy = _wrong(words)
        if message:
            problems.append(Problem(where, "", f"is {shown(words)}, {message}", remedy))
        entries.append((_entry(words), where))
    if not entries:
        problems.append(Problem(str(path), "", "names no host", "write one a line: host, or host:n"))
    if problems:
        raise InvalidSpec(problems)
    return entries, content


def _wrong(words: str) -> tuple[str, str]:
    """What is wrong with a line, and what to do; ("", "") where that is left to the checks of worker_ips."""
    count = words.rpartition(":")[2]
    if "@" in words:
        return "which names a user", "write `auth: {ssh_user: ...}` in the spec, or User in ~/.ssh/config"
    if re.search(r"\s", words):
        return "which is more than one word", "write one host a line: host, host:n or [host]:port"
    if words.count(":") > 1 and not PORT.fullmatch(words):
        return "which is no name or IPv4 address", "give IPv6 hosts a name in ~/.ssh/config or /etc/hosts"
    if count.isdigit() and int(count) >= LEAST_PORT and not words.startswith("["):
        return ("and what stands behind the colon is a number of processes",
                f"write {words.partition(':')[0]}; kuiper finds its ports itself. [host]:port is sshd's")
    return "", ""


def _entry(words: str) -> Any:
    found = PORT.fullmatch(words)
    if not found:
        return words
    host, port, count = found.groups()
    entry: dict[str, Any] = {"host": host, "port": int(port)}
    if count is not None:
        entry["processes"] = int(count) if count.isdigit() else count
    return entry
