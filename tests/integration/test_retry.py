"""Workers that come back and workers that are slow: they cost their own rows, while they are away."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.jobs import events, manager, write_spec
from tests.integration.test_faults import at_step, kill, start, status, wait_for

LONG = {"dataset": "digits", "model": "softmax", "algorithm": {"parameter_server": {"worker_momentum": 0.5}},
        "num_workers": 3, "f": 1, "steps": 100_000, "eval_interval": 1000, "batch_size": 8}


def pause(job: dict[str, Any], process: str, number: signal.Signals) -> None:
    proc = json.loads((Path(job["run_dir"]) / process / "proc.json").read_text())
    os.kill(proc["pid"], number)


def goes_on(job: dict[str, Any], steps: int = 30) -> None:
    before = at_step(job)
    wait_for(lambda: at_step(job) > before + steps)


def test_a_restarted_worker_joins_again_at_the_next_step(tmp_path: Path) -> None:
    conf = {**LONG, "aggregator": "average", "checkpoint_interval": 1000}
    job = start(write_spec(tmp_path, "again", conf, 3, on_failure={"retry": 1}))
    run_dir = job["run_dir"]
    kill(job, "worker_2")
    wait_for(lambda: events(run_dir, "joined"))
    goes_on(job)
    [gone], [joined] = events(run_dir, "gone"), events(run_dir, "joined")
    assert gone["nodes"] == joined["nodes"] == [1] and joined["attempt"] == 1
    rows = {event["step"]: event["rows"] for event in events(run_dir, "step")}
    assert rows[joined["step"] - 1] == 2 and rows[joined["step"]] == 3 and rows[max(rows)] == 3
    assert '"msg": "joined: ' in (Path(run_dir) / "ps" / "log").read_text()
    back = [event["step"] for event in events(run_dir, "step", "worker_2") if event["step"] >= joined["step"]]
    assert back[0] == joined["step"]
    assert {p["name"]: p["state"] for p in status(job)["processes"]}["worker_2"] == "RUNNING"

    kill(job, "worker_2")  # once more than it is started again
    wait_for(lambda: {p["name"]: p["state"] for p in status(job)["processes"]}["worker_2"] == "FAILED")
    goes_on(job)
    assert len(events(run_dir, "joined")) == 1 and events(run_dir, "step")[-1]["rows"] == 2
    began = time.monotonic()
    kill(job, "ps")  # a dead server is final: no worker is started again to look for it
    wait_for(lambda: not status(job)["state"] == "RUNNING")
    assert json.loads((Path(run_dir) / "worker_1" / "exit.json").read_text())["attempts"] == 1
    assert time.monotonic() - began < 10 and status(job)["state"] == "FAILED"


def test_a_worker_that_every_step_needs_is_waited_for(tmp_path: Path) -> None:
    conf = {key: value for key, value in LONG.items() if key != "f"}
    job = start(write_spec(tmp_path, "all", conf, 3, on_failure={"retry": 1}))
    run_dir = job["run_dir"]
    kill(job, "worker_2")
    wait_for(lambda: events(run_dir, "joined"))
    goes_on(job)
    assert {event["rows"] for event in events(run_dir, "step")} == {3}
    began = time.monotonic()
    kill(job, "worker_2")  # once more than it is started again: there is nothing to wait for
    wait_for(lambda: status(job)["state"] == "FAILED")
    assert time.monotonic() - began < 10 and "2 of 3 senders are alive" in status(job)["reason"]


def test_peers_cannot_join_again(tmp_path: Path) -> None:
    conf = {**LONG, "algorithm": "elastic_gossip"}
    del conf["f"]
    spec = write_spec(tmp_path, "peers", conf, 2, on_failure={"retry": 1})
    refused = manager("check", str(spec))
    assert refused.returncode == 3 and "peers cannot join again" in refused.stdout + refused.stderr
    assert manager("check", str(spec), "--simulate").returncode == 0


@pytest.mark.parametrize("rule", [{"quorum": 2}, {"deadline": 0.3}])
def test_a_worker_that_is_stopped_for_a_while(rule: dict[str, Any], tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "slow", {**LONG, "aggregator": "average", **rule}, 3))
    run_dir = job["run_dir"]
    pause(job, "worker_3", signal.SIGSTOP)
    time.sleep(0.5)
    stopped, left = at_step(job), len(events(run_dir, "step", "worker_3"))
    goes_on(job, 5 if "deadline" in rule else 300)
    away = events(run_dir, "step")[stopped + 1 :]
    assert all((event["rows"], event["late"]) == (2, 1) for event in away)
    pause(job, "worker_3", signal.SIGCONT)
    wait_for(lambda: len(events(run_dir, "step", "worker_3")) > left + 20)
    done = [event["step"] for event in events(run_dir, "step", "worker_3")]
    gaps = [later - step for step, later in zip(done, done[1:], strict=False)]
    assert max(gaps) > 1  # what it was too late for
    assert not events(run_dir, "gone") and status(job)["state"] == "RUNNING"
    if "deadline" in rule:
        steps = {event["step"] for event in away}
        late = [event for event in events(run_dir, "late") if event["step"] in steps]
        assert len(late) == len(away) and all((e["nodes"], e["deadline"]) == ([2], 0.3) for e in late)
        assert "nodes [2], deadline 0.3" in (Path(run_dir) / "ps" / "log").read_text()
        wait_for(lambda: events(run_dir, "step")[-1]["rows"] == 3)
    assert manager("stop", "slow").returncode == 0
