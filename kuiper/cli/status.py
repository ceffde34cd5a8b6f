"""kuiper status: every process of a job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose

if TYPE_CHECKING:
    from rich.console import Group

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
    """Show a job: per process its state, why, step, rate, loss and the age of its heartbeat."""
    from kuiper.cli.show import console, print_json, status_json
    from kuiper.cluster.store import find, observe

    found = find(job)
    seen = observe([found], detailed=True)[0]
    if as_json or quiet:
        while True:
            print(seen.state.value) if quiet else print_json(status_json(found, seen), None if watch else 2)
            if not watch or seen.state.final:
                return
            time.sleep(REFRESH)
            seen = observe([found], detailed=True)[0]
    out = console()
    if not watch or not out.is_terminal:
        out.print(_view(found, seen))
    if watch and out.is_terminal:
        _watch(found, seen, out)
    elif watch:
        while not seen.state.final:
            time.sleep(REFRESH)
            seen = observe([found], detailed=True)[0]
        out.print(_view(found, seen))


def _watch(job: Job, seen: JobStatus, console: object) -> None:
    from rich.live import Live

    from kuiper.cluster.store import observe

    try:
        with Live(_view(job, seen), console=console, auto_refresh=False) as live:  # type: ignore[arg-type]
            while not seen.state.final or seen.alive:
                time.sleep(REFRESH)
                seen = observe([job], detailed=True)[0]
                live.update(_view(job, seen), refresh=True)
    except KeyboardInterrupt:
        return


def _view(job: Job, seen: JobStatus) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from kuiper.cli.show import COLOURS, age, evaluation_text, number, short

    evaluation = seen.evaluation
    head = Text.assemble(
        (job.job_name, "bold"), f"  {job.run_id}  ", (seen.state.value, COLOURS.get(seen.state.value, "")),
        f"  submitted {age(job.created)}, {job.mode}\n{short(job.run_dir)}",
        f"\nstep {evaluation.get('step')}: {evaluation_text(evaluation)}" if evaluation else "",
    )  # fmt: skip
    table = Table(box=None, pad_edge=False)
    for column in ("process", "host", "state", "pid", "step", "rate", "loss", "heartbeat"):
        table.add_column(column, overflow="fold")
    for process in seen.processes:
        table.add_row(
            process.name, process.host, Text(process.state.value, COLOURS.get(process.state.value, "")),
            number(process.pid, "{}"), number(process.step, "{}"), number(process.rate, "{:.3g}", "/s"),
            number(process.loss), number(process.heartbeat_age, "{:.0f}", " s ago"),
        )  # fmt: skip
    reasons = [Text(f"{process.name}: {process.reason}") for process in seen.processes if process.reason]
    return Group(head, table, *reasons)
