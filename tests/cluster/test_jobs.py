"""Jobs over ssh, as a user runs them: `manager.py` in a process of its own, real training, real faults."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kuiper.cluster import agent
from tests.cluster.jobs import (
    LONG,
    goes_on,
    nothing_left,
    spec,
    status,
    step,
    submit,
    there,
)
from tests.cluster.lab import Lab
from tests.integration.jobs import ROOT, events, follow, manager, trajectory, write_spec
from tests.integration.test_faults import wait_for
from tests.integration.test_parity import COMMON, FAMILIES

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("family", ["parameter_server", "elastic_gossip", "fedavg"])
def test_hosts_change_no_bit(family: str, lab: Lab, tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES[family]}
    simulated = follow(write_spec(tmp_path, "simulated", conf, 0), "--simulate")
    over = submit(spec(lab, tmp_path, "over", conf))
    assert manager("wait", "over").returncode == 0
    collected = manager("collect", "over")
    assert collected.returncode == 0, collected.stderr
    assert trajectory(over["run_dir"]) == trajectory(simulated["run_dir"])
    assert manager("plot", "over", "-o", str(tmp_path / "plot.png")).returncode == 0
    assert "environment.json" in os.listdir(over["run_dir"])
    again = json.loads(manager("collect", "over", "--json").stdout)
    assert sum(one["bytes"] for one in again) == 0


def test_the_job_needs_its_submitter_no_more(lab: Lab, tmp_path: Path) -> None:
    path = spec(lab, tmp_path, "alone", LONG)
    follower = subprocess.Popen([sys.executable, str(ROOT / "manager.py"), "submit", str(path), "--follow", "-q"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: manager("status", "alone").returncode == 0 and status("alone")["state"] == "RUNNING")
    follower.send_signal(signal.SIGKILL)
    follower.wait()
    for host in lab.hosts:
        host.drop_connections()
    goes_on("alone")
    seen = status("alone")
    assert {process["state"] for process in seen["processes"]} == {"RUNNING"}
    assert [process["host"] for process in seen["processes"]] == [host.address for host in lab.hosts]
    logs = manager("logs", "alone")
    assert {line.split()[0] for line in logs.stdout.splitlines()} == {"ps", "worker_1", "worker_2", "worker_3"}
    stopped = manager("stop", "alone")
    assert stopped.returncode == 0 and "no process of it is left" in stopped.stdout
    nothing_left(seen)
    collected = manager("collect", "alone")
    assert collected.returncode == 0 and events(seen["run_dir"], "step")


def test_a_host_that_cannot_be_reached_is_named_and_stopped_later(lab: Lab, tmp_path: Path) -> None:
    job = submit(spec(lab, tmp_path, "down", LONG))
    wait_for(lambda: step("down") > 5)
    lab.hosts[2].stop()
    goes_on("down")
    seen = status("down")
    worker = seen["processes"][2]
    assert seen["state"] == "RUNNING" and not worker["reached"] and worker["state"] == "RUNNING"
    assert "cannot be reached" in worker["reason"]
    waited = manager("wait", "down", "--timeout", "3")
    assert waited.returncode == 101 and waited.stderr.count("cannot be reached") == 1
    stopped = manager("stop", "down")
    assert stopped.returncode == 104 and f"{lab.hosts[2].address} port" in stopped.stderr
    partly = manager("collect", "down")
    assert partly.returncode == 104 and lab.hosts[2].address in partly.stderr
    assert (Path(job["run_dir"]) / "ps" / "metrics.jsonl").exists()
    lab.hosts[2].start()
    assert manager("stop", "down").returncode == 0
    assert manager("collect", "down").returncode == 0
    nothing_left(job)


def test_a_dead_server_is_resumed(lab: Lab, tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES["fedavg"], "checkpoint_interval": 2, "rounds": 600, "eval_interval": 200}
    whole = follow(write_spec(tmp_path, "whole", conf, 0), "--simulate")["run_dir"]
    path = spec(lab, tmp_path, "server", conf, setup_commands=["sleep 0.1"])
    job = submit(path)
    wait_for(lambda: step("server") > 4)
    os.kill(json.loads((there(lab.hosts[0], job, "ps") / "proc.json").read_text())["pid"], signal.SIGKILL)
    assert manager("wait", "server").returncode == 100
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]))
    resumed = manager("resume", "server")
    assert resumed.returncode == 0, resumed.stderr
    assert manager("wait", "server").returncode == 0 and manager("collect", "server").returncode == 0
    assert len(events(job["run_dir"], "resumed")) == 1
    assert trajectory(job["run_dir"]) == trajectory(whole)


def test_seeds_take_turns_on_every_host(lab: Lab, tmp_path: Path) -> None:
    """The submitter has done its part once all are queued; each seed runs as by itself, bit for bit."""
    conf = {**COMMON, **FAMILIES["parameter_server"], "seed": [1, 2]}
    jobs = submit(spec(lab, tmp_path, "turns", conf))
    assert [job["job_name"] for job in jobs] == ["turns-seed1", "turns-seed2"]
    assert manager("wait", "turns").returncode == 0 and manager("collect", "turns").returncode == 0
    simulated = json.loads(manager("submit", str(write_spec(tmp_path, "simulated", conf, 0)), "--simulate",
                                   "--follow", "--json").stdout)
    for job, alone in zip(jobs, simulated, strict=True):
        assert trajectory(job["run_dir"]) == trajectory(alone["run_dir"])
    for host in lab.hosts[1:]:
        ends = [next(there(host, job, "").glob("worker_*/exit.json")) for job in jobs]
        first, second = (json.loads(path.read_text()) for path in ends)
        assert second["started"] >= first["ended"]


def test_a_worker_whose_turn_comes_early_waits_for_its_server(lab: Lab, tmp_path: Path) -> None:
    """On one host the first seed has failed, and is tolerated: there the second begins before elsewhere."""
    wait = 20
    conf = {**LONG, "aggregator": "average", "seed": [1, 2], "join_timeout": wait}
    first, second = submit(spec(lab, tmp_path, "early", conf))
    wait_for(lambda: step("early-seed1") > 5)
    folder = there(lab.hosts[1], first, "worker_1")
    agent.send(json.loads((folder / "proc.json").read_text()), signal.SIGKILL)
    wait_for(lambda: status("early-seed2")["processes"][1]["state"] == "RUNNING")
    time.sleep(wait + 5)  # longer than it would wait for a server that has had its turn
    seen = status("early-seed2")
    assert seen["state"] == "QUEUED" and status("early-seed1")["state"] == "RUNNING"
    assert [one["state"] for one in seen["processes"]] == ["QUEUED", "RUNNING", "QUEUED", "QUEUED"]
    assert manager("stop", "early-seed1").returncode == 0
    wait_for(lambda: step("early-seed2") > 5)
    assert manager("stop", "early").returncode == 0 and manager("collect", "early-seed2").returncode == 0
    assert [one["rows"] for one in events(second["run_dir"], "step")[:5]] == [6] * 5  # later ones see the stop
    for job in (first, second):
        nothing_left(job)


def test_a_rebooted_host(lab: Lab, tmp_path: Path) -> None:
    """Its processes are gone and its boot id is another: nothing is signalled there, and it is LOST."""
    job = submit(spec(lab, tmp_path, "reboot", {**LONG, "f": 0, "aggregator": "average"}))
    wait_for(lambda: step("reboot") > 5)
    folder = there(lab.hosts[1], job, "worker_1")
    sleeper = subprocess.Popen(["sleep", "300"])  # has the pid of one of ours from before the reboot
    for name in ("agent.lock", "proc.json"):
        who = json.loads((folder / name).read_text())
        agent.send(who, signal.SIGKILL)
        (folder / name).write_text(json.dumps({**who, "pid": sleeper.pid, "boot_id": "another"}))
    wait_for(lambda: status("reboot")["state"] == "FAILED")
    worker = status("reboot")["processes"][1]
    assert (worker["state"], worker["reason"]) == ("LOST", "the host was rebooted")
    assert manager("stop", "reboot").returncode == 0
    assert sleeper.poll() is None
    sleeper.kill()
    nothing_left(job)


def test_a_process_that_cannot_start_rolls_all_back(lab: Lab, tmp_path: Path) -> None:
    path = spec(lab, tmp_path, "broken", LONG, setup_commands=["test $KUIPER_PROCESS != worker_2"])
    done = manager("submit", str(path))
    assert done.returncode == 100 and f"worker_2 on {lab.hosts[2].address}" in done.stderr
    assert "setup command failed" in done.stderr
    nothing_left(status("broken"))


def test_what_a_setup_command_left_behind_is_swept(lab: Lab, tmp_path: Path) -> None:
    path = spec(lab, tmp_path, "sessions", LONG, setup_commands=["setsid -f sleep 987"])
    job = submit(path)
    assert len([who for who in agent.marked(KUIPER_RUN=job["run_id"])]) > 8
    assert manager("stop", "sessions", "--grace", "1").returncode == 0
    nothing_left(job)


def test_of_two_submits_at_once_one_wins(lab: Lab, tmp_path: Path) -> None:
    path = spec(lab, tmp_path, "twice", LONG)
    words = [sys.executable, str(ROOT / "manager.py"), "submit", str(path), "--json"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=100) for one in both]
    assert sorted(one.returncode for one in both) == [0, 5], said
    assert manager("stop", "twice").returncode == 0


def test_a_line_per_host(lab: Lab, tmp_path: Path) -> None:
    """On a terminal each is updated in place; elsewhere every step is a line."""
    path = spec(lab, tmp_path, "lines", LONG)
    master, slave = pty.openpty()
    words = [sys.executable, str(ROOT / "manager.py"), "submit", str(path)]
    submitting = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while data := os.read(master, 65536):
            said += data
    os.close(master)
    assert submitting.wait() == 0
    assert all(said.count(host.address.encode()) > 1 for host in lab.hosts)  # drawn again and again
    last = said.decode().rpartition("staged")[2]
    assert all(re.search(rf"\d s  {host.address} +RUNNING \(1\)", last) for host in lab.hosts), last
    manager("stop", "lines")
    plain = manager("submit", str(path)).stderr
    for host in lab.hosts:
        steps = re.findall(rf"\d s  {host.address}: (\w+)", plain)
        assert [step for step in steps if not step.startswith(("ps", "worker"))] == [
            "reached", "python", "code", "staged", "RUNNING"], plain
    manager("stop", "lines")


def test_code_is_sent_once(lab: Lab, tmp_path: Path) -> None:
    def bytes_to(name: str) -> int:
        before = sum(sent.values()) if (sent := wrote()) else 0
        submit(spec(lab, tmp_path, name, {**LONG, "steps": 5}))
        manager("wait", name)
        return sum(wrote().values()) - before

    def wrote() -> dict[str, int]:
        files = [path for host in lab.hosts for path in Path(host.home, "kuiper").rglob("*") if path.is_file()]
        return {str(path): path.stat().st_size for path in files if "code" in path.parts or "agents" in path.parts}

    bytes_to("first")
    assert bytes_to("second") == 0


def test_secrets_stay_secret(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "it's $(secret); \"x\"")
    path = spec(lab, tmp_path, "secret", {**LONG, "steps": 3}, secrets=["API_KEY"],
                setup_commands=['printf %s "$API_KEY" | sha256sum'])
    job = submit(path, "-v")
    manager("wait", "secret")
    expected = subprocess.run(["sha256sum"], input=os.environ["API_KEY"], text=True, capture_output=True).stdout
    assert expected.split()[0] in (there(lab.hosts[1], job, "worker_1") / "log").read_text()
    homes = [path for host in lab.hosts for path in Path(host.home).rglob("*") if path.is_file()]
    assert not any(b"$(secret)" in path.read_bytes() for path in [*homes, *Path(job["run_dir"]).rglob("*.json")])


def test_a_host_with_other_files_is_named(lab: Lab, tmp_path: Path) -> None:
    """The same path in each host's own home; the files differ in the test set only."""
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((60, 4)), "y_train": np.arange(60) % 2, "x_test": rng.random((20, 4)),
              "y_test": np.arange(20) % 2}
    for host in lab.hosts:
        np.savez(Path(host.home, "held.npz"), **arrays)
    odd = lab.hosts[2]
    np.savez(Path(odd.home, "held.npz"), **arrays | {"x_test": arrays["x_test"] + 1})
    conf = {"algorithm": "parameter_server", "num_workers": 6, "model": "softmax", "steps": 5,
            "dataset": {"npz": {"path": "~/held.npz"}}}
    path = spec(lab, tmp_path, "files", conf)
    asked = json.loads(manager("doctor", str(path), "--json").stdout)
    assert [one["host"] for one in asked if (one["subject"], one["verdict"]) == ("dataset", "wrong")] == [odd.address]
    assert not any("survey-" in one["detail"] for one in asked)  # of the other hosts, here on one machine
    done = manager("submit", str(path), "--follow")
    assert done.returncode == 100 and f"on {odd.address} holds other data: the test set is" in done.stdout + done.stderr
    assert manager("submit", str(path), "--follow", "-o", "allow_different_data=true").returncode == 0
    for host in lab.hosts:
        Path(host.home, "held.npz").unlink()


