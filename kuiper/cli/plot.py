"""kuiper plot: accuracy against time, over the seeds of each configuration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kuiper.cli.options import AsJson, JobKeys, Quiet, Verbose
from kuiper.errors import JobFailed, JobStopped, KuiperError, NotEnded, PartlyDone, UsageError

if TYPE_CHECKING:
    from kuiper.cluster.states import JobStatus
    from kuiper.cluster.store import Job


def plot(
    jobs: JobKeys,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .png, .pdf, .svg or .eps file.")
    ] = Path("accuracy.png"),
    target: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Say when each got there.")
    ] = None,
    x: Annotated[
        Literal["time", "round", "step"] | None,
        typer.Option("--x", help="One panel, against time or against rounds or steps, instead of both."),
    ] = None,
    width: Annotated[
        Literal["column", "page"] | None,
        typer.Option(help="As wide as a column (3.25 in) or a page (6.75 in) of a paper, without a title."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw and tabulate the accuracy of jobs; those that differ only in their seed become one line.

    It is their mean, with its 95 % confidence interval. Jobs that have not ended, were stopped, failed or
    diverged are marked. A job without an evaluation is left out, and the exit code is then 104.
    """
    from kuiper.cli.show import fail, note, print_json
    from kuiper.cluster.store import find, observe

    percent = None if target is None else parse_percent(target)
    from kuiper.analysis import (
        Width,
        X,
        caption,
        cautions,
        check_clocks,
        check_output,
        compare,
        load_curves,
        plot_curves,
    )

    check_output(output)
    axis = None if x is None else X.TIME if x == "time" else X.ROUND
    found = [find(key) for key in jobs]
    statuses = observe([job for same in found for job in same])
    seen = {job.run_dir: status for job, status in zip((job for same in found for job in same), statuses, strict=True)}
    run_dirs, lacking = _begun(found, seen)
    if not run_dirs:
        raise _none(lacking)
    curves = load_curves(run_dirs, {run_dir: seen[run_dir].state.value for run_dir in run_dirs})
    check_clocks(curves, axis)
    rows = compare(curves, percent)
    plot_curves(curves, output, axis, width and Width(width))
    for row in rows:
        for folder in row["left_out"]:
            state = seen[Path(folder)].state.value
            note(f"{folder} ({state}) has not come as far as other seeds of {row['label']}: left out")
    warned = cautions(curves)
    for caution in warned:
        note(f"note: {caution}")
    below = caption(curves)
    if as_json:
        print_json({"output": str(output.absolute()), "configurations": rows, "caption": below, "cautions": warned})
    elif not quiet:
        print_table(rows)
        print(output)
        if width:
            print(f"caption: {below}")
    if lacking:
        fail(PartlyDone("left out: " + "; ".join(each.message for each in lacking), lacking[0].remedy), as_json)


def parse_percent(text: str) -> float:
    """A --target; below 1 only with a percent sign.

    Raises:
        UsageError: it is no percentage, or may have been meant as a fraction.
    """
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise UsageError(f"--target {text!r} must be a number above 0 and up to 100, percent", "for 90 %: --target 90")
    if value <= 1 and not text.endswith("%"):
        raise UsageError(
            f"--target {text} is {value:g} %, and accuracies are in percent",
            f"for {100 * value:g} % write --target {100 * value:g}; to mean {value:g} %, --target {value:g}%",
        )
    return value


def _begun(found: Sequence[Sequence[Job]], seen: Mapping[Path, JobStatus]) -> tuple[list[Path], list[KuiperError]]:
    """Run directories with an evaluation, each once; and of each key that has none, why."""
    from kuiper.cli.show import note

    run_dirs: dict[Path, None] = {}
    lacking = []
    for same in found:
        begun = [job for job in same if job.paths.process(job.processes[0].name).training_perf.exists()]
        run_dirs |= dict.fromkeys(job.run_dir for job in begun)
        without = [_without(job, seen[job.run_dir]) for job in same if job not in begun]
        if not begun:
            lacking.append(without[0])
        for each in without if begun else ():
            note(f"{each.message}: left out")
    return list(run_dirs), lacking


def _without(job: Job, status: JobStatus) -> KuiperError:
    """Why nothing can be drawn of a job, with the exit code that its state has."""
    from kuiper.cluster.states import State

    name, state = f"{job.job_name} {job.run_id}", status.state
    here = job.host(job.processes[0]).name == "localhost"
    if not here and (status.evaluation or state is State.SUCCEEDED):
        return PartlyDone(f"the evaluations of {name} are on {job.processes[0].host}",
                          f"bring them first: `kuiper collect {job.run_id}`")
    why = f": {status.reason}" if status.reason else ""
    if not state.final:
        return NotEnded(f"{name} is {state} and has no evaluation yet",
                        f"wait for the first: `kuiper status {job.run_id} -w`")
    if state is State.STOPPED:
        return JobStopped(f"{name} was stopped before its first evaluation",
                          f"run it again: `kuiper retry {job.run_id}`")
    return JobFailed(f"{name} is {state} and has no evaluation{why}",
                     f"see why: `kuiper logs {job.run_id} --errors`")


def _none(lacking: Sequence[KuiperError]) -> KuiperError:
    """One error for jobs none of which can be drawn; of the worst of them."""
    worst = min(lacking, key=lambda each: each.exit_code)
    return type(worst)("; ".join(each.message for each in lacking), worst.remedy)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of `kuiper.analysis.compare`, for a person."""
    from rich.table import Table

    from kuiper.cli.show import console

    table = Table(box=None, pad_edge=False)
    for column in ("configuration", "seeds", "state", "accuracy", "best", f"time to {rows[0]['target']:g} %"):
        table.add_column(column, overflow="fold")
    for row in rows:
        count, all_seeds = len(row["seeds"]), len(row["seeds"]) + len(row["left_out"])
        unit = "s simulated" if row["virtual"] else "s"
        table.add_row(
            row["label"], f"{count} of {all_seeds}" if row["left_out"] else str(count), _state(row),
            _with_interval(row, "top_1", ".2f", "%"), _with_interval(row, "best_top_1", ".2f", "%"),
            _with_interval(row, "time_to_target", ".3g", unit) or f"{row['reached']} of {count} there",
        )  # fmt: skip
    console().print(table)


def _state(row: Mapping[str, Any]) -> str:
    """The states of a row's runs, and where they diverged."""
    count, states = len(row["states"]), Counter(filter(None, row["states"]))
    said = [state if count == 1 else f"{of} {state}" for state, of in states.items()]
    broken = [step for step in row["diverged"] if step is not None]
    if broken:
        said.append(f"diverged at {row['unit']} {broken[0]}" if count == 1 else
                    f"{len(broken)} of {count} diverged, the first at {row['unit']} {min(broken)}")
    return ", ".join(said)


def _with_interval(row: Mapping[str, Any], key: str, form: str, unit: str) -> str:
    """A mean and its half-width, '' without one."""
    if row[key] is None:
        return ""
    half = "" if row[f"{key}_ci"] is None else f" ± {row[f'{key}_ci']:{form}}"
    return f"{row[key]:{form}}{half} {unit}"
