"""What `precision` and `row_dtype` give and cost on MNIST, and what `buffers` does to a net with BatchNorm.

    python evals/mnist/options.py [--root FOLDER] [--only precision buffers]

Prints the tables and writes each beside this file, with the machine it ran on.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

from run import HERE, last_evaluation, machine, simulate

from kuiper.record.metrics import read_metrics

DTYPES = ("float32", "bfloat16", "float16")
PHASES = ("compute", "wait", "aggregate", "communicate")
CNN = ["model=mnist_cnn", "epochs=1", "eval_interval=1000"]
TWO_DIGITS = ["model.norm=batch", "partition=shards", "partition.shards_per_node=2"]
FEDAVG = [*TWO_DIGITS, "rounds=30", "eval_interval=30"]
GOSSIP = [*TWO_DIGITS, "num_workers=5", "epochs=1", "eval_interval=1000"]


def seconds_a_step(run_dir: Path) -> str:
    """Median and least over the steps after the first, without evaluations."""
    steps = [line for line in read_metrics(run_dir / "ps" / "metrics.jsonl") if line["event"] == "step"]
    seconds = [sum(step[phase] for phase in PHASES) for step in steps[1:]]
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f})"


def precision() -> Iterator[str]:
    """A parameter server with ten workers and the CNN of 431,080 parameters."""
    yield "| precision | row_dtype | test accuracy, % | bytes in, a step | seconds a step |"
    yield "|---|---|---|---|---|"
    for computed in ("float32", "bfloat16"):
        for sent in DTYPES:
            done = simulate("mnist_parameter_server", [*CNN, f"precision={computed}", f"row_dtype={sent}"])
            bytes_in = read_metrics(done / "ps" / "metrics.jsonl")[2]["bytes_in"]
            yield (f"| {computed} | {sent} | {last_evaluation(done)['top_1: ']:.2f} | {bytes_in:,} | "
                   f"{seconds_a_step(done)} |")


def buffers() -> Iterator[str]:
    """A perceptron with BatchNorm; every node has two of the ten digits."""
    yield "| algorithm | buffers | test accuracy, % | worst peer, % | average model, % | test loss |"
    yield "|---|---|---|---|---|---|"
    for config, how, settings in (("mnist_fedavg_dirichlet", FEDAVG, ("reestimate", "aggregate")),
                                  ("mnist_elastic_gossip", GOSSIP, ("reestimate", "aggregate", "local"))):
        for setting in settings:
            last = last_evaluation(simulate(config, [*how, f"buffers={setting}"]))
            peers = [f"{last[key]:.2f}" if key in last else "" for key in ("worst", "average_model")]
            name = config.removeprefix("mnist_").removesuffix("_dirichlet").replace("_", " ")
            cells = [name, setting, f"{last['top_1: ']:.2f}", *peers, f"{last['loss']:.3f}"]
            yield f"| {' | '.join(cells)} |"


STUDIES = {"precision": precision, "buffers": buffers}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--root", type=Path, help="a folder with MNIST/raw (default: KUIPER_DATA)")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    arguments = parser.parse_args()
    if arguments.root:
        os.environ["KUIPER_DATA"] = str(arguments.root.resolve())
    for name in arguments.only:
        table = []
        for row in STUDIES[name]():
            table.append(row)
            print(row, flush=True)
        (HERE / f"{name}.md").write_text("\n".join([*table, "", f"Seed 1; {machine()}."]) + "\n")


if __name__ == "__main__":
    main()
