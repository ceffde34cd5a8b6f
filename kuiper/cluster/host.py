"""A host: where commands run and files lie. Everything above this interface is the same for every host."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Protocol

from kuiper.cluster import agent
from kuiper.cluster.files import make_folder, write_bytes
from kuiper.cluster.hostnames import LOCAL
from kuiper.errors import HostError

AT_ONCE = 32
"""Hosts that are worked on at once, and connections that are open at once."""


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit code and what it said."""

    code: int
    out: str
    err: str

    def answer(self) -> Any:
        """What an agent or a probe said: the last line that is a JSON object, for others may print, too.

        Raises:
            ValueError: there is none.
        """
        for line in reversed(self.out.splitlines()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    return json.loads(line)
        raise ValueError("no line of it is a JSON object")


@dataclass(frozen=True)
class Address:
    """How a host is reached.

    Attributes:
        host: name or address, as the spec has it.
        python: the interpreter there.
        base: kuiper's folder there, absolute; "" before it is known.
        user, port, key: of ssh; None leaves it to ~/.ssh/config, and then to ssh's defaults.
    """

    host: str
    python: str = sys.executable
    base: str = ""
    user: str | None = None
    port: int | None = None
    key: str | None = None


class Host(Protocol):
    """What the control plane needs of a machine.

    Attributes:
        name: as the spec has it.
        python: the interpreter that runs the agent and the processes there.
        agent: path of agent.py there.
    """

    name: str
    python: str
    agent: str

    def reach(self) -> None:
        """Connect, if that has not been done.

        Raises:
            HostError: it does not answer, or let us in.
        """

    def run(self, argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> Result:
        """Run a command, its arguments taken literally, and wait for it.

        Args:
            env: to add to its environment; not seen by others there.

        Raises:
            HostError: it cannot be run, or takes longer than `timeout` seconds (it is then ended).
        """

    def put(self, data: bytes | Path, path: PurePath, mode: int = 0o644) -> None:
        """Atomically write a file of `data`, or of the contents of the file `data`; makes its folder."""

    def get(self, path: PurePath, offset: int = 0) -> bytes:
        """A file from byte `offset` on; b'' where there is nothing.

        Raises:
            HostError: there is no such file, or it may not be read.
        """

    def exists(self, path: PurePath) -> bool:
        """Whether there is such a file or folder."""


class LocalHost:
    """This machine."""

    def __init__(self, name: str = "localhost") -> None:
        self.name = name
        self.python = sys.executable
        self.agent = agent_place(Address(LOCAL))

    def reach(self) -> None:
        pass

    def run(self, argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> Result:
        try:
            done = subprocess.run(
                list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
                env={**os.environ, **env} if env else None,
                start_new_session=True,  # a Ctrl-C at the terminal is for the submitter alone
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.name}: {argv[0]} took longer than {timeout:g} s", "try again") from None
        except (OSError, ValueError) as error:
            raise HostError(f"{self.name}: cannot run {argv[0]}: {error}", "is it installed?") from error
        out, err = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
        return Result(done.returncode, out, err)

    def put(self, data: bytes | Path, path: PurePath, mode: int = 0o644) -> None:
        make_folder(Path(path).parent)
        write_bytes(Path(path), data.read_bytes() if isinstance(data, Path) else data, mode)

    def get(self, path: PurePath, offset: int = 0) -> bytes:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read()
        except OSError as error:
            remedy = "check that it is there and may be read"
            raise HostError(f"{self.name}: cannot read {path}: {error.strerror}", remedy) from error

    def exists(self, path: PurePath) -> bool:
        return os.path.exists(path)


def agent_place(address: Address) -> str:
    """Where this version's agent is, or will be, on a host: runs of older versions are looked after as well."""
    if address.host == LOCAL:
        return agent.__file__
    digest = hashlib.sha256(Path(agent.__file__).read_bytes()).hexdigest()[:20]
    return str(PurePosixPath(address.base, "agents", f"{digest}.py"))


@cache
def connect(address: Address) -> Host:
    """The host at that address: one object, and so one connection, for all who ask."""
    if address.host == LOCAL:
        return LocalHost()
    from kuiper.cluster.ssh import SshHost  # Fabric: only those who leave this machine pay for it

    return SshHost(address)
