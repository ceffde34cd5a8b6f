"""Retry a job: a new run, from the beginning, of what an earlier one was started from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kuiper.cluster.files import read_json
from kuiper.cluster.host import LOCAL, connect
from kuiper.cluster.identity import myself
from kuiper.cluster.launch import bring_up, new_run_ids, secret_values
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.resume import RESUME, config_of, kept, orders_of
from kuiper.cluster.site import Ground, Site
from kuiper.cluster.snapshot import ENTRY, Code, changes, pack
from kuiper.cluster.staging import File, process_files, run_files
from kuiper.cluster.store import Job
from kuiper.errors import SpecError

HOST_FILES = "servers", "workers"
Orders = Mapping[str, Mapping[str, Any]]


def retry(jobs: Sequence[Job], say: Say = silent) -> list[Job]:
    """Start a job again, or the jobs of one submit, one after the other; their earlier runs stay as they are.

    Configuration, commands and hosts are those of the earlier run. On other hosts the code is the snapshot
    that it ran, which must still be there; on this machine it is the code in place.

    Raises:
        SpecError: files of the earlier run or its snapshot are gone, or a secret is not in the environment.
        ConflictError: the job is running, or the ports are taken.
        HostError, JobFailed: one could not be started; what had been started is stopped again.
    """
    configs = [config_of(job) for job in jobs]
    orders = [orders_of(job) for job in jobs]
    secrets = secret_values(orders[0][jobs[0].processes[0].name]["secrets"])
    grounds = _grounds(jobs[0], orders[0])
    record = _code(jobs[0], configs[0], say)
    new: list[Job] = []
    for job, config, run_id in zip(jobs, configs, new_run_ids(len(jobs)), strict=True):
        config["job"]["run_id"] = run_id
        new.append(_again(job, run_id, grounds, new))

    def files() -> list[File]:
        made = []
        for job, again, config, order in zip(jobs, new, configs, orders, strict=True):
            made += run_files(again, _written(job, again), config, record, grounds)
            made += process_files(again, config, _renamed(job, again, order, new), secrets)
        return made

    series = [job.series for job in new if len(new) > 1]
    names = list(dict.fromkeys([*filter(None, series), *(job.job_name for job in new)]))
    bring_up(new, names, configs, files, say)
    return new


def _written(job: Job, again: Job) -> dict[Path, bytes]:
    """What the user wrote, where the new run has it."""
    names = [job.paths.spec, *(path for name in HOST_FILES if (path := job.paths.host_file(name)).exists())]
    return {again.run_dir / path.name: kept(path) for path in names}


def _grounds(job: Job, orders: Orders) -> dict[str, Ground]:
    """Where the job's hosts have the code that it ran."""
    sites = {site.address.host: site for site in job.sites}
    folders = {process.host: Path(orders[process.name]["cwd"]) for process in job.processes}

    def find(name: str) -> Ground:
        site, folder = sites[name], folders[name]
        if name == LOCAL:
            return Ground(site.address, Code(folder, None))
        if not connect(site.address).exists(folder / ENTRY):
            raise SpecError(f"{name}: the code that {job.run_id} ran is gone from {folder}",
                            "submit the job again: that sends the code as it is now")
        return Ground(site.address, Code(folder, folder), PurePosixPath(site.run_dir).parent.parent)

    return dict(zip(sites, in_parallel(find, sites), strict=True))


def _code(job: Job, config: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """The record of the code that the new run begins with; says when it is not that of the earlier one.

    Raises:
        SpecError: this machine's code has changed, and that of other hosts has not.
    """
    old = read_json(job.paths.code)
    if all(site.address.host != LOCAL for site in job.sites):
        return old or {}
    about = config["job"]
    now = pack(Path(about["spec_folder"]) if about["allow"] else None, to_send=False).record
    if old and old["digest"] != now["digest"]:
        if len(job.sites) > 1:
            raise SpecError(f"the code on this machine has changed since {job.run_id}, "
                            "and what other hosts have of it has not", "submit the job again")
        say(f"the code here has changed since {job.run_id}, in {len(changes(old, now))} files")
    return now


def _again(job: Job, run_id: str, grounds: Mapping[str, Ground], before: Sequence[Job]) -> Job:
    """The new run of a job; `before` are those of the same retry that come first."""
    folder = job.run_dir.parent / run_id
    sites = [Site(site.address, grounds[site.address.host].run_dir(folder)) for site in job.sites]
    return Job(folder, job.job_name, run_id, job.mode, time.time(), job.grace, job.processes, sites, job.series,
               [str(one.run_dir) for one in before], submitter=myself(), spec_hash=job.spec_hash,
               retry_of=job.run_id, smoke=job.smoke)


def _renamed(job: Job, again: Job, orders: Orders, new: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """The agents' orders for the new run: its id, its run directories for those of the old, the beginning."""
    before = [one for one in new if str(one.run_dir) in again.after]
    renamed = {}
    for process in job.processes:
        order = orders[process.name]
        old, folder = job.site(process).run_dir, again.site(process).run_dir

        def moved(text: str, old: str = old, folder: str = folder) -> str:
            return folder + text[len(old) :] if text == old or text.startswith(f"{old}/") else text

        renamed[process.name] = {
            **order, "run_id": again.run_id, "after": [one.site(process).run_dir for one in before],
            "argv": [moved(word) for word in order["argv"] if word != RESUME],
            "server": order["server"] and moved(order["server"]),
        }  # fmt: skip
    return renamed
