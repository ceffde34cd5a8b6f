"""kuiper retry: a job once more, from the beginning."""

from __future__ import annotations

from kuiper.cli.options import AsJson, Follow, JobKey, Quiet, Verbose


def retry(
    job: JobKey,
    follow: Follow = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a job again from the beginning, as a new run: the same configuration, hosts and code snapshot.

    `resume` goes on with a run instead, from its last checkpoint.
    """
    from kuiper.cli.progress import progress
    from kuiper.cli.submit import show
    from kuiper.cluster.retry import retry as retry_jobs
    from kuiper.cluster.store import find

    with progress(hidden=quiet or as_json) as say:
        retried = retry_jobs(find(job), say)
    show(retried, follow, as_json, quiet)
