"""What the simulator itself costs per node and step, and the memory that a node takes, up to 10,000 nodes.

    python evals/speed/nodes.py [--nodes 10 100 1000 10000]

A model so small (softmax, d = 650, batch 10) that its arithmetic is a few microseconds. Prints a table and
writes nodes.json and nodes.png beside this file.
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
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALGORITHMS = {
    "parameter_server": {"algorithm": "parameter_server"},
    "elastic_gossip": {"algorithm": {"elastic_gossip": {"evaluated_peers": 10}}},
    "fedavg": {"algorithm": {"fedavg": {"overcommit": 1.0, "local_steps": 1}}},
}
STEPS = {10: 300, 100: 200, 1000: 60}  # others: 20
WARM_UP = 3
COLOURS = ("#1f6fb4", "#e08a1e", "#4a9a5b")


def submit(algorithm: str, nodes: int, folder: Path) -> Path:
    """Start a simulation; its run directory."""
    name = f"{algorithm}-{nodes}"
    options = ALGORITHMS[algorithm] | {"num_workers": nodes, "job_name": name, "log_path": str(folder)}
    if algorithm == "fedavg":
        options |= {"algorithm.clients_per_round": nodes}
    options |= {"rounds" if algorithm == "fedavg" else "steps": STEPS.get(nodes, 20)}
    words = [sys.executable, "manager.py", "submit", str(HERE / "nodes.yml")]
    for key, value in options.items():
        words += ["-o", f"{key}={json.dumps(value)}"]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return next((folder / name).glob("*"))


def peak(run_dir: Path) -> int:
    """Bytes of memory that the process held at most once it was running, looked at until it ends."""
    proc, most, begun = Path("/proc") / str(json.loads((run_dir / "ps/proc.json").read_text())["pid"]), 0, False
    while not (run_dir / "ps" / "exit.json").exists():
        with suppress(FileNotFoundError, ProcessLookupError):
            if not begun and b'"step"' in (run_dir / "ps" / "metrics.jsonl").read_bytes():
                (proc / "clear_refs").write_text("5")  # forget the peak that making the dataset was
                begun, most = True, 0
            lines = (proc / "status").read_text().splitlines()
            most = max([most, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.01)
    return most


def measure(algorithm: str, nodes: int, folder: Path) -> dict[str, float]:
    run_dir = submit(algorithm, nodes, folder)
    memory = peak(run_dir)
    events = [json.loads(line) for line in (run_dir / "ps" / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"][WARM_UP:]
    seconds = [after["time"] - before["time"] for before, after in zip(steps, steps[1:], strict=False)]
    return {"median": statistics.median(seconds), "least": min(seconds), "memory": memory,
            "learner": statistics.median(step["compute"] for step in steps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    arguments = parser.parse_args()
    load, found = os.getloadavg()[0], {}
    print("| algorithm | nodes | ms a step, median (least) | us a node | of them the learner's | peak MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in ALGORITHMS:
            for nodes in arguments.nodes:
                one = measure(algorithm, nodes, Path(folder))
                found[f"{algorithm} {nodes}"] = one
                each = [1e6 * one[key] / nodes for key in ("median", "learner")]
                print(f"| {algorithm} | {nodes:,} | {1e3 * one['median']:.2f} ({1e3 * one['least']:.2f}) | "
                      f"{each[0]:.1f} | {each[1]:.1f} | {one['memory'] / 1e6:.0f} |", flush=True)
    for algorithm in ALGORITHMS:
        few, many = (found[f"{algorithm} {nodes}"] for nodes in (arguments.nodes[0], arguments.nodes[-1]))
        further = arguments.nodes[-1] - arguments.nodes[0]
        print(f"{algorithm}: {1e6 * (many['least'] - few['least']) / further:.1f} us and "
              f"{(many['memory'] - few['memory']) / further:,.0f} bytes for each further node")
    print(f"load average {load:.1f} at the start")
    (HERE / "nodes.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, arguments.nodes)


def draw(found: dict[str, dict[str, float]], nodes: list[int]) -> None:
    """Milliseconds a step and peak memory by the number of nodes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for algorithm, colour in zip(ALGORITHMS, COLOURS, strict=True):
        cells = [found[f"{algorithm} {count}"] for count in nodes]
        left.loglog(nodes, [1e3 * cell["least"] for cell in cells], "o-", color=colour, label=algorithm)
        right.plot(nodes, [cell["memory"] / 1e6 for cell in cells], "o-", color=colour, label=algorithm)
    last = max(1e3 * found[f"{algorithm} {nodes[-1]}"]["least"] for algorithm in ALGORITHMS)
    left.loglog([nodes[-1] / 100, nodes[-1]], [last / 60, last / 0.6], ":", color="#7c8797", label="in proportion")
    left.set_title("Milliseconds a step, least of many", fontsize=10)
    right.set_title("Peak memory of the process, MB", fontsize=10)
    right.set_ylim(0)
    for axes in (left, right):
        axes.set_xlabel("nodes")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(HERE / "nodes.png", dpi=130)


if __name__ == "__main__":
    main()
