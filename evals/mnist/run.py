"""Final accuracy of the shipped MNIST configs, and of their variations, as simulations.

    python evals/mnist/run.py [--root FOLDER] [--seeds 1 2 3] [--only NAME...]

Prints a table and writes it to results.md beside this file, with the machine it ran on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from kuiper.record import load_perf

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KRUM = "mnist_multi_krum_alie"
IPM = ["attack=ipm", "attack.eps=10"]
HONEST = ["num_byzantine=0", "attack=none"]

STUDIES: dict[str, tuple[str, list[str]]] = {
    "parameter server, average": ("mnist_parameter_server", []),
    "the same, bfloat16 rows": ("mnist_parameter_server", ["row_dtype=bfloat16"]),
    "the same, float16 rows": ("mnist_parameter_server", ["row_dtype=float16"]),
    "all-reduce": ("mnist_parameter_server", ["algorithm=all_reduce"]),
    "honest, average": (KRUM, [*HONEST, "aggregator=average"]),
    "honest, multi_krum (f = 4)": (KRUM, [*HONEST, "f=4"]),
    "4 of 20 alie, multi_krum": (KRUM, []),
    "4 of 20 ipm 10, multi_krum": (KRUM, IPM),
    "4 of 20 ipm 10, average": (KRUM, [*IPM, "aggregator=average"]),
    "elastic gossip, 4 peers": ("mnist_elastic_gossip", []),
    "fedavg, Dirichlet .3": ("mnist_fedavg_dirichlet", []),
}


def simulate(config: str, overrides: list[str]) -> Path:
    """Run a shipped config as a simulation; its run directory."""
    words = [sys.executable, "manager.py", "submit", f"configs/{config}.yml", "--simulate", "--follow", "--json", "-q"]
    for override in ["job_name=eval-mnist", *overrides]:
        words += ["-o", override]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    [job] = json.loads(done.stdout)
    return Path(job["run_dir"])


def last_evaluation(run_dir: Path) -> dict[str, Any]:
    """With the bytes until then."""
    return list(load_perf(run_dir / "ps" / "training_perf")["perf"].values())[-1]


def run(config: str, overrides: list[str]) -> tuple[float, float]:
    """Final test accuracy in percent, and megabytes of gradients, updates or parameters sent, of one run."""
    last = last_evaluation(simulate(config, overrides))
    return last["top_1: "], last["bytes_in"] / 1e6


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a folder with MNIST/raw (default: KUIPER_DATA)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    arguments = parser.parse_args()
    if arguments.root:
        os.environ["KUIPER_DATA"] = str(arguments.root.resolve())
    rows = []
    for name in arguments.only:
        config, overrides = STUDIES[name]
        runs = [run(config, [*overrides, f"seed={seed}"]) for seed in arguments.seeds]
        found = [accuracy for accuracy, _ in runs]
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        rows.append(f"| {name} | {statistics.mean(found):.2f}{spread} | {runs[0][1]:,.0f} |")
        print(rows[-1], flush=True)
    head = ["| run | test accuracy, % | rows, MB |", "|---|---|---|"]
    table = [*head, *rows, "", f"Seeds {arguments.seeds}; {machine()}."]
    (HERE / "results.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
