"""Host files: one host a line, in the place of ps_ip or worker_ips.

    # comments and empty lines are skipped
    node1                 one process
    node2:4               four
    node3:[2,2]           two on each of two GPUs
    [node4]:2222          the port of its sshd, written as in known_hosts
    [node4]:2222:4        and four processes
    fd00::2               an IPv6 address; [fd00::2]:22:4 for four processes

A host on several lines has that many times its processes, as in a list of the cores of a cluster's scheduler.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kuiper.cluster.hostnames import BadHost, is_ipv6, split
from kuiper.config.schema import InvalidSpec, Problem, shown
from kuiper.config.source import MAX_BYTES

PORT = re.compile(r"\[([^][]+)\]:(\d{1,5})(?::(.*))?")
LEAST_PORT = 1024


def read(path: Path) -> tuple[list[tuple[Any, str]], bytes]:
    """The entries of a host file, as in worker_ips, each with its place, "hosts:3"; and its bytes.

    Raises:
        InvalidSpec: it cannot be read, has no host, or has lines that name none.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidSpec([Problem(str(path), "", f"cannot be read: {said}", "one host a line")]) from None
    entries, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip().rstrip(",;").rstrip()
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
    count, with_port = words.rpartition(":")[2], PORT.fullmatch(words)
    if re.search(r"\s", words) or "," in words and "[" not in words:
        return "which is more than one word", "write one host a line: host, host:n or [host]:port"
    if with_port and "@" not in words:
        host, port, processes = with_port.groups()
        if is_ipv6(host) and processes is None and port != "22" and int(port) < LEAST_PORT:
            return "and what stands behind the brackets is the port of sshd", f"for processes, write [{host}]:22:{port}"
        return "", ""
    try:
        split(words)
    except BadHost as error:
        return str(error), error.remedy
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
