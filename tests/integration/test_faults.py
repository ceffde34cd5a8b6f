"""Real jobs that lose processes: up to f are survived, more is a clear failure, nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from tests.integration.jobs import ROOT, events, manager, only, write_spec

LONG = {"dataset": "digits", "model": "softmax", "algorithm": "parameter_server", "aggregator": "median",
        "num_workers": 4, "f": 1, "steps": 100_000, "eval_interval": 1000, "batch_size": 8}


def start(spec: Path) -> dict[str, Any]:
    """Submit detached, and wait until it trains."""
    submitted = manager("submit", str(spec), "--json")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    job = only(submitted)
    wait_for(lambda: at_step(job) > 20)
    return job


def at_step(job: dict[str, Any]) -> int:
    metrics = Path(job["run_dir"]) / "ps" / "metrics.jsonl"
    return len(events(job["run_dir"], "step")) if metrics.exists() else 0


def wait_for(condition: Any, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def kill(job: dict[str, Any], process: str, number: int = signal.SIGKILL) -> None:
    proc = json.loads((Path(job["run_dir"]) / process / "proc.json").read_text())
    os.kill(proc["pid"], number)


def status(job: dict[str, Any]) -> dict[str, Any]:
    return only(manager("status", job["run_id"], "--json"))


def test_up_to_f_are_survived_and_more_is_a_failure(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "faults", LONG, 4))
    kill(job, "worker_2")
    wait_for(lambda: events(job["run_dir"], "gone"))
    assert events(job["run_dir"], "gone")[0]["nodes"] == [1]
    before = at_step(job)
    wait_for(lambda: at_step(job) > before + 50)
    assert events(job["run_dir"], "step")[-1]["rows"] == 3
    seen = status(job)
    assert seen["state"] == "RUNNING"
    assert {p["name"]: p["state"] for p in seen["processes"]}["worker_2"] == "FAILED"

    kill(job, "worker_4")
    began = time.monotonic()
    wait_for(lambda: status(job)["state"] == "FAILED", 20)
    assert time.monotonic() - began < 15
    seen = status(job)
    assert "2 of 4 senders are alive, 3 are needed" in seen["reason"] and seen["exit_code"] == 100
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 20)
    assert (Path(job["run_dir"]) / "ps" / "training_perf").exists()
    seen = status(job)  # those that end because the server failed have not succeeded, nor were they the first to fail
    assert {process["state"] for process in seen["processes"]} == {"FAILED"}
    assert "the server is gone: it ended with an error" in seen["processes"][1]["reason"]
    assert "; first, worker_2: signal 9" in seen["reason"]


def test_the_trusted_worker_is_not_replaced_by_another(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "trusted", {**LONG, "aggregator": "monna", "f": 1}, 4))
    kill(job, "worker_1")
    wait_for(lambda: status(job)["state"] == "FAILED", 30)
    assert "trusts row 0, that of node 0, and there is none of nodes [0]" in status(job)["reason"]


def test_a_worker_that_stops_reading_and_writing_costs_only_its_rows(tmp_path: Path) -> None:
    """Stopped at odd moments, often inside a row of 4.5 MB; the hub's socket to it is full after a step."""
    conf = {**LONG, "model": {"mlp": {"hidden": [1024, 1024]}}, "aggregator": "average", "num_workers": 3,
            "quorum": 2}
    job = start(write_spec(tmp_path, "large", conf, 3))
    server = json.loads((Path(job["run_dir"]) / "ps" / "proc.json").read_text())["pid"]

    def memory() -> int:
        resident = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{server}/status").read_text(), re.MULTILINE)
        return int(resident[1]) >> 10

    def goes_on(steps: int) -> None:
        before = at_step(job)
        wait_for(lambda: at_step(job) > before + steps)

    for moment in range(3):
        kill(job, "worker_3", signal.SIGSTOP)
        goes_on(3)
        kill(job, "worker_3", signal.SIGCONT)
        goes_on(2)
        time.sleep(0.037 * moment)
    kill(job, "worker_3", signal.SIGSTOP)
    goes_on(5)
    before = memory()
    goes_on(25)
    assert memory() < before + 20, "MB: two models' worth of noise, of the 110 that were sent"
    assert not events(job["run_dir"], "gone")
    kill(job, "worker_3", signal.SIGCONT)
    asked = len(events(job["run_dir"], "step", "worker_3"))
    wait_for(lambda: len(events(job["run_dir"], "step", "worker_3")) > asked + 3)
    assert manager("stop", "large").returncode == 0


def test_a_worker_killed_while_it_starts_is_survived(tmp_path: Path) -> None:
    """It is not waited for until join_timeout is over: its agent has said how it ended."""
    conf = {**LONG, "steps": 20, "join_timeout": "1h"}
    path = write_spec(tmp_path, "startup", conf, 4)
    submit = subprocess.Popen([sys.executable, str(ROOT / "manager.py"), "submit", str(path), "--follow", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "logs" / "startup"
    wait_for(lambda: list(folder.glob("*/worker_3/proc.json")))
    kill({"run_dir": next(folder.iterdir())}, "worker_3")
    said, complaint = submit.communicate(timeout=90)
    assert submit.returncode == 0, complaint
    [job] = json.loads(said)
    [gone] = events(job["run_dir"], "gone")
    assert job["state"] == "SUCCEEDED" and (gone["rank"], gone["reason"]) == (3, "ended by signal 9")
    assert {step["rows"] for step in events(job["run_dir"], "step")} == {3}


def test_a_dead_server_ends_the_job(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "server", LONG, 2))
    kill(job, "ps")
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 20)
    seen = status(job)
    assert seen["state"] == "FAILED" and "9" in seen["reason"]
    error = json.loads((Path(job["run_dir"]) / "worker_1" / "error.json").read_text())
    assert "server is gone" in error["message"]


def test_tolerate_is_stricter_than_the_rule(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "strict", LONG, 4, on_failure="stop_all"))
    kill(job, "worker_3")
    wait_for(lambda: status(job)["state"] == "FAILED", 20)
    assert "on_failure tolerates 0" in status(job)["reason"]
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 20)


@pytest.mark.parametrize("algorithm", ["parameter_server", "elastic_gossip"])
def test_stop_leaves_nothing(algorithm: str, tmp_path: Path) -> None:
    conf = {**LONG, "algorithm": algorithm}
    if algorithm != "parameter_server":
        del conf["aggregator"], conf["f"]
    job = start(write_spec(tmp_path, "stopped", conf, 3))
    assert agent.marked(KUIPER_RUN=job["run_id"])
    stopped = manager("stop", "stopped", "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert only(stopped)["state"] == "STOPPED"
    assert not agent.marked(KUIPER_RUN=job["run_id"])
    assert manager("stop", "stopped").returncode == 0
    assert manager("wait", job["run_id"]).returncode == 103
