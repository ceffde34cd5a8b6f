"""A run that diverges, in every mode: the same step, a state that stays what it is, and a summary that says it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.jobs import events, manager, write_spec

CONF = {"algorithm": {"fedavg": {"clients_per_round": 3, "overcommit": 1.0, "local_steps": 2}}, "rounds": 6,
        "num_workers": 4, "model": "softmax", "dataset": "digits", "optimizer": {"sgd": {"lr": 1e38}},
        "engine": "sequential", "eval_interval": 6, "checkpoint_interval": 1}


def test_every_mode_names_the_same_step_and_stop_fails(tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path, "wild", CONF, 2))
    modes = {"pool": ["--simulate", "-o", "pool=2"], "virtual": ["-o", "clock=virtual", "-o", "on_divergence=stop"]}
    found = {}
    for mode, options in modes.items():
        done = manager("submit", spec, "--follow", *options)
        assert "diverged at round " in done.stdout, done.stdout + done.stderr
        [listed] = json.loads(manager("list", "-n", "1", "--json").stdout)
        [event] = events(listed["run_dir"], "diverged")
        found[mode] = event["step"], event["reason"]
        assert listed["diverged"] == event["step"]
        assert done.returncode == listed["exit_code"] == (100 if mode == "virtual" else 0)
    assert len(set(found.values())) == 1
    assert listed["state"] == "FAILED" and f"diverged at round {event['step']}: " in listed["reason"]
    assert "-> lower optimizer.lr" in done.stdout
    status = manager("status", "wild").stdout
    assert f"FAILED  diverged at round {event['step']}" in status
    again = manager("resume", "wild", "--follow")  # from the checkpoint before
    assert again.returncode == 100 and f"diverged at round {event['step']}" in again.stdout
    assert len(events(listed["run_dir"], "diverged")) == 1
