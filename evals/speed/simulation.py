"""Seconds a round of federated averaging: kuiper, with and without a pool, against a loop written by hand.

    python evals/speed/simulation.py [--repeats 5] [--only mlp-32 ...]

The two take turns, a few rounds each, so that what else the machine does meets both. Prints a table and writes
simulation.json and simulation.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORKLOADS = {  # network, clients, per round, samples, batch; rounds that are timed at a turn
    "mlp-32": ("mlp", 100, 10, 320, 32, 40),
    "mlp-10": ("mlp", 1000, 50, 50, 10, 25),
    "cnn-32": ("cnn", 100, 10, 320, 32, 4),
    "cnn-10": ("cnn", 1000, 50, 50, 10, 4),
}
MODELS = {"mlp": {"mlp": {"hidden": [100]}}, "cnn": "mnist_cnn"}
CORES = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def by_hand(name: str, processes: int) -> list[float]:
    """Seconds of each round of bare.py; the first warms up."""
    *workload, rounds = map(str, WORKLOADS[name])
    words = [sys.executable, str(HERE / "bare.py"), *workload, str(processes), str(int(rounds) + 1)]
    done = subprocess.run(words, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()][1:]


def ours(name: str, pool: int | None) -> tuple[list[float], float]:
    """Seconds of each round of kuiper, and those from its start to the first round."""
    kind, clients, per_round, samples, batch, rounds = WORKLOADS[name]
    options = {
        "num_workers": clients, "algorithm.clients_per_round": per_round, "algorithm.local_steps": samples // batch,
        "dataset.samples": clients * samples, "batch_size": batch, "rounds": rounds + 1, "pool": pool,
        "model": MODELS[kind], "engine": "sequential",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "manager.py", "submit", str(HERE / "fedavg.yml"), "--follow", "--json", "-q",
                 "-o", f"log_path={folder}"]
        for key, value in options.items():
            words += ["-o", f"{key}={json.dumps(value)}"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        process = Path(json.loads(done.stdout)["run_dir"]) / "ps"
        started = json.loads((process / "proc.json").read_text())["started"]
        lines = [json.loads(line) for line in (process / "metrics.jsonl").read_text().splitlines()]
    begun = next(line["time"] for line in lines if line["event"] == "evaluation")
    ends = [line["time"] for line in lines if line["event"] == "step"]
    return [after - before for before, after in zip(ends, ends[1:])], begun - started


def importing_torch() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    starts: dict[str, list[float]] = {"kuiper": [], "kuiper, pool": [], "import torch": []}
    for name in arguments.only:
        rounds = found[name] = {"by hand, 1": [], "by hand, 2": [], "kuiper": [], "kuiper, pool": []}
        for _ in range(arguments.repeats):
            starts["import torch"].append(importing_torch())
            for label, processes in (("by hand, 1", 1), ("by hand, 2", CORES)):
                rounds[label] += by_hand(name, processes)
            for label, pool in (("kuiper", None), ("kuiper, pool", CORES)):
                seconds, start = ours(name, pool)
                rounds[label] += seconds
                starts[label].append(start)
        cells = [f"{statistics.median(seconds):.4f} ({min(seconds):.4f})" for seconds in rounds.values()]
        print("|", " | ".join([name, *cells]), "|", flush=True)
    print("start to first round, median (least):",
          {label: f"{statistics.median(s):.1f} ({min(s):.1f})" for label, s in starts.items()})
    summary = {name: {label: {"median": statistics.median(s), "least": min(s)} for label, s in rounds.items()}
               for name, rounds in found.items()}
    (HERE / "simulation.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(summary)


def draw(summary: dict[str, dict[str, dict[str, float]]]) -> None:
    """Bars in units of the loop by hand in two processes: 1 is as fast, lower is faster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    labels = list(next(iter(summary.values())))
    for number, label in enumerate(labels):
        heights = [cells[label]["median"] / cells["by hand, 2"]["median"] for cells in summary.values()]
        places = [place + 0.2 * (number - 1.5) for place in range(len(summary))]
        bars = axes.bar(places, heights, 0.19, label=label, color=["#b8bfc9", "#7c8797", "#9cc4ea", "#1f6fb4"][number])
        axes.bar_label(bars, [f"{cells[label]['median'] * 1000:.0f}" for cells in summary.values()], fontsize=8)
    axes.axhline(1, color="#7c8797", linewidth=0.8)
    axes.set_xticks(range(len(summary)), list(summary))
    axes.set_ylabel("round, by hand in 2 processes = 1")
    axes.set_title("Seconds a round of FedAvg (labels: milliseconds)", fontsize=10)
    axes.legend(ncols=4, fontsize=8, frameon=False, loc="upper center")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(HERE / "simulation.png", dpi=130)


if __name__ == "__main__":
    main()
