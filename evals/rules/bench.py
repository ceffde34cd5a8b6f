"""Speed and memory of every rule, beside ByzFL 0.0.11 and beside what its arithmetic cannot do without.

    python -m evals.rules.bench               # all: two sizes, growth, memory; half an hour
    python -m evals.rules.bench --quick       # the two sizes with few passes

Writes results.json and, from it, results.md and speed.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from evals.rules.pairs import PAIRS, Pair
from evals.rules.report import report

HERE = Path(__file__).parent
SIZES = [(25, 1_000_000, 5), (100, 100_000, 20)]
SUBSETS = (15, 100_000, 3)
"""Where ByzFL's search over all sets comes to an end too."""
WIDTHS = [(25, 10**power, 5) for power in (4, 5, 6, 7, 8)]
HEIGHTS = [(n, 100_000, f) for n, f in ((10, 1), (25, 5), (50, 10), (100, 20), (200, 40))]
SPARE = 3 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[pair.name for pair in PAIRS])
    options = parser.parse_args()
    passes = 3 if options.quick else options.passes
    found: dict[str, Any] = {"threads": options.threads, "sizes": [], "growth": [], "memory": []}
    pairs = [pair for pair in PAIRS if pair.name in options.only]

    def add(part: str, what: str, pair: Pair, size: tuple[int, int, int], passes: int) -> None:
        found[part].append(_ask(what, pair.name, *size, passes, options.threads, part != "growth"))
        _write(found)

    for pair in pairs:
        for size in [*SIZES, SUBSETS] if pair.kind == "search" else SIZES:
            add("sizes", "times", pair, size, passes)
    for pair in pairs if not options.quick else ():
        add("memory", "memory", pair, SIZES[0], 1)
    for size in sorted({*WIDTHS, *HEIGHTS}, key=lambda size: size[0] * size[1]):
        for pair in pairs if not options.quick else ():
            room = SPARE + 4 * size[0] * size[1] * (2 if pair.group == "pre_aggregator" else 1)
            if room < _free() and (pair.kind != "search" or size in WIDTHS[:3]):
                add("growth", "times", pair, size, 3)
    report(found, HERE)


def _write(found: dict[str, Any]) -> None:
    """A line for each measurement."""
    parts = [f'"threads": {found["threads"]}']
    for part in ("sizes", "growth", "memory"):
        parts.append(f'"{part}": [\n' + ",\n".join(map(json.dumps, found[part])) + "]")
    (HERE / "results.json").write_text("{" + ",\n".join(parts) + "}\n")


def _ask(what: str, rule: str, n: int, d: int, f: int, passes: int, threads: int,
         byzfl: bool) -> dict[str, Any]:
    ask = {"what": what, "rule": rule, "n": n, "d": d, "f": f, "passes": passes, "threads": threads,
           "byzfl": byzfl}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    words = [sys.executable, "-W", "ignore", "-m", "evals.rules.measure", json.dumps(ask)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    answer = json.loads(done.stdout.splitlines()[-1], parse_float=lambda number: round(float(number), 3))
    print(rule, n, d, {who: values for who, values in answer.items() if who == "why"} or "", flush=True)
    return ask | {"answer": answer}


def _free() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


if __name__ == "__main__":
    main()
