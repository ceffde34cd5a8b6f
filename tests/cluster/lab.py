"""A cluster on one machine, with an sshd per host that has its own address, port, keys and home.

    python -m tests.cluster.lab up 8 [FOLDER]                on 127.0.0.2, .3, ...; no root is needed
    python -m tests.cluster.lab up 8 --namespaces [FOLDER]   as root: with networks and processes of their own
    python -m tests.cluster.lab up 8 --one-home [FOLDER]     with one home folder, as on a shared file system
    python -m tests.cluster.lab down FOLDER                  end it

With namespaces also, HOST as in the inventory:

    python -m tests.cluster.lab cut FOLDER HOST              pull its cable
    python -m tests.cluster.lab mend FOLDER HOST             plug it in again
    python -m tests.cluster.lab limit FOLDER HOST 10mbit     slow it down
    python -m tests.cluster.lab reboot FOLDER HOST           a power cut, and another boot
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.cluster.namespaces import NamespaceHost, Switch, lacking
from tests.cluster.sshd import SSHD, LabHost, keygen

SPEC = {"algorithm": "parameter_server", "model": "softmax", "dataset": "digits", "steps": 200}


class Lab:
    """A cluster below `folder`.

    Attributes:
        hosts: with an sshd each.
        switch: that joins them, None where they share this machine's own network.
        key: the private key that lets the current user in on every host.
    """

    def __init__(self, folder: Path, hosts: list[LabHost], switch: Switch | None = None) -> None:
        self.folder = folder
        self.hosts = hosts
        self.switch = switch
        self.key = folder / "id_ed25519"
        self.user = getpass.getuser()

    @classmethod
    def up(cls, folder: Path, count: int, namespaces: bool = False, one_home: bool = False) -> Lab:
        """Make and start one.

        Args:
            one_home: its hosts share a home folder; without namespaces.

        Raises:
            RuntimeError: there is no sshd, or one does not start; or hosts cannot have namespaces here.
        """
        problem = lacking() if namespaces else "" if SSHD else "there is no sshd: install openssh-server"
        if problem:
            raise RuntimeError(problem)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where an sshd of root's separates its privileges
        folder.mkdir(parents=True, exist_ok=True)
        keygen(folder / "id_ed25519")
        key, numbers = folder / "id_ed25519.pub", range(2, 2 + count)
        home = folder / "home" if one_home else None
        switch = Switch.make() if namespaces else None
        lab = cls(folder, [], switch)
        try:
            for number in numbers:
                lab.hosts.append(NamespaceHost.plugged(folder, number, key, switch) if switch else
                                 LabHost.make(folder, f"127.0.0.{number}", key, home))
                lab.hosts[-1].on()
                lab.hosts[-1].start()
            hosts = [asdict(host) for host in lab.hosts]
            known = {"switch": asdict(switch) if switch else None, "hosts": hosts}
            (folder / "lab.json").write_text(json.dumps(known))
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def at(cls, folder: Path) -> Lab:
        """The one that was made there."""
        known = json.loads((folder / "lab.json").read_text())
        if known["switch"] is None:
            return cls(folder, [LabHost(**host) for host in known["hosts"]])
        return cls(folder, [NamespaceHost(**host) for host in known["hosts"]], Switch(**known["switch"]))

    def down(self) -> None:
        """End every host, and remove the folder."""
        for host in self.hosts:
            host.off()
        if self.switch is not None:
            self.switch.down()
        shutil.rmtree(self.folder)

    def host(self, address: str) -> LabHost:
        """The host at that address, as it is or as in the inventory; or StopIteration."""
        return next(host for host in self.hosts if address in (host.address, host.known_as))

    def known_hosts(self) -> str:
        """Lines for a known_hosts file."""
        keys = ((host, Path(host.folder, "host_key.pub").read_text().split()[:2]) for host in self.hosts)
        return "".join(f"{host.known_as} {' '.join(key)}\n" for host, key in keys)

    def spec(self, name: str, processes: int = 1, **more: object) -> dict[str, object]:
        """A job spec: the server on the first host, `processes` workers on each of the others."""
        server, *workers = self.hosts
        each = [{"host": host.address, "port": host.port, "processes": processes} for host in workers]
        return {
            "job_name": name,
            "ps_ip": [{"host": server.address, "port": server.port}],
            "worker_ips": each,
            "exp_path": "~/kuiper",
            "auth": {"ssh_user": self.user, "ssh_private_key": str(self.key)},
            **more,
        }  # fmt: skip


def listed(hosts: Sequence[LabHost]) -> str:
    """The lines of a host file."""
    return "".join(f"{host.known_as}\n" for host in hosts)


def start(count: int, folder: Path, namespaces: bool, one_home: bool) -> None:
    """Make one for a person: with an inventory and a conf.yml, and a word on how to go on."""
    lab = Lab.up(folder, count, namespaces, one_home)
    conf = lab.spec("lab", job_conf={**SPEC, "num_workers": 2 * (count - 1)})
    (folder / "conf.yml").write_text(yaml.safe_dump(conf, sort_keys=False))
    for name, hosts in (("inventory", lab.hosts), ("servers", lab.hosts[:1]), ("workers", lab.hosts[1:])):
        (folder / name).write_text(listed(hosts))
    print(f"{count} hosts, {lab.hosts[0].address} to {lab.hosts[-1].address}; see {folder}/inventory\n"
          f"python manager.py trust {folder}/conf.yml             # first\n"
          f"python manager.py submit {folder}/conf.yml --follow   # edit it as you like\n"
          f"python -m tests.cluster.lab down {folder}             # last")
    if namespaces:
        print(f"python -m tests.cluster.lab cut {folder} {lab.hosts[-1].address}   # or mend, limit, reboot")


def main() -> int:
    options = "--namespaces" in sys.argv, "--one-home" in sys.argv
    arguments = [word for word in sys.argv[1:] if word not in ("--namespaces", "--one-home")]
    try:
        match arguments:
            case ["up", count, *rest]:
                folder = Path(rest[0] if rest else tempfile.mkdtemp(prefix="kuiper-lab-")).absolute()
                start(int(count), folder, *options)
            case ["down", folder]:
                Lab.at(Path(folder).absolute()).down()
            case ["cut" | "mend" | "reboot" | "limit" as verb, folder, address, *rate]:
                getattr(Lab.at(Path(folder).absolute()).host(address), verb)(*rate)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
