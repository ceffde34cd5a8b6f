"""One row per run, for a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kuiper.analysis.runs import load_runs


def compare(run_dirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows in the order of `run_dirs`.

    Returns:
        Dicts with label, top_1 (the last, percent), best_top_1, clock (of the last evaluation,
        seconds), virtual, rounds (the last), bytes (moved by the algorithm), run_dir.

    Raises:
        RecordError: a directory is no run, or has no evaluation yet.
    """
    return [
        {
            "label": run.label,
            "top_1": run.top_1[-1],
            "best_top_1": max((each for each in run.top_1 if not math.isnan(each)), default=math.nan),
            "clock": run.clock[-1],
            "virtual": run.virtual,
            "rounds": run.rounds[-1],
            "bytes": run.bytes,
            "run_dir": str(run.folder),
        }
        for run in load_runs(run_dirs)
    ]
