"""kuiper plot: accuracy against time, over the seeds of each configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kuiper.cli.options import AsJson, JobKeys, Quiet, Verbose


def plot(
    jobs: JobKeys,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG")] = Path("accuracy.png"),
    target: Annotated[
        float | None, typer.Option(min=0, max=100, metavar="PERCENT", help="Say when each got there.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw and tabulate the accuracy of jobs; those that differ only in their seed become one line.

    It is their mean, with its 95 % confidence interval.
    """
    from kuiper.cli.show import note, print_json
    from kuiper.cluster.store import find

    run_dirs = []
    for key in jobs:
        found = find(key)
        begun = [job for job in found if job.paths.process(job.processes[0].name).training_perf.exists()]
        for job in found if begun else ():
            if job not in begun:
                note(f"{job.job_name} {job.run_id} has no evaluation yet: left out")
        run_dirs += [job.run_dir for job in begun or found]
    from kuiper.analysis import compare, load_curves, plot_curves  # brings matplotlib

    curves = load_curves(list(dict.fromkeys(run_dirs)))
    rows = compare(curves, target)
    plot_curves(curves, output)
    for row in rows:
        for folder in row["left_out"]:
            note(f"{folder} has not come as far as other seeds of {row['label']}: left out")
    if as_json:
        print_json({"output": str(output.absolute()), "configurations": rows})
    elif not quiet:
        print_table(rows)
        print(output)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of `kuiper.analysis.compare`, for a person."""
    from rich.table import Table

    from kuiper.cli.show import console

    table = Table(box=None, pad_edge=False)
    any_diverged = any(step is not None for row in rows for step in row["diverged"])
    for column in ("configuration", "seeds", "accuracy", "best", f"time to {rows[0]['target']:g} %",
                   *["diverged"] * any_diverged):
        table.add_column(column, overflow="fold")
    for row in rows:
        count, all_seeds = len(row["seeds"]), len(row["seeds"]) + len(row["left_out"])
        table.add_row(
            row["label"], f"{count} of {all_seeds}" if row["left_out"] else str(count),
            _with_interval(row, "top_1", ".2f", "%"), _with_interval(row, "best_top_1", ".2f", "%"),
            _with_interval(row, "time_to_target", ".3g", "s") or f"{row['reached']} of {count} there",
            *[_divergence(row)] * any_diverged,
        )  # fmt: skip
    console().print(table)


def _divergence(row: Mapping[str, Any]) -> str:
    """Of a configuration with one seed where it diverged; of several, how many did and the first such step."""
    steps = [step for step in row["diverged"] if step is not None]
    of_all = f"{len(steps)} of {len(row['seeds'])}, " if len(row["seeds"]) > 1 else ""
    return f"{of_all}at {row['unit']} {min(steps)}" if steps else ""


def _with_interval(row: Mapping[str, Any], key: str, form: str, unit: str) -> str:
    """A mean and its half-width, '' without one."""
    if row[key] is None:
        return ""
    half = "" if row[f"{key}_ci"] is None else f" ± {row[f'{key}_ci']:{form}}"
    return f"{row[key]:{form}}{half} {unit}"
