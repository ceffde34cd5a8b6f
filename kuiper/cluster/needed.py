"""Whether a job has to be run at all: a run of the same spec that has succeeded will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from kuiper.cluster import store
from kuiper.cluster.files import read_json
from kuiper.cluster.launch import spec_hash
from kuiper.cluster.site import code_of
from kuiper.cluster.snapshot import changes
from kuiper.cluster.states import State
from kuiper.cluster.store import Job

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec


def succeeded(spec: Spec) -> dict[str, Job]:
    """By job name, the newest run of each job of a spec that has succeeded with the same resolved spec.

    Raises:
        SpecError: the spec is wrong.
    """
    from kuiper.config.compose import compose

    found = {}
    for one in spec.each():
        digest = spec_hash(one, compose(one))
        same = [job for job in store.jobs(one.job_name) if job.spec_hash == digest and job.smoke == spec.smoke_test]
        seen = zip(same, store.observe(same), strict=True)
        done = [job for job, status in seen if status.state is State.SUCCEEDED]
        if done:
            found[one.job_name] = done[-1]
    return found


def without(spec: Spec, done: Mapping[str, Job]) -> Spec | None:
    """The spec with the seeds that are not done; None if none is left."""
    left = [one for one in spec.each() if one.job_name not in done]
    if not left or len(left) == len(spec.each()):
        return spec if left else None
    return replace(spec, job_conf={**spec.job_conf, "seed": [one.job_conf["seed"] for one in left]})


def differences(spec: Spec, job: Job) -> int:
    """How many files of the code differ from those that a run had; 0 where that is not on record."""
    old = read_json(job.paths.code)
    if not old:
        return 0
    return len(changes(old, code_of(spec).record))
