"""kuiper wait: until jobs have ended."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from kuiper.cli.options import AsJson, JobKeys, Quiet, Verbose, time_given

REFRESH = 1.0


def wait(
    jobs: JobKeys,
    timeout: Annotated[
        float | None, typer.Option(parser=time_given, metavar="TIME", help="Then exit with 101: 90s, 2h.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Wait for jobs; the exit code is 0, or that of one that failed, has not ended, or was stopped.

    A host that cannot be asked is said, and asked again.
    """
    from kuiper.cli.show import divergence_text, job_json, print_json, worst
    from kuiper.cli.troubles import Troubles, unreached
    from kuiper.cluster.resume import unit_of
    from kuiper.cluster.store import find, observe

    found = [one for job in jobs for one in find(job)]
    deadline = None if timeout is None else time.monotonic() + timeout
    statuses, troubles = observe(found), Troubles()
    while not all(status.state.final for status in statuses):
        if deadline is not None and time.monotonic() > deadline:
            break
        troubles.tell(unreached(statuses))
        time.sleep(REFRESH)
        statuses = observe(found)
    if as_json:
        print_json([job_json(job, status) for job, status in zip(found, statuses, strict=True)])
    elif not quiet:
        for job, status in zip(found, statuses, strict=True):
            told = (job.job_name, job.run_id, status.state, divergence_text(status.diverged, unit_of(job)), status.reason)
            print(" ".join(filter(None, told)))
    raise typer.Exit(worst(statuses))
