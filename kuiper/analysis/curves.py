"""Runs that differ only in their seed as one curve: the mean, and how sure one can be of it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from kuiper.analysis.labels import labels
from kuiper.analysis.runs import Run, load_runs

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Curve:
    """One configuration, over its seeds. Sequences have one entry per evaluation, in order.

    Attributes:
        label: what tells this configuration from the others that it was loaded with.
        runs: that the means are over, each with a seed of its own.
        left_out: runs of the same configuration that have not come as far, so that a mean over them
            would be over other seeds from one evaluation to the next.
        config: what the runs share; without a seed where there are several.
        rounds: steps or rounds.
        clock: seconds since the start, the mean over the runs at that step.
        top_1: test accuracy in percent, the mean over the runs at that step.
        top_1_ci: half-widths of its confidence interval in percent; empty for a single run.
        worst: percent, the worst honest peer, the mean over the runs; empty where there is a server.
        virtual: whether the clock is virtual.
        unit: step or round.
    """

    label: str
    runs: tuple[Run, ...]
    left_out: tuple[Run, ...]
    config: dict[str, Any]
    rounds: tuple[int, ...]
    clock: tuple[float, ...]
    top_1: tuple[float, ...]
    top_1_ci: tuple[float, ...]
    worst: tuple[float, ...]
    virtual: bool
    unit: str

    @property
    def state(self) -> str:
        """Of its runs, one that did not succeed before one that did; "" where nothing tells."""
        return next((run.state for run in self.runs if run.state != "SUCCEEDED"), "SUCCEEDED")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What keeps a run from counting as complete: `running`, `1 of 3 failed`, `diverged at step 40`."""
        count = len(self.runs)
        states = Counter(run.state.lower() for run in self.runs if run.state not in ("SUCCEEDED", ""))
        said = [state if count == 1 else f"{of} of {count} {state}" for state, of in states.items()]
        broken = [run.diverged for run in self.runs if run.diverged is not None]
        if broken:
            some = f"{len(broken)} of {count} diverged, the first" if count > 1 else "diverged"
            said.append(f"{some} at {self.unit} {min(broken)}")
        if self.left_out:
            said.append(f"{count} of {count + len(self.left_out)} seeds")
        return tuple(said)

    @property
    def title(self) -> str:
        """The label, with the remarks."""
        return f"{self.label} ({'; '.join(self.remarks)})" if self.remarks else self.label


def load_curves(folders: Sequence[Path], states: Mapping[Path, str] | None = None) -> list[Curve]:
    """Load run directories, group those whose resolved configurations differ in the seed only, and average.

    A seed that is there twice adds nothing to a mean: its second run begins another curve.

    Args:
        states: as `load_runs` takes them.

    Raises:
        RecordError: there is no directory, one is no run, or one has no evaluation yet.
    """
    curves = [_curve(runs) for runs in _by_configuration(load_runs(folders, states))]
    if any(len(curve.runs) > 1 for curve in curves):
        for curve in curves:
            curve.config["conf"].pop("seed", None)
    names = labels([curve.config for curve in curves])
    return [replace(curve, label=name) for curve, name in zip(curves, names, strict=True)]


def half_width(values_rt: np.ndarray) -> np.ndarray:
    """Of the confidence interval of the mean over runs: t s / sqrt(r), the values being taken as normal.

    Args:
        values_rt: (r, t), r >= 2 runs.

    Returns:
        (t,): s is the sample standard deviation (r - 1 degrees of freedom), t Student's quantile.
    """
    runs = len(values_rt)
    quantile = stdtrit(runs - 1, (1 + CONFIDENCE) / 2)
    return quantile * values_rt.std(axis=0, ddof=1) / np.sqrt(runs)


def seed_of(run: Run) -> int | None:
    """None where a foreign config.yaml has none."""
    return run.config["conf"].get("seed")


def _by_configuration(runs: Sequence[Run]) -> list[list[Run]]:
    groups: list[tuple[str, list[Run]]] = []
    for run in runs:
        key = json.dumps(_seedless(run.config), sort_keys=True, default=str)
        for other, group in groups:
            if other == key and seed_of(run) not in map(seed_of, group):
                group.append(run)
                break
        else:
            groups.append((key, [run]))
    return [group for _, group in groups]


def _seedless(config: dict[str, Any]) -> dict[str, Any]:
    """What two runs have in common that differ in nothing but their seed."""
    job = {key: value for key, value in config["job"].items() if key not in ("job_name", "run_id")}
    conf = {key: value for key, value in config["conf"].items() if key != "seed"}
    return {**config, "job": job, "conf": conf}


def _curve(group: Sequence[Run]) -> Curve:
    longest = max(group, key=lambda run: run.rounds[-1])
    runs = tuple(run for run in group if run.rounds == longest.rounds)
    top_1 = np.array([run.top_1 for run in runs])
    config = copy.deepcopy(runs[0].config)
    if len(group) > 1:
        job = config["job"]
        job["job_name"] = str(job["job_name"]).removesuffix(f"-seed{seed_of(runs[0])}")
    return Curve(
        label="",
        runs=runs,
        left_out=tuple(run for run in group if run.rounds != longest.rounds),
        config=config,
        rounds=longest.rounds,
        clock=_mean([run.clock for run in runs]),
        top_1=_mean(top_1),
        top_1_ci=tuple(half_width(top_1).tolist()) if len(runs) > 1 else (),
        worst=_mean([run.worst for run in runs]) if all(run.worst for run in runs) else (),
        virtual=runs[0].virtual,
        unit=runs[0].unit,
    )


def _mean(values_rt: Any) -> tuple[float, ...]:
    return tuple(np.mean(values_rt, axis=0).tolist())
