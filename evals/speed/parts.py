"""Where a step of `parameter_server` goes: ten workers and the CNN of 431,080 parameters, on this machine.

    python evals/speed/parts.py [--steps 25] [--rule average]

As a simulation, as a simulation with `pool: 2`, and as ten processes over the mesh with TLS. Prints a table
and writes parts.json and parts.png beside this file.

    compute      gradients; of processes, from when the first worker begins to when the last has its own
    communicate  sending, and what else the server waits for
    aggregate    the rule and the optimiser
    rest         everything that has no name: records, clocks, Python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WAYS = {
    "simulation": {"mode": "simulate"},
    "simulation, pool: 2": {"mode": "simulate", "pool": 2},
    "10 processes": {},
}
PARTS = ("compute", "communicate", "aggregate", "rest")
COLOURS = ("#1f6fb4", "#a5c8ec", "#e08a1e", "#7c8797")
WARM_UP = 3  # steps


def run(way: str, steps: int, rule: str, folder: Path) -> Path:
    """Run the job; its run directory."""
    name = f"way-{list(WAYS).index(way)}"
    options = WAYS[way] | {"job_name": name, "log_path": str(folder), "steps": steps, "aggregator": rule}
    words = [sys.executable, "manager.py", "submit", str(HERE / "parts.yml"), "--follow", "-q"]
    for key, value in options.items():
        words += ["-o", f"{key}={json.dumps(value)}"]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return next((folder / name).glob("*"))


def lines(process: Path) -> list[dict]:
    """The steps that a process recorded."""
    events = (json.loads(line) for line in (process / "metrics.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "step"]


def parts(run_dir: Path) -> list[dict[str, float]]:
    """Seconds of each part, for each step but the first few."""
    server = lines(run_dir / "ps")
    workers = [lines(folder) for folder in sorted(run_dir.glob("worker_*"))]
    found = []
    for number in range(WARM_UP, len(server)):
        step = server[number]
        compute = span([each[number] for each in workers]) if workers else step["compute"]
        moved = step["wait"] + step["communicate"] + step["compute"] - compute
        whole = step["time"] - server[number - 1]["time"]
        split = {"compute": compute, "communicate": moved, "aggregate": step["aggregate"]}
        found.append(split | {"rest": whole - sum(split.values()), "whole": whole})
    return found


def span(workers: list[dict]) -> float:
    """Seconds from the start of the first worker's gradient to the end of the last one's."""
    ends = [each["time"] - each["communicate"] for each in workers]
    return max(ends) - min(end - each["compute"] for end, each in zip(ends, workers, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rule", default="average")
    arguments = parser.parse_args()
    load, found = os.getloadavg()[0], {}
    print("|", " | ".join(["ms a step, median", *PARTS, "whole", "rest"]), "|\n" + "|---" * (len(PARTS) + 3) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            steps = parts(run(way, arguments.steps, arguments.rule, Path(folder)))
            found[way] = {part: statistics.median(step[part] for step in steps) for part in (*PARTS, "whole")}
            cells = [f"{1e3 * seconds:.1f}" for seconds in found[way].values()]
            print("|", " | ".join([way, *cells, f"{found[way]['rest'] / found[way]['whole']:.1%}"]), "|", flush=True)
    print(f"{arguments.rule}; load average {load:.1f} at the start")
    (HERE / "parts.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found)


def draw(found: dict[str, dict[str, float]]) -> None:
    """One bar for each way, the parts as shares of its step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 2.4), layout="constrained")
    labels = [f"{way}\n{1e3 * one['whole']:.0f} ms a step" for way, one in found.items()]
    left = [0.0] * len(found)
    for part, colour in zip(PARTS, COLOURS, strict=True):
        shares = [100 * one[part] / sum(one[each] for each in PARTS) for one in found.values()]
        axes.barh(labels, shares, 0.6, left, label=part, color=colour)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of a step")
    axes.legend(ncols=len(PARTS), fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "parts.png", dpi=130)


if __name__ == "__main__":
    main()
