"""Retry a job: a new run, from the beginning, of what an earlier one was started from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kuiper.cluster.host import LOCAL
from kuiper.cluster.identity import myself
from kuiper.cluster.launch import bring_up, new_run_ids, secret_values
from kuiper.cluster.pinned import Orders, code_folders, record_of, say_changes
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.resume import RESUME, config_of, kept, orders_of
from kuiper.cluster.site import Ground, Site
from kuiper.cluster.snapshot import Code
from kuiper.cluster.staging import File, process_files, run_files
from kuiper.cluster.store import Job

HOST_FILES = "servers", "workers"


def retry(jobs: Sequence[Job], say: Say = silent) -> list[Job]:
    """Start a job again, or the jobs of one submit, one after the other; their earlier runs stay as they are.

    Configuration, commands, hosts and code are those of the earlier run.

    Raises:
        SpecError: files of the earlier run or its code are gone, or a secret is not in the environment.
        ConflictError: the job is running, or the ports are taken.
        HostError, JobFailed: one could not be started; what had been started is stopped again.
    """
    configs = [config_of(job) for job in jobs]
    orders = [orders_of(job) for job in jobs]
    secrets = secret_values(orders[0][jobs[0].processes[0].name]["secrets"])
    folders = [code_folders(job, order) for job, order in zip(jobs, orders, strict=True)][0]
    grounds = {site.address.host: _ground(site, folders[site.address.host]) for site in jobs[0].sites}
    say_changes(jobs[0], configs[0]["job"]["allow"], say)
    new: list[Job] = []
    for job, config, run_id in zip(jobs, configs, new_run_ids(len(jobs)), strict=True):
        config["job"]["run_id"] = run_id
        new.append(_again(job, run_id, grounds, new))

    def files() -> list[File]:
        made = []
        for job, again, config, order in zip(jobs, new, configs, orders, strict=True):
            made += run_files(again, _written(job, again), config, record_of(job), grounds)
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


def _ground(site: Site, folder: Path) -> Ground:
    """A host of the earlier run, with the code that it ran."""
    runs = None if site.address.host == LOCAL else PurePosixPath(site.run_dir).parent.parent
    return Ground(site.address, Code(folder), runs)


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
