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
    from kuiper.cli.show import note
    from kuiper.cli.submit import show
    from kuiper.cluster.resume import resume as resume_job
    from kuiper.cluster.store import find

    resumed = resume_job(find(job), (lambda line: None) if quiet else note)
    show(resumed, follow, as_json, quiet)
