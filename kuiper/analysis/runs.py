"""A run directory as numbers, and labels that say only what differs between runs."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kuiper.analysis.labels import labels
from kuiper.errors import RecordError
from kuiper.record.metrics import read_metrics
from kuiper.record.perf import load_perf

RANGES = {"round": (0, 2**53), "clock": (0, 1e12), "top_1: ": (0, 100), "worst": (0, 100),
          "loss": (-math.inf, math.inf)}
"""What an evaluation may have under each key."""
MAY_BE_NAN = ("top_1: ", "worst", "loss")  # of a run that diverged


@dataclass(frozen=True)
class Run:
    """What one run recorded. Sequences have one entry per evaluation, in order.

    Attributes:
        label: what tells this run from the others that it was loaded with.
        folder: the run directory.
        config: its config.yaml.
        rounds: steps or rounds.
        clock: seconds since the start; virtual if `virtual`.
        top_1: test accuracy in percent, of the server's model or the mean over honest peers.
        worst: percent, the worst honest peer; empty where there is a server.
        loss: mean test loss.
        bytes: moved by the algorithm so far: to and from the server, and between peers.
        virtual: whether the clock is virtual.
        unit: step or round.
        state: SUCCEEDED, RUNNING, STOPPED, FAILED and so on; "" where nothing tells.
        diverged: the first step or round at which its loss or model was not finite, or its loss huge; None where
            that never happened. Scores from there on mean nothing.
    """

    label: str
    folder: Path
    config: dict[str, Any]
    rounds: tuple[int, ...]
    clock: tuple[float, ...]
    top_1: tuple[float, ...]
    worst: tuple[float, ...]
    loss: tuple[float, ...]
    bytes: int
    virtual: bool
    unit: str
    state: str = ""
    diverged: int | None = None

    @property
    def sound(self) -> tuple[int, ...]:
        """Indices of the evaluations before it diverged."""
        return tuple(index for index, step in enumerate(self.rounds) if self.diverged is None or step < self.diverged)


def load_runs(folders: Sequence[Path], states: Mapping[Path, str] | None = None) -> list[Run]:
    """Load run directories and label them by what differs.

    Args:
        states: of runs, by their directory, as they were observed; of others, what their directory says.

    Raises:
        RecordError: there is no directory, one is no run, or one has no evaluation yet.
    """
    if not folders:
        raise RecordError("no run to read", "name at least one run directory")
    runs = [_load(Path(folder), (states or {}).get(Path(folder))) for folder in folders]
    names = labels([run.config for run in runs])
    return [replace(run, label=name) for run, name in zip(runs, names, strict=True)]


def _load(folder: Path, state: str | None) -> Run:
    config = _read_config(folder / "config.yaml")
    evaluations = _evaluations(folder / "ps" / "training_perf")
    if not evaluations:
        raise RecordError(f"{folder} has no evaluation yet", "wait for the first one")
    conf, events = config["conf"], read_metrics(folder / "ps" / "metrics.jsonl")
    virtual = conf.get("clock") == "virtual" or (
        conf.get("clock", "auto") == "auto" and config["job"].get("mode") == "simulate"
    )
    return Run(
        label=config["job"]["job_name"],
        folder=folder,
        config=config,
        rounds=tuple(each["round"] for each in evaluations),
        clock=tuple(each["clock"] for each in evaluations),
        top_1=tuple(each["top_1: "] for each in evaluations),
        worst=_worst(evaluations),
        loss=tuple(each["loss"] for each in evaluations),
        bytes=_bytes_moved(events, bool(conf.get("algorithm", {}).get("_peers_"))),
        virtual=virtual,
        unit="round" if conf.get("rounds") is not None else "step",
        state=_state(folder) if state is None else state,
        diverged=_diverged(events, evaluations),
    )


def _diverged(events: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> int | None:
    """The first step that the record calls diverged, or whose test loss is not finite."""
    steps = [event["step"] for event in events if event.get("event") == "diverged" and "step" in event]
    steps += [each["round"] for each in evaluations if not math.isfinite(each["loss"])]
    return min(steps, default=None)


def _state(folder: Path) -> str:
    """The state of a run as its directory on this machine tells it; "" where that has no ledger."""
    job, ended = _read_json(folder / "job.json"), _read_json(folder / "ps" / "exit.json")
    if job.get("final"):
        return str(job["final"].get("state", ""))
    if ended:
        return "STOPPED" if ended.get("reason") == "stopped" else "FAILED" if ended.get("code") else "SUCCEEDED"
    return "RUNNING" if job else ""


def _read_json(path: Path) -> dict[str, Any]:
    """An object from a file; {} where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _evaluations(path: Path) -> list[dict[str, Any]]:
    """What `perf` holds, in the order of its rounds; each value is one that can be drawn."""
    perf = load_perf(path)["perf"]
    for place, each in perf.items():
        for key, (low, high) in RANGES.items():
            value = each.get(key, 0 if key == "worst" else None) if isinstance(each, dict) else None
            is_nan = value != value and key in MAY_BE_NAN
            if type(value) not in (int, float) or not (low <= value <= high or is_nan):
                raise RecordError(
                    f"{path}: perf[{reprlib.repr(place)}] has {reprlib.repr(value)} as {key.rstrip(': ')!r}, "
                    f"which must be a number from {low:g} to {high:g}",
                    "the file is damaged or was not written by kuiper; plot another run",
                )
    return sorted(perf.values(), key=lambda each: each["round"])


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RecordError(
            f"cannot read {path}: {error.strerror or error}",
            "give a run directory: <log_path>/<job_name>/<run_id>",
        ) from error
    except yaml.YAMLError as error:
        raise RecordError(f"{path} is not YAML: {error}", "the run's config.yaml is damaged") from error
    if not (isinstance(config, dict) and all(isinstance(config.get(key), dict) for key in ("job", "conf"))):
        raise RecordError(f"{path} has no job and conf", "give the run directory of a kuiper job")
    return config


def _worst(evaluations: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """Peers begin with one model, so the evaluation at 0 has no worst of its own."""
    if not any("worst" in each for each in evaluations):
        return ()
    return tuple(each.get("worst", each["top_1: "]) for each in evaluations)


def _bytes_moved(events: Sequence[Mapping[str, Any]], peers: bool) -> int:
    """What a server received and sent; between peers what they sent, since another peer received the same."""
    keys = ("bytes_out",) if peers else ("bytes_in", "bytes_out")
    return sum(event.get(key, 0) for event in events if event.get("event") == "step" for key in keys)
