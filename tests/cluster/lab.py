"""A cluster on one machine: an sshd per host on 127.0.0.2, .3, ..., each with its own port, keys and home.

    python -m tests.cluster.lab up 8 [FOLDER]     start one, and write an inventory and a conf.yml for it
    python -m tests.cluster.lab down FOLDER       end it

No root is needed.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

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


@dataclass
class LabHost:
    """One host: where its sshd listens, its folder, its home."""

    address: str
    port: int
    folder: str
    home: str

    @property
    def pid(self) -> int:
        return int((Path(self.folder) / "sshd.pid").read_text())

    def start(self) -> None:
        """Start its sshd; returns when it listens."""
        subprocess.run([SSHD, "-f", f"{self.folder}/sshd_config", "-E", f"{self.folder}/sshd.log"], check=True)
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
        listening = self.pid
        for pid in [*sessions(listening), listening]:
            with_pid(pid, signal.SIGKILL)
        Path(self.folder, "sshd.pid").unlink(missing_ok=True)

    def drop_connections(self) -> None:
        """End every connection; sshd goes on listening."""
        for pid in sessions(self.pid):
            with_pid(pid, signal.SIGKILL)


def sessions(listening: int) -> list[int]:
    """The sshd processes that serve connections of a listening one."""
    found = [listening]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name.startswith("sshd") and int(rest.split()[1]) in found:
            found.append(int(stat.parent.name))
    return found[1:]


def with_pid(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Lab:
    """A cluster of `count` hosts below `folder`.

    Attributes:
        key: the private key that lets the current user in on every host.
    """

    def __init__(self, folder: Path, hosts: list[LabHost]) -> None:
        self.folder = folder
        self.hosts = hosts
        self.key = folder / "id_ed25519"
        self.user = getpass.getuser()

    @classmethod
    def up(cls, folder: Path, count: int) -> Lab:
        """Make and start one.

        Raises:
            RuntimeError: there is no sshd, or one does not start.
        """
        if SSHD is None:
            raise RuntimeError("there is no sshd: install openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where an sshd of root's separates its privileges
        folder.mkdir(parents=True, exist_ok=True)
        keygen(folder / "id_ed25519")
        hosts = [make_host(folder, f"127.0.0.{number}") for number in range(2, 2 + count)]
        lab = cls(folder, hosts)
        (folder / "lab.json").write_text(json.dumps([asdict(host) for host in hosts]))
        for host in hosts:
            host.start()
        return lab

    @classmethod
    def at(cls, folder: Path) -> Lab:
        """The one that was made there."""
        return cls(folder, [LabHost(**host) for host in json.loads((folder / "lab.json").read_text())])

    def down(self) -> None:
        """End every sshd, and remove the folder."""
        for host in self.hosts:
            if Path(host.folder, "sshd.pid").exists():
                host.stop()
        shutil.rmtree(self.folder)

    def known_hosts(self) -> str:
        """Lines for a known_hosts file."""
        keys = ((host, Path(host.folder, "host_key.pub").read_text().split()[:2]) for host in self.hosts)
        return "".join(f"[{host.address}]:{host.port} {' '.join(key)}\n" for host, key in keys)

    def spec(self, name: str, processes: int = 1, **more: object) -> dict[str, object]:
        """A job spec: the server on the first host, `processes` workers on each of the others."""
        server, *workers = self.hosts
        return {
            "job_name": name,
            "ps_ip": [{"host": server.address, "port": server.port}],
            "worker_ips": [{"host": host.address, "port": host.port, "processes": processes} for host in workers],
            "exp_path": "~/kuiper",
            "auth": {"ssh_user": self.user, "ssh_private_key": str(self.key)},
            **more,
        }  # fmt: skip


def make_host(folder: Path, address: str) -> LabHost:
    own = folder / address
    home = own / "home"
    home.mkdir(parents=True)
    keygen(own / "host_key")
    shutil.copyfile(folder / "id_ed25519.pub", own / "authorized_keys")
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    host = LabHost(address, port, str(own), str(home))
    (own / "sshd_config").write_text(CONFIG.format(address=address, port=port, folder=own, home=home))
    return host


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)], check=True)


def main() -> int:
    match sys.argv[1:]:
        case ["up", count, *rest]:
            folder = Path(rest[0] if rest else tempfile.mkdtemp(prefix="kuiper-lab-")).absolute()
            lab = Lab.up(folder, int(count))
            conf = lab.spec("lab", job_conf={
                "algorithm": "parameter_server", "num_workers": 2 * (len(lab.hosts) - 1), "model": "softmax",
                "dataset": "digits", "steps": 200})  # fmt: skip
            (folder / "conf.yml").write_text(yaml.safe_dump(conf, sort_keys=False))
            (folder / "inventory").write_text("".join(f"{host.address}:{host.port}\n" for host in lab.hosts))
            print(f"{len(lab.hosts)} hosts; edit and submit {folder / 'conf.yml'}; the inventory is beside it\n"
                  f"python manager.py trust {folder / 'conf.yml'}   # first\n"
                  f"python -m tests.cluster.lab down {folder}       # last")
        case ["down", folder]:
            Lab.at(Path(folder).absolute()).down()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
