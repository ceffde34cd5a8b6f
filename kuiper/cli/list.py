"""kuiper list: the jobs on record."""

from __future__ import annotations

from typing import Annotated

import typer

from kuiper.cli.options import AsJson, Quiet, Verbose


def list_jobs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show the newest N.")] = 20,
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
        note,
        number,
        print_json,
        program,
    )
    from kuiper.cluster.resume import unit_of
    from kuiper.cluster.store import jobs, observe

    seen = jobs()[-limit:][::-1]
    statuses = observe(seen)
    if as_json:
        print_json([job_json(job, status) for job, status in zip(seen, statuses, strict=True)])
        return
    if quiet:
        print("\n".join(job.run_id for job in seen))
        return
    if not seen:
        note(f"nothing has been submitted yet: {program()} submit conf.yml")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("job", "run id", "state", "submitted", "mode", "accuracy"):
        table.add_column(column, overflow="fold", no_wrap=column != "job")
    for job, status in zip(seen, statuses, strict=True):
        state = Text(status.state.value, COLOURS.get(status.state.value, ""))
        accuracy = number((status.evaluation or {}).get("top_1"), "{:.2f}%")
        accuracy = ", ".join(filter(None, [accuracy, divergence_text(status.diverged, unit_of(job) if status.diverged is not None else "")]))
        table.add_row(job.job_name, job.run_id, state, age(job.created), job.mode, accuracy)
    console().print(table)
