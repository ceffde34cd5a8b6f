"""kuiper resume: go on with a job that did not reach its end."""

from __future__ import annotations

from kuiper.cli.options import AsJson, Follow, JobKey, Quiet, Verbose


def resume(
    job: JobKey,
    follow: Follow = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go on with a job from the newest checkpoint that all its processes have, in the same run directory."""
    from kuiper.cli.progress import progress
    from kuiper.cli.submit import show
    from kuiper.cluster.resume import resume as resume_job
    from kuiper.cluster.store import find

    with progress(hidden=quiet or as_json) as say:
        resumed = resume_job(find(job), say)
    show(resumed, follow, as_json, quiet)
