"""kuiper stop: end a job and everything it left."""

from __future__ import annotations

from typing import Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose


def stop(
    job: JobKey,
    grace: Annotated[float | None, typer.Option("--grace", min=0, help="Seconds from TERM to KILL.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Stop a job; says so only after checking that no process of it is left. Safe to repeat."""
    from kuiper.cli.show import job_json, print_json
    from kuiper.cluster.stop import stop as stop_job
    from kuiper.cluster.store import find

    found = find(job)
    status = stop_job(found, grace)
    if as_json:
        print_json(job_json(found, status))
    elif not quiet:
        print(f"{found.job_name} {found.run_id} is {status.state}; no process of it is left")
