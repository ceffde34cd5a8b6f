"""Jobs over ssh for these tests: written for a lab, submitted and asked about as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from kuiper.cluster import agent
from tests.cluster.lab import Lab
from tests.cluster.sshd import LabHost
from tests.integration.jobs import manager, only
from tests.integration.test_faults import wait_for

LONG = {"dataset": "digits", "model": "softmax", "algorithm": "parameter_server", "aggregator": "median",
        "num_workers": 6, "f": 2, "steps": 1_000_000, "eval_interval": 1000, "batch_size": 8}


def spec(lab: Lab, folder: Path, name: str, job_conf: dict[str, Any], **more: Any) -> Path:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(lab.spec(name, log_path=str(folder / "logs"), job_conf=job_conf, **more)))
    return path


def submit(path: Path, *arguments: str) -> Any:
    """The job, or the jobs of several seeds."""
    done = manager("submit", str(path), "--json", *arguments)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    jobs = json.loads(done.stdout)
    return jobs[0] if len(jobs) == 1 else jobs


def status(name: str) -> dict[str, Any]:
    return only(manager("status", name, "--json"))


def step(name: str) -> int:
    return status(name)["processes"][0]["step"] or 0


def goes_on(name: str) -> None:
    before = step(name)
    wait_for(lambda: step(name) > before + 10)


def there(host: LabHost, job: dict[str, Any], process: str) -> Path:
    """A process's folder on its host."""
    return Path(host.home, "kuiper", "runs", job["job_name"], job["run_id"], process)


def nothing_left(job: dict[str, Any]) -> None:
    assert not agent.marked(KUIPER_RUN=job["run_id"])
