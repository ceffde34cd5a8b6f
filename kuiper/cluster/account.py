"""What is known of a run: its configuration, code, environment and result; and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuiper.cluster.files import read_json
from kuiper.cluster.resume import config_of
from kuiper.cluster.snapshot import changes
from kuiper.cluster.states import JobStatus
from kuiper.cluster.store import Job

OF_ITS_OWN = ("job.run_id", "job.spec_folder", "job.code", "job.git", "code", "hostname", "executable")
"""What may differ between runs of the same experiment."""


def account(job: Job, status: JobStatus) -> dict[str, Any]:
    """A run as plain data, from the submitter's run directory, to which `collect` brings what is on hosts.

    Returns:
        job_name, run_id, run_dir, retry_of, smoke, spec_hash; config (config.yaml, its keys dotted), code (digest
        and files, None when not on record), environment (environment.json, its keys dotted, None when not
        here), result: state, reason, evaluations (their number; None where training_perf is not here), step, top_1
        and best_top_1 (percent), loss, clock (seconds, of the last evaluation; virtual in simulations), seconds (that rank 0 ran), diverged
        (the step at which it did, None where it did not), non_finite (which of these are not finite, as text).

    Raises:
        SpecError: its config.yaml is gone.
        RecordError: its training_perf is damaged.
    """
    environment = read_json(job.paths.environment)
    return {
        "job_name": job.job_name, "run_id": job.run_id, "run_dir": str(job.run_dir),
        "retry_of": job.retry_of, "smoke": job.smoke, "spec_hash": job.spec_hash, "result": _result(job, status),
        "config": settings(config_of(job)), "environment": environment and _dotted(environment),
        "code": read_json(job.paths.code) or None,
    }  # fmt: skip


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two accounts: {part: {key: [value in the first, value in the second]}}.

    Under `code`: same (None when it is not known), and files: what became of each that differs.
    """
    compared = ("config", "environment", "result")
    parts = {part: _differing(first[part] or {}, second[part] or {}) for part in compared}
    codes = first["code"], second["code"]
    known = None not in codes
    code = {"same": codes[0]["digest"] == codes[1]["digest"] if known else None,
            "digests": [code and code["digest"] for code in codes],
            "files": changes(*codes) if known else {}}
    return {**parts, "code": code}


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    keys = [key for key in {**first, **second} if key not in OF_ITS_OWN]
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration with dotted keys; a group's choice under the group's name, no metadata."""
    conf = {}
    for key, value in config["conf"].items():
        if isinstance(value, Mapping):
            conf[key] = value.get("_name_")
            conf |= {f"{key}.{name}": each for name, each in value.items() if not name.startswith("_")}
        else:
            conf[key] = value
    job = {f"job.{key}": value for key, value in config["job"].items()}
    processes = {f"processes.{one['name']}": f"{one['host']} {one['device']}" for one in config["processes"]}
    return {**conf, **job, **processes}


def _dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, each in value.items():
        found |= _dotted(each, f"{prefix}{key}.") if isinstance(each, Mapping) else {f"{prefix}{key}": each}
    return found


def _result(job: Job, status: JobStatus) -> dict[str, Any]:
    from kuiper.record.perf import load_perf  # reads plain data only

    perf = job.paths.process(job.processes[0].name).training_perf
    evaluations = list(load_perf(perf)["perf"].values()) if perf.exists() else None
    last = status.evaluation or {}
    scores = [each["top_1: "] for each in evaluations or () if each["top_1: "] == each["top_1: "]]
    rank_0 = status.processes[0]
    ran = rank_0.ended is not None and rank_0.started is not None
    return {
        "state": status.state.value, "reason": status.reason, "evaluations": None if evaluations is None else len(evaluations),
        "step": last.get("step"), "top_1": last.get("top_1"), "best_top_1": max(scores, default=None),
        "loss": last.get("loss"), "clock": last.get("clock"),
        "seconds": rank_0.ended - rank_0.started if ran else None, "diverged": status.diverged,
        "non_finite": last.get("non_finite", {}),
    }  # fmt: skip
