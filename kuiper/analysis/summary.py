"""One row per configuration, for a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kuiper.analysis.curves import Curve, half_width, seed_of
from kuiper.analysis.time_to_accuracy import time_to_accuracy
from kuiper.record.plain import finite

NEAR = 0.95  # of the best accuracy: how near to it counts as there, unless a target is given


def compare(curves: Sequence[Curve], target: float | None = None) -> list[dict[str, Any]]:
    """Rows in the order of `curves`.

    Args:
        target: percent; None: 95 % of the best mean accuracy that any of them ended with, rounded down; where
            one has not diverged, of those that have not.

    Returns:
        Dicts with label, seeds, left_out (run directories), run_dirs, unit, virtual; means over the seeds:
        top_1 (the last, percent), best_top_1 (of each run, percent), clock (of the last evaluation,
        seconds), bytes (moved by the algorithm); rounds (the last); target (percent), reached (how many
        runs did), time_to_target (seconds; None unless all did); states and diverged (the step or round, None
        where it did not), of each run; curve, with lists rounds, clock, top_1 and top_1_ci. `..._ci` is the
        half-width of a mean's 95 % confidence interval, None for a single run. What a run scored once it had
        diverged is never its best, and reaches no target. What is not finite is None.
    """
    if target is None:
        ends = [curve.top_1[-1] for curve in curves if all(run.diverged is None for run in curve.runs)]
        ends = ends or [run.top_1[index] for curve in curves for run in curve.runs for index in run.sound]
        target = float(math.floor(NEAR * max((end for end in ends if not math.isnan(end)), default=0.0)))
    return [_row(curve, target) for curve in curves]


def _row(curve: Curve, target: float) -> dict[str, Any]:
    sound = [[run.top_1[index] for index in run.sound] for run in curve.runs]
    best = [max((each for each in scores if not math.isnan(each)), default=math.nan) for scores in sound]
    times = [time_to_accuracy(run, target) for run in curve.runs]
    reached = [time for time in times if time is not None]
    all_there = len(reached) == len(times)
    row = {
        "label": curve.label,
        "seeds": [seed_of(run) for run in curve.runs],
        "left_out": [str(run.folder) for run in curve.left_out],
        "run_dirs": [str(run.folder) for run in curve.runs],
        "unit": curve.unit,
        "virtual": curve.virtual,
        **_mean("top_1", [run.top_1[-1] for run in curve.runs]),
        **_mean("best_top_1", best),
        "clock": curve.clock[-1],
        "bytes": sum(run.bytes for run in curve.runs) / len(curve.runs),
        "rounds": curve.rounds[-1],
        "target": target,
        "reached": len(reached),
        **_mean("time_to_target", reached if all_there else []),
        "states": [run.state for run in curve.runs],
        "diverged": [run.diverged for run in curve.runs],
        "curve": {
            "rounds": list(curve.rounds),
            "clock": list(curve.clock),
            "top_1": list(curve.top_1),
            "top_1_ci": list(curve.top_1_ci) or None,
        },
    }
    return finite(row)


def _mean(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """{name: mean, name_ci: half-width}."""
    half = float(half_width(np.array(values)[:, None])[0]) if len(values) > 1 else None
    return {name: float(np.mean(values)) if values else None, f"{name}_ci": half}
