"""No sequence of drops, kills and repeats leaves a process behind that `stop` does not find.

Random sequences on hosts whose processes can be counted from outside: when every job has been stopped,
nothing may run there at all. KUIPER_SEQUENCE=<seed>[,<seconds>] chooses another than the one of every run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.jobs import LONG, spec
from tests.cluster.lab import Lab
from tests.cluster.sshd import descendants, signalled
from tests.integration.jobs import ROOT, manager

pytestmark = pytest.mark.cluster
SEED, _, SECONDS = os.environ.get("KUIPER_SEQUENCE", "1,60").partition(",")
NAMES = "first", "second"
AT_ONCE = 3
"""Verbs at work at the same time; each is a python."""
STRAYS = ["setsid -f sleep 987", "(setsid env -i sleep 987 &)", "trap '' TERM; setsid -f sleep 987"]


class Storm:
    """What may happen to a cluster; each method once, at random.

    Attributes:
        done: what has happened, for the report of a failure.
    """

    def __init__(self, lab: Lab, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.hosts = lab.hosts
        self.done: list[str] = []
        self.verbs: list[subprocess.Popen[bytes]] = []
        conf = {**LONG, "num_workers": len(lab.hosts) - 1, "f": 1, "aggregator": "average",
                "checkpoint_interval": 20, "join_timeout": 15}
        more = {"on_failure": {"retry": 1}, "limits": {"grace": 2}, "setup_commands": STRAYS}
        self.specs = {name: spec(lab, folder, name, conf, **more) for name in NAMES}

    def happen(self) -> None:
        chances = {self.submit: 5, self.verb: 3, self.kill_verb: 3, self.kill: 4, self.drop: 2, self.sshd: 2,
                   self.link: 2, self.reboot: 1, self.pause: 8}
        [event] = self.random.choices(list(chances), list(chances.values()))
        self.done.append(f"{event.__name__} {event() or ''}")

    def run(self, *words: str) -> str:
        if sum(verb.poll() is None for verb in self.verbs) == AT_ONCE:
            return "put off"
        self.verbs.append(subprocess.Popen([sys.executable, str(ROOT / "manager.py"), *words],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return " ".join(words)

    def submit(self) -> str:
        return self.run("submit", str(self.specs[self.random.choice(NAMES)]))

    def verb(self) -> str:
        verb = self.random.choice(("stop", "stop", "resume", "status", "collect"))
        return self.run(verb, self.random.choice(NAMES))

    def kill_verb(self) -> str:
        """The submitter's, wherever it is."""
        living = [verb for verb in self.verbs if verb.poll() is None]
        if not living:
            return "none"
        self.random.choice(living).send_signal(self.random.choice((signal.SIGKILL, signal.SIGINT)))
        return f"of {len(living)}"

    def kill(self) -> str:
        """An agent, a process, or what one started."""
        host = self.random.choice(self.hosts)
        if not (there := host.processes):
            return "none"
        pid = self.random.choice(there)
        what = cmdline(pid)
        if " supervise " in what:  # what has no marker can be told by its agent only
            signalled([child for child in descendants(pid) if not marked(child)], signal.SIGKILL)
        signalled([pid], signal.SIGKILL)
        return f"{host.address}: {what}"

    def drop(self) -> None:
        host = self.random.choice(self.hosts)
        if host.listens:
            host.drop_connections()

    def sshd(self) -> str:
        """One ends, or those that did begin again: a submit needs them all."""
        ended = [host for host in self.hosts if not host.listens]
        for host in ended:
            host.mend()
            host.start()
        if not ended:
            self.random.choice(self.hosts).stop()
        return f"{len(ended)} again"

    def link(self) -> str:
        cut = [host for host in self.hosts if host.is_cut]
        for host in cut:
            host.mend()
        if not cut:
            self.random.choice(self.hosts).cut()
        return f"{len(cut)} mended"

    def reboot(self) -> None:
        self.random.choice(self.hosts).reboot()

    def pause(self) -> None:
        time.sleep(self.random.uniform(0, 4))

    def calm(self) -> None:
        """Every link and every sshd is there again, and no verb is at work."""
        for host in self.hosts:
            host.mend()
            if not host.listens:
                host.start()
        for verb in self.verbs:
            verb.kill()
            verb.wait()


def marked(pid: int) -> bool:
    try:
        return b"KUIPER_RUN=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True


def cmdline(pid: int) -> str:
    """'' once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_stop_finds_everything(network: Lab, tmp_path: Path) -> None:
    storm = Storm(Lab(network.folder, network.hosts[:4]), tmp_path, int(SEED))
    assert manager("submit", str(storm.specs["first"])).returncode == 0
    ends = time.monotonic() + float(SECONDS or 60)
    while time.monotonic() < ends:
        storm.happen()
    storm.calm()
    runs = [job["run_id"] for job in json.loads(manager("list", "--json", "-n", "1000").stdout)]
    for run in runs:
        stopped = manager("stop", run, "--grace", "1")
        assert stopped.returncode == 0, (run, stopped.stderr, storm.done)
    left = [cmdline(pid) for host in network.hosts for pid in host.processes]
    assert not left, (left, storm.done)
    print(f"{len(storm.done)} events, {len(runs)} runs:", *storm.done, sep="\n")
