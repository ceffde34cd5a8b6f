"""Stop a job: TERM by its agents, `grace`, KILL, a sweep for the marker, a check that nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kuiper.cluster.host import AT_ONCE, connect
from kuiper.cluster.site import Site
from kuiper.cluster.states import JobStatus
from kuiper.cluster.store import Job, observe
from kuiper.errors import HostError, PartlyDone

MARGIN = 30.0
"""Seconds that a host may take on top of `grace`: its agents' last sweep, ours, the connection."""


def stop(job: Job, grace: float | None = None) -> JobStatus:
    """Stop every process of a job, on all hosts at once, and say what state that left it in. Safe to repeat.

    Args:
        grace: seconds between TERM and KILL; the spec's when None.

    Raises:
        PartlyDone: a host could not be reached, or something there survived KILL; the rest is stopped.
    """
    return stop_all([job], grace)[0]


def stop_all(jobs: Sequence[Job], grace: float | None = None) -> list[JobStatus]:
    """`stop` jobs, the last first, so that none of them gets its turn because another was stopped.

    Raises:
        PartlyDone: as `stop`, after all have been tried.
    """
    failures: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for job in reversed(jobs):
            failures += filter(None, pool.map(partial(_stop_on, job, grace), job.sites))
    if failures:
        again = f"`kuiper stop {jobs[0].series if len(jobs) > 1 else jobs[0].run_id}` again when that is mended"
        raise PartlyDone("; ".join(failures), f"{again}: it is safe to repeat")
    return observe(jobs, detailed=True)


def _stop_on(job: Job, grace: float | None, site: Site) -> str:
    """Stop what the job has on one host; '' or what could not be done."""
    host, wait = connect(site.address), job.grace if grace is None else grace
    words = ["stop", job.run_id, f"{wait:g}", *job.folders(site)]
    try:
        result = host.run([host.python, "-I", host.agent, *words], timeout=wait + MARGIN)
    except HostError as error:
        return error.message
    if result.code == 0:
        return ""
    try:
        left = result.answer()["left"]
    except ValueError:
        return f"{host.name}: {result.err.strip()}"
    if others := {who["node"] for who in left if "node" in who}:
        return f"{host.name}: it was started on {', '.join(sorted(others))}, and has not stopped there yet"
    return f"{host.name}: pid {', '.join(str(who['pid']) for who in left)} survived KILL"
