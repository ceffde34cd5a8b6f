"""Resume a job: a new attempt in the same run directory, with the same configuration and the same code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

from kuiper.cluster import agent, store
from kuiper.cluster.files import locked
from kuiper.cluster.host import connect
from kuiper.cluster.identity import myself
from kuiper.cluster.launch import (
    START_TIMEOUT,
    in_parallel,
    issue_certificates,
    refuse_second,
    rolled_back,
    secret_values,
    start,
)
from kuiper.cluster.paths import state_folder
from kuiper.cluster.preflight import REMEDY, check_ports, unusable
from kuiper.cluster.states import State
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, JobFailed, SpecError, UsageError

RESUME = "resume"
"""The last word of the data plane's command (see kuiper.run)."""


def resume(job: Job, say: Callable[[str], None] = lambda line: None) -> None:
    """Start a job's processes again; they go on from the newest checkpoint that all of them have.

    Raises:
        UsageError: it has succeeded.
        SpecError: it keeps no checkpoints, its configuration is gone, or a secret is not in the environment.
        ConflictError: it runs, or another of its name does, or something of it is left.
        JobFailed: its disk is full or read-only.
        HostError, JobFailed: it could not be started; what had been started is stopped again.
    """
    try:
        config = yaml.safe_load(job.paths.config.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise SpecError(f"cannot read {job.paths.config}: {error}", "submit the job again") from error
    if config["conf"].get("checkpoint_interval") is None:
        raise SpecError(f"{job.job_name} {job.run_id} keeps no checkpoints: its checkpoint_interval is empty",
                        "submit it again, with checkpoint_interval in job_conf")
    orders = {process.name: _order(job, process) for process in job.processes}
    secrets = secret_values(orders[job.processes[0].name]["secrets"])
    with locked(state_folder() / "locks" / job.job_name):
        refuse_second(job.job_name)
        if store.observe([job])[0].state is State.SUCCEEDED:
            raise UsageError(f"{job.job_name} {job.run_id} has succeeded: there is nothing to resume",
                             "submit it again for another run")
        check_ports(config)
        if wrong := unusable(job.run_dir, len(job.processes)):
            raise JobFailed(f"{job.job_name} {job.run_id} cannot go on: {wrong}", REMEDY)
        _renew(job)
        job.final, job.failure, job.submitter = None, None, myself()
        job.save()
    first = orders[job.processes[0].name]
    certificates = issue_certificates(job.run_id, config, first["duration"], first["grace"])

    def stage(process: store.Process) -> None:
        host, own, order = connect(process.host), job.paths.process(process.name), orders[process.name]
        for name, data in certificates.get(process.name, {}).items():
            host.put(data, own.tls / name, mode=0o600)
        if secrets:
            host.put(json.dumps(secrets).encode(), own.secrets, mode=0o600)
        order["argv"] = [*(word for word in order["argv"] if word != RESUME), RESUME]
        host.put(json.dumps(order, indent=2).encode(), own.agent)

    with rolled_back(job, say):
        in_parallel(stage, job.processes)
        start(job, config, say)


def _order(job: Job, process: store.Process) -> dict[str, Any]:
    """What agent.json says."""
    order: dict[str, Any] = json.loads(connect(process.host).get(job.paths.process(process.name).agent))
    return order


def _renew(job: Job) -> None:
    """Make the processes' folders ready for another attempt.

    Raises:
        ConflictError: something of the run is alive.
    """
    for host in map(connect, job.hosts):
        argv = [host.python, "-I", agent.__file__, "renew", job.run_id, *job.folders(host.name)]
        result = host.run(argv, START_TIMEOUT)
        if result.code:
            said = (result.out or result.err).strip()
            raise ConflictError(f"something of {job.run_id} is alive on {host.name}: {said}",
                                f"stop it first: stop {job.run_id}")
