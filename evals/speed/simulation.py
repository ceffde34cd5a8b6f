"""Seconds a round of federated averaging: kuiper, with and without a pool, against a loop written by hand.

    python evals/speed/simulation.py [--rounds 40] [--only mlp-32 ...]

The contenders live side by side and take turns, a round each, so that whatever else the machine does meets all.
Prints a table and writes simulation.json and simulation.png beside this file.
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
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORKLOADS = {  # network, clients, per round, samples, batch
    "mlp-32": ("mlp", 100, 10, 320, 32),
    "mlp-10": ("mlp", 1000, 50, 50, 10),
    "cnn-32": ("cnn", 100, 10, 320, 32),
    "cnn-10": ("cnn", 1000, 50, 50, 10),
}
MODELS = {"mlp": {"mlp": {"hidden": [100]}}, "cnn": "mnist_cnn"}
CORES = 2
CONTENDERS = {"by hand, 1 process": 1, "by hand, 2 processes": CORES, "kuiper": None, "kuiper, pool: 2": CORES}
WARM_UP = 2  # rounds


class Contender:
    """Something that runs a round when it is told to."""

    def __init__(self, words: list[str], pipes: tuple[Path, Path] | None = None, **environment: str) -> None:
        """Without pipes it is told on its standard input, and says on its output that a round is done."""
        std = None if pipes else subprocess.PIPE
        self.process = subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, stdin=std,
                                        stdout=std or subprocess.DEVNULL, text=True)
        self.go = open(pipes[0], "w", buffering=1) if pipes else self.process.stdin
        self.done = open(pipes[1]) if pipes else self.process.stdout
        self.wait()

    def wait(self) -> None:
        if not self.done.readline():
            sys.exit(f"{self.process.args} ended too early")

    def round(self) -> float:
        began = time.perf_counter()
        print(file=self.go, flush=True)
        self.wait()
        return time.perf_counter() - began

    def end(self) -> None:
        self.go.close()
        self.process.wait()


def by_hand(name: str, processes: int) -> Contender:
    words = [sys.executable, str(HERE / "bare.py"), *map(str, WORKLOADS[name]), str(processes)]
    return Contender(words, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")


def ours(name: str, pool: int | None, rounds: int, folder: Path) -> tuple[Contender, float]:
    """And the seconds from its start to its first round."""
    kind, clients, per_round, samples, batch = WORKLOADS[name]
    pipes = folder / f"go-{pool}", folder / f"done-{pool}"
    for pipe in pipes:
        os.mkfifo(pipe)
    options = {
        "job_name": f"speed-{pool}", "log_path": str(folder), "num_workers": clients, "batch_size": batch,
        "algorithm.clients_per_round": per_round, "algorithm.local_steps": samples // batch, "pool": pool,
        "dataset.samples": clients * samples, "rounds": rounds, "model": MODELS[kind], "engine": "sequential",
        "selector.go": str(pipes[0]), "selector.done": str(pipes[1]),
    }  # fmt: skip
    words = [sys.executable, "manager.py", "submit", str(HERE / "fedavg.yml"), "--follow", "-q"]
    for key, value in options.items():
        words += ["-o", f"{key}={json.dumps(value)}"]
    contender = Contender(words, pipes)
    begun = time.time()
    proc = next((folder / f"speed-{pool}").glob("*/ps/proc.json"))
    return contender, begun - json.loads(proc.read_text())["started"]


def play(name: str, rounds: int, starts: dict[str, list[float]]) -> dict[str, list[float]]:
    """Seconds of each contender's rounds."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contenders = {}
        for label, count in CONTENDERS.items():
            if label.startswith("kuiper"):
                contenders[label], start = ours(name, count, rounds + WARM_UP, Path(folder))
                starts.setdefault(label, []).append(start)
            else:
                contenders[label] = by_hand(name, count)
            stack.callback(contenders[label].end)
        found: dict[str, list[float]] = {label: [] for label in contenders}
        for turn in range(rounds + WARM_UP - 1):  # after its last, kuiper evaluates and ends
            for label, contender in contenders.items():
                seconds = contender.round()
                if turn >= WARM_UP:
                    found[label].append(seconds)
        for label in CONTENDERS:
            if label.startswith("kuiper"):
                print(file=contenders[label].go, flush=True)
    return found


def importing_torch() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    arguments = parser.parse_args()
    starts: dict[str, list[float]] = {"import torch": []}
    summary = {}
    print("|", " | ".join(["workload", *CONTENDERS]), "|\n|", "---|" * (1 + len(CONTENDERS)))
    for name in arguments.only:
        starts["import torch"].append(importing_torch())
        found = play(name, arguments.rounds, starts)
        summary[name] = {label: {"median": statistics.median(s), "least": min(s)} for label, s in found.items()}
        cells = [f"{each['median']:.4f} ({each['least']:.4f})" for each in summary[name].values()]
        print("|", " | ".join([name, *cells]), "|", flush=True)
    print("\nstart to first round, median (least):",
          {label: f"{statistics.median(s):.1f} ({min(s):.1f})" for label, s in starts.items()})
    (HERE / "simulation.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(summary)


def draw(summary: dict[str, dict[str, dict[str, float]]]) -> None:
    """Bars in units of the loop by hand in two processes; its rounds in milliseconds stand above."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    reference = list(CONTENDERS)[1]
    for number, (label, colour) in enumerate(zip(CONTENDERS, ["#c6ccd5", "#7c8797", "#a5c8ec", "#1f6fb4"])):
        least = [cells[label]["least"] for cells in summary.values()]
        heights = [each / cells[reference]["least"] for each, cells in zip(least, summary.values())]
        bars = axes.bar([at + 0.2 * (number - 1.5) for at in range(len(summary))], heights, 0.19, label=label,
                        color=colour)
        axes.bar_label(bars, [f"{each * 1000:.0f}" for each in least], fontsize=8)
    axes.axhline(1, color="#7c8797", linewidth=0.8)
    axes.set_xticks(range(len(summary)), [
        f"{name}\n{clients} clients, {per_round} a round" for name, (_, clients, per_round, *_) in WORKLOADS.items()
        if name in summary])  # fmt: skip
    axes.set_ylabel("relative to by hand, 2 processes")
    axes.set_title("A round of FedAvg, least of many (labels: milliseconds)", fontsize=10)
    axes.legend(ncols=4, fontsize=8, frameon=False, loc="upper center")
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "simulation.png", dpi=130)


if __name__ == "__main__":
    main()
