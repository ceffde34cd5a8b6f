"""Resume a job: a new attempt in the same run directory, with the same configuration and the same code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kuiper.cluster import store
from kuiper.cluster.host import connect
from kuiper.cluster.identity import myself
from kuiper.cluster.launch import refuse_second, secret_values
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.pinned import code_folders, say_changes
from kuiper.cluster.preflight import REMEDY, check_ports, unusable
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.staging import process_files, put_all
from kuiper.cluster.start import START_TIMEOUT, all_or_none, names_locked, start_all
from kuiper.cluster.states import State
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, JobFailed, KuiperError, SpecError

RESUME = "resume"
"""The last word of the data plane's command (see kuiper.run)."""


def resume(jobs: Sequence[Job], say: Say = silent) -> list[Job]:
    """Start again what has not succeeded of a job, or of the jobs of one submit, one after the other.

    Their processes go on from the newest checkpoint that all processes of a job have, with the code of the submit.

    Returns:
        The jobs that were started.

    Raises:
        ConflictError: all have succeeded, one runs, or another of its name does, something of it is left, or the
            ports are taken.
        SpecError: one keeps no checkpoints, its configuration or its code is gone, or a secret is not in the
            environment.
        HostError, JobFailed: one could not be started, or its disk is full or read-only; what had been
            started is stopped again.
    """
    _unfinished(jobs)  # before anything else is looked at; again below, where nobody can come between
    configs = {job.run_id: _resumable(job) for job in jobs}
    orders = {job.run_id: orders_of(job) for job in jobs}
    secrets = secret_values(orders[jobs[0].run_id][jobs[0].processes[0].name]["secrets"])
    names = {jobs[0].series} if len(jobs) > 1 else {job.job_name for job in jobs}
    taken: list[Job] = []
    with all_or_none(taken, say):
        with names_locked({*names, *(job.job_name for job in jobs)}):
            for name in names:
                refuse_second(name)
            unfinished = _unfinished(jobs)
            for job in unfinished:
                code_folders(job, orders[job.run_id])
            say_changes(unfinished[0], configs[unfinished[0].run_id]["job"]["allow"], say)
            check_ports(configs[unfinished[0].run_id], len(unfinished))
            for job in unfinished:
                if wrong := unusable(job.run_dir, len(job.processes)):
                    raise JobFailed(f"{job.job_name} {job.run_id} cannot go on: {wrong}", REMEDY)
            for job in unfinished:
                _renew(job)
                job.final, job.failure, job.submitter = None, None, myself()
                job.save()
                taken.append(job)
        for job in taken:
            for order in orders[job.run_id].values():
                order["argv"] = [*(word for word in order["argv"] if word != RESUME), RESUME]
            put_all(process_files(job, configs[job.run_id], orders[job.run_id], secrets), say)
        for job in taken:
            start_all(job, configs[job.run_id], say)
    return taken


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Those that have ended without success.

    Raises:
        ConflictError: there are none, or one is going on.
    """
    statuses = list(zip(jobs, store.observe(jobs), strict=True))
    for job, status in statuses:
        if not status.state.final or status.alive:
            raise ConflictError(f"{job.job_name} {job.run_id} is {status.state}: there is nothing to resume",
                                f"wait for it (`kuiper wait {job.run_id}`), or stop it first: `kuiper stop {job.run_id}`")
    unfinished = [job for job, status in statuses if status.state is not State.SUCCEEDED]
    if not unfinished:
        done = ", ".join(f"{job.job_name} {job.run_id}" for job in jobs)
        raise ConflictError(f"there is nothing to resume: {done} has succeeded",
                            f"`kuiper retry {jobs[0].run_id}` runs it once more from the beginning")
    return unfinished


def _resumable(job: Job) -> dict[str, Any]:
    """What config.yaml says, if one can go on with it."""
    config = config_of(job)
    if config["conf"].get("checkpoint_interval") is None:
        raise SpecError(f"{job.job_name} {job.run_id} keeps no checkpoints: its checkpoint_interval is empty",
                        "submit it again, with checkpoint_interval in job_conf")
    return config


def unit_of(job: Job) -> str:
    """Step, or round of a federated job."""
    try:
        return "round" if config_of(job)["conf"].get("rounds") is not None else "step"
    except (KuiperError, KeyError, TypeError, AttributeError):  # gone, or not ours
        return "step"


def config_of(job: Job) -> dict[str, Any]:
    """What config.yaml says.

    Raises:
        SpecError: it is gone or damaged.
    """
    try:
        config: dict[str, Any] = yaml.safe_load(kept(job.paths.config))
    except yaml.YAMLError as error:
        raise SpecError(f"{job.paths.config} is not YAML: {error}", "submit the job again") from error
    return config


def kept(path: Path) -> bytes:
    """What a file of an earlier run holds.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}", "submit the job again") from error


def orders_of(job: Job) -> dict[str, dict[str, Any]]:
    """What agent.json says, by the process's name.

    Raises:
        HostError: a host cannot be reached, or has it no more.
    """
    def read(process: store.Process) -> dict[str, Any]:
        order: dict[str, Any] = json.loads(job.host(process).get(job.at(process).agent))
        return order

    return dict(zip((one.name for one in job.processes), in_parallel(read, job.processes), strict=True))


def _renew(job: Job) -> None:
    """Make the processes' folders ready for another attempt.

    Raises:
        ConflictError: something of the run is alive.
    """
    for site in job.sites:
        host = connect(site.address)
        argv = [host.python, "-I", host.agent, "renew", job.run_id, *job.folders(site)]
        result = host.run(argv, START_TIMEOUT)
        if result.code:
            said = (result.out or result.err).strip()
            raise ConflictError(f"something of {job.run_id} is alive on {host.name}: {said}",
                                f"stop it first: `kuiper stop {job.run_id}`")
