"""`transport: collective` as real jobs: the mesh's trajectory, and a clear failure when a process is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from tests.integration.jobs import events, follow, trajectory, write_spec
from tests.integration.test_faults import LONG, kill, start, status, wait_for

COMMON = {"dataset": "digits", "model": {"mlp": {"hidden": [32], "dropout": 0.2}}, "batch_size": 16,
          "steps": 8, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "engine": "sequential",
          "eval_interval": 4}
ROBUST = {**COMMON, "algorithm": {"parameter_server": {"worker_momentum": 0.5}}, "num_workers": 5,
          "num_byzantine": 1, "aggregator": "multi_krum", "attack": {"ipm": {"eps": 2.0}},
          "row_dtype": "bfloat16"}
ALL_REDUCE = {**COMMON, "algorithm": "all_reduce", "num_workers": 3, "num_byzantine": 1,
              "attack": "sign_flip"}


def both(folder: Path, conf: dict[str, Any]) -> list[dict[str, Any]]:
    """The job over the mesh and over collectives, with two worker processes each."""
    return [follow(write_spec(folder, transport, conf | {"transport": transport}, 2))
            for transport in ("mesh", "collective")]


def test_gathered_rows_are_the_meshs_bit_for_bit(tmp_path: Path) -> None:
    mesh, collective = both(tmp_path, ROBUST)
    assert trajectory(collective["run_dir"]) == trajectory(mesh["run_dir"])
    one, other = (events(run["run_dir"], "step")[-1] for run in (mesh, collective))
    assert {key: one[key] for key in ("bytes_in", "bytes_out", "rows")} == pytest.approx(
        {key: other[key] for key in ("bytes_in", "bytes_out", "rows")}, rel=0.02)


def test_reduced_rows_are_the_meshs_to_rounding(tmp_path: Path) -> None:
    mesh, collective = both(tmp_path, ALL_REDUCE)
    for kind in ("step", "evaluation"):
        expected, found = (events(run["run_dir"], kind) for run in (mesh, collective))
        losses = [line["loss"] for line in expected]
        assert [line["loss"] for line in found] == pytest.approx(losses, abs=1e-5)
    assert all(not events(collective["run_dir"], "gone", name) for name in ("ps", "worker_1", "worker_2"))


@pytest.mark.parametrize("algorithm", ["parameter_server", "all_reduce"])
def test_a_killed_worker_ends_the_job(algorithm: str, tmp_path: Path) -> None:
    conf = {**LONG, "algorithm": algorithm, "transport": "collective", "model": {"mlp": {"hidden": [4096]}}}
    if algorithm == "all_reduce":
        del conf["aggregator"], conf["f"]
    job = start(write_spec(tmp_path, "lost", conf, 3))
    kill(job, "worker_2")
    began = time.monotonic()
    wait_for(lambda: status(job)["state"] == "FAILED", 20)
    assert time.monotonic() - began < 15
    assert "needs every process" in status(job)["reason"]
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 20)


def test_a_dead_server_ends_the_job(tmp_path: Path) -> None:
    job = start(write_spec(tmp_path, "server", {**LONG, "transport": "collective"}, 2))
    kill(job, "ps")
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]), 20)
    assert status(job)["state"] == "FAILED"
    said = json.loads((Path(job["run_dir"]) / "worker_1" / "error.json").read_text())["message"]
    assert "server is gone" in said or "needs every process" in said
