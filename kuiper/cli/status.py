"""kuiper status: every process of a job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose

if TYPE_CHECKING:
    from rich.console import Console, Group

    from kuiper.cluster.states import JobStatus
    from kuiper.cluster.store import Job

REFRESH = 1.0


def status(
    job: JobKey,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until the job ends.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a job: per process its state, why, step or round, rate, training loss and the age of its heartbeat."""
    from kuiper.cli.show import console, fail, print_json, status_json
    from kuiper.cli.troubles import unreached
    from kuiper.cluster.store import find, observe
    from kuiper.errors import PartlyDone

    found = find(job)
    seen = observe(found, detailed=True)
    out = console()
    live = watch and out.is_terminal and not (as_json or quiet)
    try:
        if live:
            seen = _watch(found, seen, out)
        while True:
            if as_json:
                states = [status_json(one, status) for one, status in zip(found, seen, strict=True)]
                print_json(states, None if watch else 2)
            elif quiet:
                print("\n".join(status.state.value for status in seen), flush=True)
            over = not watch or all(status.over for status in seen)
            if over:
                break
            time.sleep(REFRESH)
            seen = observe(found, detailed=True)
    except KeyboardInterrupt:
        return
    if not (live or as_json or quiet):
        out.print(_views(found, seen))
    failures = unreached(seen)
    if failures:
        fail(PartlyDone("; ".join(failures.values()), "what is shown of it is what was last seen"), as_json)


def _watch(jobs: Sequence[Job], seen: Sequence[JobStatus], console: Console) -> Sequence[JobStatus]:
    """A live table until all have ended; a host that cannot be reached is asked again and again."""
    from rich.live import Live

    from kuiper.cluster.store import observe

    with Live(_views(jobs, seen), console=console, auto_refresh=False) as live:
        while not all(status.over for status in seen):
            time.sleep(REFRESH)
            seen = observe(jobs, detailed=True)
            live.update(_views(jobs, seen), refresh=True)
    return seen


def _views(jobs: Sequence[Job], seen: Sequence[JobStatus]) -> Group:
    from rich.console import Group

    return Group(*(_view(job, status) for job, status in zip(jobs, seen, strict=True)))


def _view(job: Job, seen: JobStatus) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from kuiper.cli.show import COLOURS, age, divergence_text, evaluation_text, mode, number, short
    from kuiper.cluster.resume import unit_of
    from kuiper.cluster.states import State

    evaluation, queued, unit = seen.evaluation, seen.state is State.QUEUED, unit_of(job)
    head = Text.assemble(
        (job.job_name, "bold"), f"  {job.run_id}  ", (seen.state.value, COLOURS.get(seen.state.value, "")),
        f" {seen.reason}" if queued else "", (f"  {divergence_text(seen.diverged, unit)}".rstrip(), "yellow"),
        f"  submitted {age(job.created)}, {mode(job)}\n{short(job.run_dir)}",
        f"\n{unit} {evaluation.get('step')}: {evaluation_text(evaluation, unit)}" if evaluation else "",
    )  # fmt: skip
    table = Table(box=None, pad_edge=False)
    for column in ("process", "host", "state", "pid", unit, "rate", "training loss", "heartbeat"):
        table.add_column(column, overflow="fold")
    for process in seen.processes:
        table.add_row(
            process.name, process.host, Text(process.state.value, COLOURS.get(process.state.value, "")),
            number(process.pid, "{}"), number(process.step, "{}"), number(process.rate, "{:.3g}", f" {unit}s/s"),
            process.non_finite.get("loss") or number(process.loss), number(process.heartbeat_age, "{:.0f}", " s ago"),
        )  # fmt: skip
    reasons = [Text(f"{process.name}: {process.reason}") for process in seen.processes if process.reason]
    return Group(head, table, *(() if queued else reasons))
