"""Tables and a plot from results.json: python -m evals.rules.report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from evals.rules.measure import summary
from evals.rules.pairs import BY_NAME, ONCE

DISTANCES, MIXES = "1.5 (read + Gram)", "1.5 (read + Gram + product)"


def report(found: dict[str, Any], folder: Path) -> None:
    """Write results.md and speed.png."""
    lines = [f"{found['threads']} threads, float32; medians in milliseconds.", ""]
    sizes = list(dict.fromkeys((one["n"], one["d"], one["f"]) for one in found["sizes"]))
    for size in sizes:
        lines += _table(size, [one for one in found["sizes"] if (one["n"], one["d"], one["f"]) == size])
    if found["memory"]:
        lines += ["", "Peak memory beyond the input, in inputs (n = 25, d = 1e6):", "",
                  "| rule | ours | ByzFL |", "|---|---|---|"]
        for one in found["memory"]:
            theirs = one["answer"].get("byzfl")
            lines.append(f"| {one['rule']} | {one['answer']['ours']:.2f} | {_shown(theirs, '{:.2f}')} |")
    (folder / "results.md").write_text("\n".join(lines) + "\n")
    if found["growth"]:
        _plot(found["growth"], folder / "speed.png")


def _table(size: tuple[int, int, int], found: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"n = {size[0]}, d = {size[1]:,}, f = {size[2]}:", "",
             "| rule | ours | ByzFL | speed-up | reads | part of its bound | first call |",
             "|---|---|---|---|---|---|---|"]
    ratios = []
    for one in found:
        taken, pair = summary(one["answer"]), BY_NAME[one["rule"]]
        if "refused" in taken:
            lines.append(f"| {pair.name} | refused | | | | | |")
            continue
        bound, said = 1.5 * (taken["read"] + taken.get("gram", 0) + taken.get("product", 0)), DISTANCES
        if pair.kind == "mixes":
            said = MIXES
        elif pair.kind in ("reads", "columns"):
            reads = 3 if pair.name in ("median", "trimmed_mean") else 5
            bound, said = reads * taken["read"], f"{reads} reads"
        speedup = taken["byzfl"] / taken["ours"] if "byzfl" in taken else None
        if speedup and pair.name not in ONCE:
            ratios.append(speedup)
        part = f"{taken['ours'] / bound:.2f} of {said}"
        lines.append(f"| {pair.name} | {taken['ours']:.1f} | {_shown(taken.get('byzfl'), '{:.0f}')} | "
                     f"{_shown(speedup, '{:.1f}')} | {taken['ours'] / taken['read']:.1f} | {part} | "
                     f"{taken['first'] / 1000:.2f} s |")
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines += ["", f"Geometric mean of {len(ratios)} speed-ups: {mean:.1f}; the least: {min(ratios):.1f}."]
    return lines


def _shown(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)


def _plot(growth: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(13, 6))
    for panel, key, fixed, label in ((panels[0], "d", ("n", 25), "d (n = 25)"),
                                     (panels[1], "n", ("d", 100_000), "n (d = 1e5)")):
        here = [one for one in growth if one[fixed[0]] == fixed[1] and "ours" in one["answer"]]
        for index, name in enumerate(dict.fromkeys(one["rule"] for one in here)):
            points = sorted((one[key], summary(one["answer"])["ours"]) for one in here if one["rule"] == name)
            style = ("-", "--", ":", "-.")[index // 10]
            panel.plot(*zip(*points, strict=True), style, marker=".", label=name, linewidth=1)
        reads = {}
        for one in here:
            reads.setdefault(one[key], []).append(min(one["answer"]["read"]))
        points = sorted((size, min(values)) for size, values in reads.items())
        panel.plot(*zip(*points, strict=True), "k", linewidth=3, label="one read of the input")
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel="milliseconds")
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    folder = Path(__file__).parent
    report(json.loads((folder / "results.json").read_text()), folder)
