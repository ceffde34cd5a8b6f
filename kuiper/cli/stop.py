"""kuiper stop: end a job and everything it left."""

from __future__ import annotations

from typing import Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose, time_given


def stop(
    job: JobKey,
    grace: Annotated[
        float | None, typer.Option(parser=time_given, metavar="TIME", help="From TERM to KILL: 30s, 2m.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Stop a job; says so only after checking that no process of it is left. Safe to repeat."""
    from kuiper.cli.show import job_json, print_json
    from kuiper.cluster.stop import stop_all
    from kuiper.cluster.store import find

    found = find(job)
    statuses = stop_all(found, grace)
    if as_json:
        print_json([job_json(one, status) for one, status in zip(found, statuses, strict=True)])
    elif not quiet:
        for one, status in zip(found, statuses, strict=True):
            print(f"{one.job_name} {one.run_id} is {status.state}; no process of it is left")
