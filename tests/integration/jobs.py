"""Real jobs for tests: a spec as a dict, submitted as a user would, and what it recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def write_spec(folder: Path, name: str, job_conf: dict[str, Any], processes: int, **keys: Any) -> Path:
    """A spec file for `processes` local worker processes (0: for simulation only)."""
    spec = {"job_name": name, "ps_ip": "localhost", "log_path": str(folder / "logs"), "job_conf": job_conf, **keys}
    if processes:
        spec["worker_ips"] = [f"localhost:{processes}"]
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(spec))
    return path


def manager(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """`python manager.py ...` in a process of its own."""
    return subprocess.run([sys.executable, str(ROOT / "manager.py"), *arguments],
                          capture_output=True, text=True, timeout=timeout)


def only(done: subprocess.CompletedProcess) -> dict[str, Any]:
    """What --json says of the one job that a name stands for."""
    [job] = json.loads(done.stdout)
    return job


def follow(spec: Path, *arguments: str, timeout: float = 120) -> dict[str, Any]:
    """Submit, wait for the end, and return what `--follow --json` says; it must have succeeded."""
    done = manager("submit", str(spec), "--follow", "--json", *arguments, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return only(done)


def events(run_dir: str | Path, kind: str, process: str = "ps") -> list[dict[str, Any]]:
    """The lines of one kind in a process's metrics.jsonl."""
    lines = (Path(run_dir) / process / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def trajectory(run_dir: str | Path) -> dict[str, list[Any]]:
    """Everything that must not depend on where nodes are placed: losses, scores, bits of the models."""
    scores = ("step", "top_1", "top_5", "loss", "worst", "average_model", "consensus_distance",
              "validation_top_1", "validation_loss", "digest")
    return {
        "losses": [(step["step"], step["loss"]) for step in events(run_dir, "step")],
        "evaluations": [tuple(e.get(key) for key in scores) for e in events(run_dir, "evaluation")],
    }