def test_a_worker_killed_before_it_joins_is_not_waited_for(lab: Lab, tmp_path: Path) -> None:
    """Its agent, on another host than the server, has that told."""
    gate = tmp_path / "gate"
    hold = f"test $KUIPER_PROCESS != worker_2 || until test -e {gate}; do sleep 0.1; done"
    conf = {**LONG, "num_workers": 7, "steps": 20, "join_timeout": "1h"}
    path = spec(lab, tmp_path, "killed", conf, setup_commands=[hold])
    job = submit(path)
    folder = there(lab.hosts[2], job, "worker_2")
    os.kill(json.loads((folder / "proc.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: (folder / "exit.json").exists())
    gate.touch()  # for the one that tells it
    assert manager("wait", "killed", timeout=200).returncode == 0
    seen = status("killed")
    assert [process["state"] for process in seen["processes"]] == ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED"]
    [gone] = events(there(lab.hosts[0], job, ""), "gone")
    assert gone["rank"] == 2 and "did not join" not in gone["reason"]
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]))


def test_a_worker_without_its_data_is_not_waited_for(lab: Lab, tmp_path: Path) -> None:
    """Although others may be started again: starting it again would be pointless."""
    for host in lab.hosts[:3]:
        np.savez(Path(host.home, "most.npz"), x_train=np.eye(12), y_train=np.arange(12) % 2, x_test=np.eye(12),
                 y_test=np.arange(12) % 2)
    conf = {"algorithm": "parameter_server", "num_workers": 6, "model": "softmax", "steps": 5, "batch_size": 2,
            "join_timeout": "1h", "dataset": {"npz": {"path": "~/most.npz"}}}
    done = manager("submit", str(spec(lab, tmp_path, "most", conf, on_failure={"retry": 2})), "--follow", timeout=60)
    assert done.returncode == 100 and "worker_3: exit code 3: SpecError: dataset.path: " in done.stdout, done.stderr
