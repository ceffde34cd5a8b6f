"""Times one rule at one size, or its memory, in a process of its own."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from evals.rules.pairs import BY_NAME, SETS, Call
from kuiper.errors import JobFailed


def main() -> None:
    ask = json.loads(sys.argv[1])
    torch.set_num_threads(ask["threads"])
    rows = random_rows(ask["n"], ask["d"])
    work = memory if ask["what"] == "memory" else times
    print(json.dumps(work(ask["rule"], rows, ask["f"], ask["passes"], ask["byzfl"])))


def random_rows(n: int, d: int) -> torch.Tensor:
    """Normal rows; the first million columns again and again, because drawing all would take minutes."""
    rows, width = torch.empty(n, d), min(d, 1_000_000)
    rows[:, :width] = torch.randn(n, width, generator=torch.Generator().manual_seed(1))
    for start in range(width, d, width):
        rows[:, start : start + width] = rows[:, : min(width, d - start)]
    return rows


def times(name: str, rows: torch.Tensor, f: int, passes: int, byzfl: bool) -> dict[str, list[float]]:
    """Milliseconds of every pass: the rule, its counterpart, and what both are measured by, in turn."""
    pair = BY_NAME[name]
    calls: dict[str, Call] = {"ours": pair.ours(f)}
    if byzfl and pair.theirs and math.comb(len(rows), f) <= SETS.get(pair.theirs, math.inf):
        calls["byzfl"] = pair.byzfl(f)
    calls["read"] = lambda rows: rows.sum()
    if pair.kind in ("distances", "mixes", "search"):
        calls["gram"] = lambda rows: rows @ rows.T
    if pair.kind == "mixes":
        mask = torch.ones(len(rows), len(rows))
        calls["product"] = lambda rows: mask @ rows
    first = time.perf_counter()
    try:
        calls["ours"](rows)
    except JobFailed as error:  # a search that passed its limit
        return {"refused": [0.0], "why": error.message}
    taken = {"first": [1000 * (time.perf_counter() - first)]}
    for turn in range(passes):
        for who, call in calls.items():
            if turn and who == "byzfl" and taken[who][0] > 20_000:
                continue
            began = time.perf_counter()
            call(rows)
            taken.setdefault(who, []).append(1000 * (time.perf_counter() - began))
    return taken


def memory(name: str, rows: torch.Tensor, f: int, passes: int, byzfl: bool) -> dict[str, float]:
    """Peak memory beyond the input, as a part of it, of the rule and of its counterpart."""
    pair = BY_NAME[name]
    used = {"ours": _peak(pair.ours(f), rows)}
    if byzfl and pair.theirs and pair.theirs not in SETS:
        used["byzfl"] = _peak(pair.byzfl(f), rows)
    return used


def _peak(call: Callable[[torch.Tensor], object], rows: torch.Tensor) -> float:
    call(rows)  # imports, compiled code, pools of threads
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call(rows)
    return (_status("VmHWM") - before) * 1024 / rows.nbytes


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def summary(taken: dict[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {who: median(values) for who, values in taken.items() if who != "why"}


if __name__ == "__main__":
    main()
