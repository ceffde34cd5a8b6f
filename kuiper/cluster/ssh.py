"""A host reached over ssh: commands and files over its `Login`. No environment, every argument quoted."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from invoke.exceptions import CommandTimedOut

from kuiper.cluster import agent
from kuiper.cluster.host import Address, Result, agent_place
from kuiper.cluster.login import CONNECT_TIMEOUT, SILENCE, Login
from kuiper.errors import HostError, Unreachable

if TYPE_CHECKING:
    from paramiko.sftp_client import SFTPClient

WRITE = 'mkdir -p -- "$1" && dd if=/dev/zero of="$3" bs="$2" count=1 status=none; rm -f -- "$3"'
"""As a file of $2 bytes is written: $1 is its folder."""


class Refused(HostError):
    """A host did not read or write a file."""


class SshHost:
    """See `Host`. All who log in alike share a connection (see `Login`).

    Args:
        address: where it is and who logs in; ~/.ssh/config has its say as for ssh itself.
    """

    def __init__(self, address: Address) -> None:
        self.name = address.host
        self.python = address.python
        self._address = address
        self._login = Login.of(address.host, address.user, address.port, address.key)
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
        with self._login.session():
            pass

    def run(self, argv: Sequence[str], timeout: float) -> Result:
        # `timeout` on the host: when ours is over, a remote process would live on
        words = ["timeout", "-k", "5", f"{timeout:g}", *argv]
        patience = timeout + CONNECT_TIMEOUT
        with self._login.session() as connection:
            try:
                with connection.answering(patience + CONNECT_TIMEOUT):
                    done = connection.run(shlex.join(words), hide=True, warn=True, in_stream=False, pty=False,
                                          timeout=patience, encoding="utf-8")
            except CommandTimedOut:
                raise HostError(f"{self.name}: {argv[0]} took longer than {timeout:g} s", "try again") from None
        if done.exited == -1:
            raise Unreachable(f"{self.name}: the connection was lost while {argv[0]} ran", "try again")
        if done.exited == 124:
            raise HostError(f"{self.name}: {argv[0]} took longer than {timeout:g} s", "try again")
        if done.exited == 127:
            raise HostError(f"{self.name}: cannot run {argv[0]}: {done.stderr.strip()}", "is it installed there?")
        return Result(done.exited, done.stdout, done.stderr)

    def put(self, data: bytes | Path, path: PurePosixPath, mode: int = 0o644) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        data = data.read_bytes() if isinstance(data, Path) else data
        try:
            with self._files(f"cannot write {path}") as sftp:
                make_folders(sftp, path.parent)
                try:
                    with contextlib.closing(sftp.open(str(temporary), "wx")) as file:
                        file.chmod(mode)  # before there is anything to read
                        file.set_pipelined(True)
                        file.write(data[:-1])
                        file.set_pipelined(False)  # only then it looks at what became of the writes
                        file.write(data[-1:])
                    sftp.posix_rename(str(temporary), str(path))
                except OSError:
                    with contextlib.suppress(OSError):
                        sftp.remove(str(temporary))
                    raise
        except Refused as error:  # SFTP says no more than "Failure"; the same by a command says why
            words = ["sh", "-c", WRITE, "sh", str(path.parent), str(len(data) or 1), str(temporary)]
            said = self.run(words, CONNECT_TIMEOUT).err.strip()
            if not said:
                raise
            raise Refused(f"{self.name}: cannot write {path}: {said}", error.remedy) from error

    def get(self, path: PurePosixPath, offset: int = 0) -> bytes:
        with self._files(f"cannot read {path}") as sftp, contextlib.closing(sftp.open(str(path), "rb")) as file:
            size = file.stat().st_size or 0
            if size <= offset:
                return b""
            if offset == 0:
                file.prefetch(size)
            file.seek(offset)
            return file.read()

    def exists(self, path: PurePosixPath) -> bool:
        with self._files(f"cannot look at {path}") as sftp:
            try:
                sftp.stat(str(path))
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def _files(self, failure: str) -> Iterator[SFTPClient]:
        with self._login.session() as connection:
            with connection.answering(2 * CONNECT_TIMEOUT):
                sftp = connection.open_sftp()
            sftp.get_channel().settimeout(SILENCE)
            try:
                yield sftp
            except OSError as error:
                if isinstance(error, (ConnectionError, TimeoutError)) or not connection.is_connected:
                    raise
                said = error.strerror or str(error)
                remedy = "check the place, its space and who may write there"
                raise Refused(f"{self.name}: {failure}: {said}", remedy) from error
            finally:
                sftp.close()


def make_folders(sftp: SFTPClient, folder: PurePosixPath) -> None:
    """As `mkdir -p`."""
    try:
        if stat.S_ISDIR(sftp.stat(str(folder)).st_mode or 0):
            return
        raise NotADirectoryError(20, "a file is in the way", str(folder))
    except FileNotFoundError:
        make_folders(sftp, folder.parent)
        with contextlib.suppress(OSError):  # somebody else made it meanwhile; if not, the next step says so
            sftp.mkdir(str(folder))
