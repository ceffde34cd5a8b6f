"""Links that are cut, for a while and for good: what the mesh makes of it, and what one sees over ssh."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from kuiper.link.handshake import SILENCE_SECONDS
from tests.cluster.jobs import LONG, spec, status, step, submit, there
from tests.cluster.lab import Lab
from tests.cluster.namespaces import NamespaceHost
from tests.integration.jobs import ROOT, events, follow, manager, trajectory, write_spec
from tests.integration.test_faults import wait_for

pytestmark = pytest.mark.cluster
ROBUST = {"model": "softmax", "algorithm": "parameter_server", "aggregator": "multi_krum", "num_workers": 8,
         "num_byzantine": 2, "f": 2, "attack": "alie", "steps": 1000, "eval_interval": 500, "batch_size": 16}
BOUND = 3 * SILENCE_SECONDS
"""Twice what the silence takes to be noticed, and the time that a process needs to end."""


def processes(name: str) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for process in status(name)["processes"]}


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> dict[str, Any] | str:
    """MNIST where it is, else scikit-learn's digits."""
    try:
        return {"mnist": {"root": str(request.getfixturevalue("data_root"))}}
    except pytest.skip.Exception:
        return "digits"


def test_a_day_in_the_life_of_a_job(network: Lab, tmp_path: Path, dataset: dict[str, Any] | str) -> None:
    """Its submitter is killed, a link is cut for 10 s, an sshd is ended: it has the bits of a simulation."""
    conf = {**ROBUST, "dataset": dataset}
    simulated = follow(write_spec(tmp_path, "simulated", conf, 0), "--simulate")
    words = [sys.executable, str(ROOT / "manager.py")]
    follower = subprocess.Popen([*words, "submit", str(spec(network, tmp_path, "day", conf)), "-f"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: manager("status", "day").returncode == 0 and step("day") > 5)
    complaints = tmp_path / "complaints"
    logs = subprocess.Popen([*words, "logs", "day", "-f"], text=True,
                            stdout=subprocess.PIPE, stderr=complaints.open("w"))
    follower.send_signal(signal.SIGKILL)
    follower.wait()
    network.hosts[3].stop()
    network.hosts[2].cut()
    time.sleep(10)  # what is promised
    network.hosts[2].mend()
    seen = status("day")
    assert seen["state"] in ("RUNNING", "SUCCEEDED") and not seen["processes"][3]["reached"]
    unreached = f"{network.hosts[3].address} port 22: it cannot be reached: "
    wait_for(lambda: unreached in complaints.read_text())  # it may have waited for the cut link first
    network.hosts[3].start()
    assert manager("wait", "day", timeout=200).returncode == 0
    collected = manager("collect", "day")
    assert collected.returncode == 0, collected.stderr
    run_dir = status("day")["run_dir"]
    assert trajectory(run_dir) == trajectory(simulated["run_dir"])
    assert not events(run_dir, "gone") and not events(run_dir, "late")
    said, _ = logs.communicate(timeout=60)
    assert logs.returncode == 0 and said.count("training begins") == 5


def test_what_one_sees_over_a_link_that_is_cut(network: Lab, tmp_path: Path) -> None:
    lost = network.hosts[3]
    submit(spec(network, tmp_path, "cut", {**LONG, "num_workers": 8}))
    wait_for(lambda: step("cut") > 5)
    lost.cut()
    words = [sys.executable, str(ROOT / "manager.py")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    asked = {verb: subprocess.Popen([*words, verb, "cut"], **pipes) for verb in ("status", "logs", "collect")}
    for verb, one in asked.items():
        said, _ = one.communicate(timeout=60)
        assert one.returncode == 104 and f"{lost.address} port 22: it cannot be reached" in said, verb
    stopped = manager("stop", "cut")
    assert stopped.returncode == 104 and lost.address in stopped.stderr
    wait_for(lambda: not any(host.processes for host in network.hosts if host is not lost), 60)
    wait_for(lambda: not lost.processes, BOUND)
    lost.mend()
    for verb in ("status", "stop", "logs", "collect"):
        assert manager(verb, "cut").returncode == 0, verb
    assert processes("cut")["worker_3"]["state"] in ("FAILED", "STOPPED")


def test_a_link_that_is_cut_for_good(network: Lab, tmp_path: Path) -> None:
    """Who tolerates it goes on, who does not ends and says why; and nothing stays behind the cut for long."""
    lab = Lab(network.folder, network.hosts[:4])
    server, _, other, lost = lab.hosts
    common = {key: value for key, value in LONG.items() if key not in ("f", "aggregator")}
    jobs = {name: submit(spec(lab, tmp_path, name, {**common, **conf, "num_workers": 3}, **more))
            for name, conf, more in (
                ("robust", {"aggregator": "average", "f": 1}, {}),
                ("gossip", {"algorithm": "elastic_gossip"}, {}),
                ("all", {"algorithm": "all_reduce"}, {}),
                ("again", {}, {"on_failure": {"retry": 1}}))}

    def recorded(name: str, kind: str) -> list[dict[str, Any]]:
        folder = there(server, jobs[name], "")
        return events(folder, kind) if (folder / "ps" / "metrics.jsonl").exists() else []

    def goes_on(name: str) -> None:
        before = len(recorded(name, "step"))
        wait_for(lambda: len(recorded(name, "step")) > before + 10, BOUND)

    def runs(name: str, host: NamespaceHost) -> bool:
        return any(who["pid"] in host.processes for who in agent.marked(KUIPER_RUN=jobs[name]["run_id"]))

    for name in jobs:
        goes_on(name)
    lost.cut()
    for name in ("robust", "gossip", "all"):
        wait_for(lambda name=name: not runs(name, lost), BOUND)
    wait_for(lambda: not runs("all", server))
    lost.mend()
    for name in ("robust", "gossip", "again"):
        goes_on(name)
    assert [step["rows"] for step in recorded("robust", "step")[-1:]] == [2]
    assert [event["nodes"] for event in recorded("again", "joined")] == [[2]]
    seen = {name: status(name) for name in jobs}
    assert [seen[name]["state"] for name in jobs] == ["RUNNING", "RUNNING", "FAILED", "RUNNING"]
    assert "worker_3 was silent for 30 s" in seen["all"]["reason"]
    for name in ("robust", "gossip", "all"):
        worker = seen[name]["processes"][3]
        assert worker["state"] == "FAILED" and "it was silent for 30 s: its host" in worker["reason"]

    other.cut()
    wait_for(lambda: not runs("robust", server), BOUND)
    wait_for(lambda: not runs("robust", other), BOUND)
    other.mend()
    assert "1 of 3 senders are alive, 2 are needed; worker_2 was silent" in status("robust")["reason"]
    for name in jobs:
        assert manager("stop", name).returncode == 0
