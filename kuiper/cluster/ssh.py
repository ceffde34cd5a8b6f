"""A host reached over ssh: commands and files through a shell of our own there. Every argument is quoted."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath

from kuiper.cluster import agent
from kuiper.cluster.host import Address, Result, agent_place
from kuiper.cluster.login import CONNECT_TIMEOUT, SILENCE, Login
from kuiper.cluster.shell import Shell, ShellEnded, Shells
from kuiper.errors import HostError, Unreachable

# busybox knows these options of head, tail, stat and timeout, too
RUN = "limit='timeout -k 5 {0:g}'; command -v timeout > /dev/null || limit=; {1}exec $limit {2}"
PUT = """LC_ALL=C; export LC_ALL
[ ! -d {path} ] || {{ echo it is a folder >&2; exit 1; }}
mkdir -p -- {folder} || exit
(umask 077; set -C; : > {temporary}) && chmod {mode:o} {temporary} && head -c {size} > {temporary} &&
[ "$(stat -c %s {temporary})" -eq {size} ] && mv -f -- {temporary} {path} || {{ rm -f -- {temporary}; exit 1; }}"""
GET = """LC_ALL=C; export LC_ALL
[ ! -d {path} ] || {{ echo it is a folder >&2; exit 1; }}
size=$(stat -Lc %s -- {path}) || exit
left=$((size - {offset})); [ $left -gt 0 ] || left=0
echo $left; tail -c +$(({offset} + 1)) -- {path} | head -c $left"""
"""Begins with a line that says how many bytes follow: a file may grow meanwhile."""


class Refused(HostError):
    """A host did not read or write a file."""


class SshHost:
    """See `Host`. All who log in alike share a connection (see `Login`) and its shells.

    Args:
        address: where it is and who logs in; ~/.ssh/config has its say as for ssh itself.
    """

    def __init__(self, address: Address) -> None:
        self.name = address.host
        self.python = address.python
        self._address = address
        self._shells = Shells.of(Login.of(address.host, address.user, address.port, address.key))
        self._has_agent = False

    @property
    def agent(self) -> str:
        """Brought there when it is not."""
        path = PurePosixPath(agent_place(self._address))
        if not self._has_agent and not self.exists(path):
            self.put(Path(agent.__file__), path)
        self._has_agent = True
        return str(path)

    def reach(self) -> None:
        with self._shells.use():
            pass

    def run(self, argv: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> Result:
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in (env or {}).items())
        if any("\0" in word for word in argv):
            raise HostError(f"{self.name}: cannot run {argv[0]}: an argument has a NUL byte", "leave it out")
        # `timeout` on the host: when ours is over, a remote process would live on
        script = RUN.format(timeout, exports, shlex.join(argv))
        late = HostError(f"{self.name}: {argv[0]} took longer than {timeout:g} s", "try again")
        with self._asked(f"while {argv[0]} ran") as shell:
            try:
                done = shell.ask(script, timeout + 2 * CONNECT_TIMEOUT)
            except TimeoutError:
                raise late from None
        out, err = done.out.decode(errors="replace"), done.err.decode(errors="replace")
        if done.code == 124:
            raise late
        if done.code in (126, 127):
            raise HostError(f"{self.name}: cannot run {argv[0]}: {err.strip()}", "is it installed there?")
        return Result(done.code, out, err)

    def put(self, data: bytes | Path, path: PurePath, mode: int = 0o644) -> None:
        data = data.read_bytes() if isinstance(data, Path) else data
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        script = PUT.format(path=quoted(path), folder=quoted(path.parent), temporary=quoted(temporary), mode=mode,
                            size=len(data))
        with self._asked(f"while {path} was written") as shell:
            done = shell.ask(script, SILENCE, data)
        if done.code:
            raise self._refused(f"cannot write {path}", done.err)

    def get(self, path: PurePath, offset: int = 0) -> bytes:
        with self._asked(f"while {path} was read") as shell:
            done = shell.ask(GET.format(path=quoted(path), offset=offset), SILENCE)
        size, _, data = done.out.partition(b"\n")
        if done.code or not size.isdigit() or done.err.strip():
            raise self._refused(f"cannot read {path}", done.err)
        if len(data) != int(size):
            raise self._refused(f"cannot read {path}", b"%d bytes came instead of %s: does a start-up file there leave "
                                b"something running that prints?" % (len(data), size))
        return data

    def exists(self, path: PurePath) -> bool:
        with self._asked(f"while {path} was looked for") as shell:
            return shell.ask(f"[ -e {quoted(path)} ]", SILENCE).code == 0

    @contextmanager
    def _asked(self, what: str) -> Iterator[Shell]:
        """A shell, and what its end or its silence means."""
        with self._shells.use() as shell:
            try:
                yield shell
            except ShellEnded:
                raise Unreachable(f"{self.name}: the connection was lost {what}", "try again") from None
            except TimeoutError:
                raise Unreachable(f"{self.name}: it did not answer {what}", "is it overloaded?") from None

    def _refused(self, failure: str, err: bytes) -> Refused:
        lines = [re.sub(r"^/bin/sh: (line )?\d+: ", "", line) for line in err.decode(errors="replace").splitlines()]
        said = next((line for line in lines if line.strip()), "it says nothing")
        return Refused(f"{self.name}: {failure}: {said}", "check the place, its space and who may write there")


def quoted(path: PurePath) -> str:
    """A path as a word of sh."""
    return shlex.quote(str(path))
