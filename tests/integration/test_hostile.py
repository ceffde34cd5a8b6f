"""Workers with valid certificates that lie cost their own rows, and change no bit of the others' run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kuiper.cluster import launch, spec, store
from kuiper.config.compose import compose
from tests.integration.jobs import ROOT, events, follow, trajectory, write_spec

CONF = {"dataset": "digits", "model": "softmax", "engine": "sequential", "algorithm": "parameter_server",
        "num_workers": 9, "steps": 8, "eval_interval": 2, "batch_size": 8}
WIDTH = 64 * 10 + 10
HONEST = [0, 1, 2, 3]


def test_liars_cost_only_their_own_rows(tmp_path: Path) -> None:
    gone = {**CONF, "num_byzantine": 5, "byzantine": [4, 5, 6, 7, 8], "attack": "crash"}
    expected = trajectory(follow(write_spec(tmp_path, "gone", gone, 0), "--simulate")["run_dir"])

    attacked = spec.load(write_spec(tmp_path, "attacked", {**CONF, "f": 5}, 6), [])

    def configure(one: spec.Spec, run_id: str) -> dict:
        config = compose(one, False, run_id)
        for process, nodes in zip(config["processes"][1:], (HONEST, [4], [5], [6], [7], [8]), strict=True):
            process["nodes"] = nodes
        return config

    def argv(process, run_dir: Path) -> list[str]:
        if process.rank > 1:
            return [sys.executable, str(ROOT / "tests/integration/hostile.py"), str(run_dir), str(process.rank),
                    str(WIDTH)]
        return launch.process_argv(process, run_dir)

    [job] = launch.launch(attacked, configure, argv=argv)
    deadline = time.monotonic() + 90
    while not (status := store.observe([job], detailed=True)[0]).state.final:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert status.state == "SUCCEEDED", status.reason

    assert trajectory(job.run_dir) == expected
    reasons = {event["rank"]: event["reason"] for event in events(job.run_dir, "gone")}
    assert sorted(reasons) == [2, 3, 4, 5, 6]
    assert all(reason.startswith("broke the protocol") for reason in reasons.values()), reasons
    assert "node 0 is not the sender's" in reasons[3] and str(2**63) in reasons[4] and "step 1000" in reasons[5]
    assert "node 8 again in step 0" in reasons[6]
    log = (Path(job.run_dir) / "ps" / "log").read_text().splitlines()
    assert sum("worker_6" in line for line in log) < 5
    while status.alive and time.monotonic() < deadline:
        time.sleep(0.2)
        status = store.observe([job], detailed=True)[0]
