"""The virtual clock over real processes: a simulation spread over them, and nothing of it differs.

Quorums, stragglers, deadlines and overcommitment included: losses, models, clocks, bytes, late rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from tests.integration.jobs import events, follow, manager, only, trajectory, write_spec
from tests.integration.test_faults import at_step, kill, start, wait_for
from tests.integration.test_parity import COMMON
from tests.integration.test_resume import killed

SLOW = {"devices": {"lognormal": {"server_kbit_per_s": 5000.0, "latency": 0.01}}, "batch_size": 16}
STARS = {
    "fedavg": {
        **SLOW, "model": "softmax", "num_workers": 300, "num_byzantine": 30, "attack": {"ipm": {"eps": 0.5}},
        "algorithm": {"fedavg": {"clients_per_round": 20, "overcommit": 1.3, "local_steps": 2}}, "rounds": 6},
    "quorum_momentum": {
        **SLOW, "num_workers": 7, "num_byzantine": 1, "attack": "sign_flip", "aggregator": "median",
        "algorithm": {"parameter_server": {"worker_momentum": 0.5}}, "steps": 10, "quorum": 3},
    "deadline": {
        **SLOW, "num_workers": 6, "f": 2, "num_byzantine": 1, "attack": "crash", "aggregator": "average",
        "algorithm": "parameter_server", "steps": 8, "deadline": 0.24},
}  # fmt: skip


def course(run_dir: str | Path) -> list[dict[str, Any]]:
    """All that is recorded of the steps, but for what the machine took for them."""
    real = ("event", "time", "compute", "wait", "aggregate", "communicate", "evaluate", "wall", "phases")
    return [{key: value for key, value in step.items() if key not in real} for step in events(run_dir, "step")]


@pytest.mark.parametrize("star", STARS)
def test_spread_over_processes_a_simulation_is_the_same(star: str, tmp_path: Path) -> None:
    conf = {**COMMON, **STARS[star]}
    simulated = follow(write_spec(tmp_path, "a", conf, 0), "--simulate")["run_dir"]
    spread = follow(write_spec(tmp_path, "b", {**conf, "clock": "virtual"}, 3))["run_dir"]
    expected = course(simulated)
    assert {"clock", "late", "bytes_in", "bytes_out", "rows", "loss"} <= expected[0].keys()
    assert sum(step["late"] for step in expected), "nobody was late"
    assert course(spread) == expected
    assert trajectory(spread) == trajectory(simulated)


def test_state_at_the_nodes_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """Nodes that did not count for some steps have kept their momentum all the same."""
    conf = {**COMMON, **STARS["quorum_momentum"], "checkpoint_interval": 2, "eval_interval": 2}
    whole = follow(write_spec(tmp_path, "whole", conf, 0), "--simulate")["run_dir"]
    run_dir = killed(tmp_path, {**conf, "clock": "virtual"}, 3, 8)
    done = manager("resume", "job", "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert only(done)["state"] == "SUCCEEDED"
    [resumed] = events(run_dir, "resumed")
    assert resumed["step"] in (4, 6)
    assert trajectory(run_dir) == trajectory(whole) and course(run_dir) == course(whole)


def test_the_nodes_of_a_killed_process_are_no_longer_chosen(tmp_path: Path) -> None:
    conf = {**COMMON, **STARS["fedavg"], "rounds": 100_000, "eval_interval": 100_000, "clock": "virtual"}
    job = start(write_spec(tmp_path, "killed", conf, 3))
    kill(job, "worker_2")
    wait_for(lambda: events(job["run_dir"], "gone"))
    before = at_step(job)
    wait_for(lambda: at_step(job) > before + 20)
    last = events(job["run_dir"], "step")[-1]
    assert last["rows"] == 20 and not any(100 <= client < 200 for client in last["clients"])
    assert manager("stop", "killed").returncode == 0
    assert not agent.marked(KUIPER_RUN=job["run_id"])


def test_a_process_that_is_started_again_costs_no_bit(tmp_path: Path) -> None:
    conf = {**COMMON, **STARS["fedavg"], "rounds": 500, "eval_interval": 100}
    simulated = follow(write_spec(tmp_path, "whole", conf, 0), "--simulate")["run_dir"]
    spec = write_spec(tmp_path, "again", {**conf, "clock": "virtual"}, 3, on_failure={"retry": 1})
    job = start(spec)
    kill(job, "worker_2")
    assert manager("wait", "again", timeout=100).returncode == 0
    run_dir = job["run_dir"]
    assert len(events(run_dir, "gone")) == len(events(run_dir, "joined")) == 1
    assert trajectory(run_dir) == trajectory(simulated) and course(run_dir) == course(simulated)
