"""A host of a lab: an sshd of its own, with its own address, port, host key, home and authorized key."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kuiper.cluster import agent

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIG = """
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={home}
Subsystem sftp internal-sftp -d {home}
"""


@dataclass(eq=False)
class LabHost:
    """A host on this machine's own network: one of the addresses 127.0.0.x.

    Attributes:
        address, port: where its sshd listens.
        folder: what the lab keeps of it.
        home: of whoever logs in.
    """

    address: str
    port: int
    folder: str
    home: str

    @classmethod
    def make(cls, folder: Path, address: str, authorized_key: Path, home: Path | None = None) -> LabHost:
        """Write its keys and its configuration below `folder`, with a port that is free, and a home of its own
        unless one is given."""
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
        return cls._made(folder / address, address, port, authorized_key, home)

    @classmethod
    def _made(cls, own: Path, address: str, port: int, authorized_key: Path, home: Path | None = None) -> LabHost:
        own.mkdir(parents=True)
        home = home or own / "home"
        home.mkdir(exist_ok=True)
        keygen(own / "host_key")
        shutil.copyfile(authorized_key, own / "authorized_keys")
        (own / "sshd_config").write_text(CONFIG.format(address=address, port=port, folder=own, home=home))
        return cls(address, port, str(own), str(home))

    def on(self) -> None:
        """Begin to be there; an sshd is not up yet."""

    def off(self) -> None:
        """Stop being there."""
        if self.listens:
            self.stop()

    @property
    def listens(self) -> bool:
        """Whether its sshd was started, and not stopped."""
        return Path(self.folder, "sshd.pid").exists()

    @property
    def known_as(self) -> str:
        """Its name in a known_hosts file."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    def start(self) -> None:
        """Start its sshd; returns when it listens."""
        words = [str(SSHD), "-f", f"{self.folder}/sshd_config", "-E", f"{self.folder}/sshd.log"]
        subprocess.run(self.inside(words), check=True)
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection((self.address, self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(Path(self.folder, "sshd.log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End its sshd and every connection to it; what runs on the host goes on."""
        ending = [*self.sessions(), self.listening]
        signalled(ending, signal.SIGKILL)
        while any(agent.identity(pid) for pid in ending):  # else one more connection may still begin
            time.sleep(0.01)
        Path(self.folder, "sshd.pid").unlink(missing_ok=True)

    def drop_connections(self) -> None:
        """End every connection; sshd goes on listening."""
        signalled(self.sessions(), signal.SIGKILL)

    def inside(self, words: list[str]) -> list[str]:
        """A command as it is run on this host from here, without ssh."""
        return words

    @property
    def listening(self) -> int:
        """The pid, here, of the sshd that listens."""
        return int(Path(self.folder, "sshd.pid").read_text())

    def sessions(self) -> list[int]:
        """The pids, here, of the sshds that serve its connections."""
        return [pid for pid in descendants(self.listening) if command(pid).startswith("sshd")]


def descendants(root: int) -> list[int]:
    """The pids of the processes below one."""
    found = [root]
    for pid in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) in found:
                found.append(pid)
    return found[1:]


def command(pid: int) -> str:
    """The name of a process, '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def signalled(pids: list[int], number: signal.Signals) -> None:
    """Signal those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def keygen(path: Path) -> None:
    """Make an ed25519 key without a passphrase, and its .pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)], check=True)
