"""For jobs on very many hosts: processes that cost nothing, and a count of the connections to the hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kuiper.cluster import launch
from kuiper.cluster.plan import Process
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.spec import load
from kuiper.cluster.store import Job
from tests.cluster.lab import Lab

IDLE, DEAF = "idle", "deaf"
ESTABLISHED = "01"
# Run directory, rank, what to do, the server's host: rank 0 says where it listens, and then nothing more.
PROCESS = """
import json, os, signal, socket, sys, time
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2] == "0":
    listener = socket.socket(fileno=int(os.environ["KUIPER_LISTENER"]))
    path = sys.argv[1] + "/ps/endpoint.json"
    with open(path + ".tmp", "w") as file:
        json.dump({"host": sys.argv[4], "port": listener.getsockname()[1]}, file)
    os.rename(path + ".tmp", path)
time.sleep(600)
"""


def write_spec(lab: Lab, name: str, hosts: int, **more: Any) -> Path:
    """A spec for the first hosts of a lab, a worker process on each but the first."""
    conf = {"algorithm": "parameter_server", "num_workers": hosts - 1, "model": "softmax",
            "dataset": "digits", "steps": 1_000_000, "eval_interval": 1_000_000}
    path, some = lab.folder / f"{name}.yml", Lab(lab.folder, lab.hosts[:hosts])
    spec = some.spec(name, log_path=str(lab.folder / "logs"), job_conf=conf, **more)
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def submit_idle(path: Path, does: str = IDLE, say: Say = silent) -> Job:
    """Submit a spec, with processes that do nothing; `does` is IDLE, or DEAF: they ignore SIGTERM, too."""
    from kuiper.config.compose import compose

    spec = load(path)

    def argv(process: Process, run_dir: Path) -> list[str]:
        return [process.python, "-c", PROCESS, str(run_dir), str(process.rank), does, spec.ps_ip[0].host]

    [job] = launch.launch(spec, lambda one, run_id: compose(one, False, run_id), say, argv)
    return job


@contextmanager
def counted(lab: Lab) -> Iterator[Callable[[], int]]:
    """The most connections to a lab's hosts that were up at once, by the sockets of their sshds.

    /proc/net/tcp is no snapshot, but what two readings of it have in common was there between them.
    """
    ports = {host.port for host in lab.hosts}
    most, over = 0, threading.Event()

    def up() -> set[tuple[str, str]]:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return {(row[1], row[2]) for row in rows
                if row[3] == ESTABLISHED and int(row[1].rpartition(":")[2], 16) in ports}

    def count() -> None:
        nonlocal most
        before = up()
        while not over.wait(0.005):
            now = up()
            most, before = max(most, len(before & now)), now

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield lambda: most
    finally:
        over.set()
        thread.join()
