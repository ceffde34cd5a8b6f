"""A simulation on several cores: the same bits, and no process outlives it or is waited for in vain."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from tests.integration.jobs import events, follow, manager, only, trajectory, write_spec
from tests.integration.test_faults import at_step, start, status, wait_for
from tests.integration.test_parity import COMMON, FAMILIES

LONG = {"dataset": "digits", "model": "mlp", "algorithm": "parameter_server", "num_workers": 6, "steps": 100_000,
        "eval_interval": 1000, "batch_size": 8, "pool": 2}


@pytest.mark.parametrize("family", ["adam_trimmed_mean_alie", "gossiping_sgd", "fedavg"])
def test_a_pool_changes_no_bit(family: str, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "a", {**COMMON, **FAMILIES[family]}, 0)
    alone, pooled = (follow(spec, "--simulate", "-o", f"pool={count}")["run_dir"] for count in ("null", 2))
    assert trajectory(pooled) == trajectory(alone)


def test_nor_does_it_with_the_batched_engine(tmp_path: Path) -> None:
    """Not promised on every processor, and so on those where this was run."""
    conf = {**COMMON, **FAMILIES["fedavg"], "model": "mlp", "engine": "batched"}
    spec = write_spec(tmp_path, "a", conf, 0)
    alone, pooled = (follow(spec, "--simulate", "-o", f"pool={count}")["run_dir"] for count in ("null", 3))
    assert trajectory(pooled) == trajectory(alone)


def members(job: dict[str, Any]) -> list[int]:
    """Pids of a job's pool processes."""
    found = [who["pid"] for who in agent.marked(KUIPER_RUN=job["run_id"])]
    return [pid for pid in found if b"kuiper.pool" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_pool_process_that_dies_fails_the_job(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "dies", LONG, 0, mode="simulate"))
    assert len(members(job)) == 2
    os.kill(members(job)[1], signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: (Path(job["run_dir"]) / "ps" / "error.json").exists(), 10)
    assert time.monotonic() - began < 2
    assert "has died" in json.loads((Path(job["run_dir"]) / "ps" / "error.json").read_text())["message"]
    wait_for(lambda: status(job)["state"] == "FAILED", 10)
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 10)


def test_a_pool_dies_with_its_parent(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "orphans", LONG, 0, mode="simulate"))
    proc = json.loads((Path(job["run_dir"]) / "ps" / "proc.json").read_text())
    os.kill(proc["pid"], signal.SIGKILL)
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 10)
    assert status(job)["state"] == "FAILED"


def test_stop_leaves_nothing_of_a_pool(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "stopped", LONG, 0, mode="simulate"))
    assert at_step(job) and len(members(job)) == 2
    stopped = manager("stop", "stopped", "--json")
    assert only(stopped)["state"] == "STOPPED"
    assert not agent.marked(KUIPER_RUN=job["run_id"])
    assert not events(job["run_dir"], "end")


def test_only_a_simulation_has_a_pool(tmp_path: Path) -> None:
    refused = manager("check", str(write_spec(tmp_path, "a", LONG, 2)))
    assert refused.returncode == 3 and "only a simulation has one" in refused.stdout + refused.stderr
