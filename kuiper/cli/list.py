"""kuiper list: the jobs on record."""

from __future__ import annotations

from typing import Annotated

import typer

from kuiper.cli.options import AsJson, Quiet, Verbose


def list_jobs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show the newest N.")] = 20,
    every: Annotated[bool, typer.Option("--all", "-a", help="Show all.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List jobs, the newest first; -q prints run ids only."""
    from kuiper.cli.show import (
        COLOURS,
        age,
        console,
        divergence_text,
        job_json,
        mode,
        note,
        number,
        print_json,
    )
    from kuiper.cluster.resume import unit_of
    from kuiper.cluster.store import damaged, jobs, observe

    known = jobs()
    seen = (known if every else known[-limit:])[::-1]
    for path in damaged():
        note(f"{path} is damaged: that run is left out")
    if len(seen) < len(known) and not quiet:
        note(f"the newest {len(seen)} of {len(known)} runs: `kuiper list --all` shows all, -n N another number")
    statuses = observe(seen)
    if as_json:
        print_json([job_json(job, status) for job, status in zip(seen, statuses, strict=True)])
        return
    if quiet:
        print("\n".join(job.run_id for job in seen))
        return
    if not seen:
        note("nothing has been submitted yet: `kuiper submit conf.yml`")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("job", "run id", "state", "submitted", "mode", "accuracy"):
        table.add_column(column, overflow="fold", no_wrap=column != "job")
    for job, status in zip(seen, statuses, strict=True):
        state = Text(status.state.value, COLOURS.get(status.state.value, ""))
        accuracy = number((status.evaluation or {}).get("top_1"), "{:.2f}%")
        diverged = divergence_text(status.diverged, unit_of(job)) if status.diverged is not None else ""
        accuracy = ", ".join(filter(None, [accuracy, diverged]))
        table.add_row(job.job_name, job.run_id, state, age(job.created), mode(job), accuracy)
    console().print(table)
