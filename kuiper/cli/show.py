"""How things are shown: JSON, ages, numbers, and what a job's status looks like as data."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kuiper.cli.called import as_called

if TYPE_CHECKING:
    from rich.console import Console

    from kuiper.cluster.states import JobStatus
    from kuiper.cluster.store import Job
    from kuiper.errors import KuiperError

COLOURS = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "red", "LOST": "red", "STOPPED": "yellow"}


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print one JSON value on standard output."""
    print(json.dumps(value, indent=indent), flush=True)


def fail(error: KuiperError, as_json: bool) -> NoReturn:
    """End with an error; with --json, whose one value has been printed, by message and exit code alone."""
    if not as_json:
        raise error
    note(f"error: {error}")
    sys.exit(error.exit_code)


def console() -> Console:
    """Standard output for tables: as wide as they need where it is not a terminal."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=250)


def note(line: str) -> None:
    """Tell the user something beside the result."""
    sys.stderr.write(f"{as_called(line)}\n")  # at once: several threads may have something to tell
    sys.stderr.flush()


def job_json(job: Job, status: JobStatus) -> dict[str, Any]:
    """What every verb says of a job with --json; times are unix seconds."""
    return {
        "job_name": job.job_name,
        "run_id": job.run_id,
        "run_dir": str(job.run_dir),
        "created": job.created,
        "smoke": job.smoke,
        "state": status.state.value,
        "reason": status.reason,
        "exit_code": status.state.exit_code if status.state.final else None,
        "evaluation": status.evaluation,
        "diverged": status.diverged,
    }


def mode(job: Job) -> str:
    """How it runs, and whether it is a smoke test."""
    return f"{job.mode}, smoke test" if job.smoke else job.mode


def worst(statuses: Sequence[JobStatus]) -> int:
    """The exit code for several jobs: of one that failed, else has not ended, else was stopped, else 0."""
    return min((status.state.exit_code for status in statuses if status.state.exit_code), default=0)


def status_json(job: Job, status: JobStatus) -> dict[str, Any]:
    """`job_json` with every process."""
    return {**job_json(job, status), "processes": [asdict(process) for process in status.processes]}


def short(path: Path) -> str:
    """A path as the user would type it: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def age(since: float) -> str:
    """How long ago a unix time was."""
    return f"{span(max(0.0, time.time() - since))} ago"


def span(seconds: float) -> str:
    """As seconds, minutes, hours or days."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def number(value: float | None, pattern: str = "{:.4g}", unit: str = "") -> str:
    """A number with its unit, '' for none."""
    return "" if value is None else pattern.format(value) + unit


def loss_text(line: Mapping[str, Any], pattern: str, name: str) -> str:
    """The loss of a line of metrics.jsonl behind its name, also one that is not finite; '' for none."""
    text = line.get("non_finite", {}).get("loss")
    return f"{name} {text}" if text else number(line.get("loss"), f"{name} {pattern}")


def divergence_text(step: int | None, unit: str = "step") -> str:
    """What is said of a run that diverged, '' of any other."""
    return "" if step is None else f"diverged at {unit} {step}"


def evaluation_text(evaluation: Mapping[str, Any], unit: str = "step") -> str:
    """One line about an evaluation; accuracies in percent, marked where the model has diverged."""
    names = {"top_1": "accuracy", "worst": "worst node", "average_model": "average model"}
    parts = [number(evaluation.get(key), f"{label} {{:.2f}}%") for key, label in names.items()]
    pattern = "{:.4f}" if abs(evaluation.get("loss") or 0) < 1e6 else "{:.4g}"
    parts += [loss_text(evaluation, pattern, "test loss"), divergence_text(evaluation.get("diverged"), unit)]
    return ", ".join(filter(None, parts))
