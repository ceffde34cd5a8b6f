"""Hosts with real links, for root: each with a network, processes, mounts and a boot id of its own.

A host is an init process in namespaces of its own; a veth pair is its cable to a bridge, the switch. What
runs on a host sees no other host's processes, and ends with the init, as it would in a power cut.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from kuiper.cluster import agent
from tests.cluster.sshd import LabHost, command, descendants, signalled

SUBNET = "10.213.{}.{}"
PORT = 22
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# The first process of a host. $1 is its boot id's file; it collects orphans, and does nothing else.
INIT = f"""
mount --bind "$1" {BOOT_ID} && ip link set lo up && echo up
exec "$2" -c 'import os, signal
while True:
    try: os.wait()
    except ChildProcessError: signal.sigtimedwait([signal.SIGCHLD], 1)' >/dev/null
"""
NEEDED = "sshd", "ip", "tc", "unshare", "nsenter"


def lacking() -> str:
    """Why hosts cannot have namespaces here, '' when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if not any(Path(each, name).exists() for each in path.split(":"))]:
        return f"there is no {', '.join(missing)}: install openssh-server, iproute2 and util-linux"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True,
                           text=True)
    return f"this kernel allows no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass
class Switch:
    """What the cables of a lab's hosts are plugged into; this machine has the address .1 on it.

    Attributes:
        name: of the bridge, and how its cables' names begin.
        subnet: third number of its addresses, 10.213.<subnet>.x.
    """

    name: str
    subnet: int

    @classmethod
    def make(cls) -> Switch:
        """With addresses that nobody has here yet."""
        taken = ip("-4", "-o", "address")
        free = [number for number in range(256) if f" {SUBNET.format(number, 1)}/" not in taken]
        switch = cls(f"lab{random.SystemRandom().randrange(1 << 16):04x}", random.SystemRandom().choice(free))
        ip("link", "add", switch.name, "type", "bridge")
        ip("address", "add", f"{switch.address(1)}/24", "dev", switch.name)
        ip("link", "set", switch.name, "up")
        return switch

    def address(self, number: int) -> str:
        return SUBNET.format(self.subnet, number)

    def down(self) -> None:
        """Remove it; its hosts are off."""
        ip("link", "delete", self.name)


@dataclass(eq=False)
class NamespaceHost(LabHost):
    """A host with namespaces of its own. `on` boots it; `off` and `reboot` are a power cut.

    Attributes:
        switch: the bridge that its cable leads to.
        cable: the switch's end of it.
    """

    switch: str = ""
    cable: str = ""

    @classmethod
    def plugged(cls, folder: Path, number: int, authorized_key: Path, switch: Switch) -> NamespaceHost:
        """Write its keys and its configuration below `folder`; its address ends with `number`."""
        address = switch.address(number)
        host = cls._made(folder / address, address, PORT, authorized_key)
        host.switch, host.cable = switch.name, f"{switch.name}h{number}"
        return host

    def on(self) -> None:
        """Boot: under a new boot id, with nothing mounted, its cable plugged in."""
        boot_id = Path(self.folder, "boot_id")
        boot_id.write_text(f"{uuid.uuid4()}\n")
        words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "init",
                 str(boot_id), sys.executable]
        with open(Path(self.folder, "init.log"), "ab") as log:
            boot = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/",
                                    start_new_session=True)
        if boot.stdout.readline() != b"up\n":
            raise RuntimeError(f"{self.address} did not boot: {Path(self.folder, 'init.log').read_text()}")
        boot.stdout.close()
        boot.returncode = 0  # not ours to wait for: `off` may be another process's
        [init] = descendants(boot.pid)[:1]
        Path(self.folder, "init.json").write_text(json.dumps(agent.identity(init)))
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))  # the same at every boot
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "address", card, "netns", str(init))
        ip("link", "set", self.cable, "master", self.switch, "up")
        for words in (["address", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            subprocess.run(self.inside(["ip", *words]), check=True)

    def off(self) -> None:
        """Everything that runs there is gone at once, and nobody is told."""
        who = agent.read(str(Path(self.folder, "init.json")))
        if not agent.alive(who):
            return
        ip("link", "delete", self.cable)
        agent.send(who, signal.SIGKILL)
        while agent.alive(who):
            time.sleep(0.01)
        Path(self.folder, "sshd.pid").unlink(missing_ok=True)

    def reboot(self) -> None:
        """A power cut, a new boot, and its sshd again."""
        self.off()
        self.on()
        self.start()

    def cut(self) -> None:
        """Pull the cable: nothing gets through, and neither end is told that a connection is over."""
        ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Plug the cable in again."""
        ip("link", "set", self.cable, "up")

    def limit(self, rate: str) -> None:
        """Let no more than `rate` (as tc has it: 10mbit) through, in each direction."""
        shape = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "200ms"]
        subprocess.run(["tc", "qdisc", "replace", "dev", self.cable, *shape], check=True)
        subprocess.run(self.inside(["tc", "qdisc", "replace", "dev", "eth0", *shape]), check=True)

    def mount(self, folder: str, options: str) -> None:
        """Mount a tmpfs there, until the next boot; options as mount has them: size=4m."""
        subprocess.run(self.inside(["mount", "--mkdir", "-t", "tmpfs", "-o", options, "tmpfs", folder]), check=True)

    def path(self, path: str | Path) -> Path:
        """A path of this host's as it is seen from outside, mounts included."""
        return Path(f"/proc/{self.init}/root", str(path).lstrip("/"))

    def inside(self, words: list[str]) -> list[str]:
        return ["nsenter", "--target", str(self.init), "--net", "--pid", "--mount", "--", *words]

    @property
    def init(self) -> int:
        """The pid, here, of its first process."""
        return json.loads(Path(self.folder, "init.json").read_text())["pid"]

    @property
    def processes(self) -> list[int]:
        """The pids, here, of all that runs there but for its init and its sshds."""
        return [pid for pid in self._all() if not command(pid).startswith("sshd")]

    @property
    def listening(self) -> int:
        init = self.init
        [pid] = [pid for pid in self._all() if command(pid).startswith("sshd") and agent.stat(pid)[1] == init]
        return pid

    def sessions(self) -> list[int]:
        listening = self.listening
        return [pid for pid in self._all() if command(pid).startswith("sshd") and pid != listening]

    def _all(self) -> list[int]:
        own = _namespace(self.init)
        return [pid for pid in agent.pids() if _namespace(pid) == own and pid != self.init]


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def ip(*words: str) -> str:
    """Run ip; its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
