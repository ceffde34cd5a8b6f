"""Launch what a spec asks for: a run directory per job, all that its processes need, and then their start."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import store
from kuiper.cluster.files import make_folder
from kuiper.cluster.host import LOCAL, connect
from kuiper.cluster.identity import myself
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.paths import RunPaths, check_job_name
from kuiper.cluster.plan import Process, plan
from kuiper.cluster.preflight import check_ports, crowding, log_path_problems, preflight
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.site import Ground, Site, code_of, prepare
from kuiper.cluster.snapshot import Snapshot
from kuiper.cluster.staging import File, agent_order, process_files, put_all, run_files
from kuiper.cluster.start import START_TIMEOUT, all_or_none, names_locked, start_all
from kuiper.cluster.store import Job
from kuiper.config.schema import InvalidSpec
from kuiper.errors import ConflictError, HostError, KuiperError, SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

REMOVE = 'rm -rf -- "$1"; rmdir -- "${1%/*}" 2> /dev/null'
"""A run directory, and the job's folder above it unless other runs are there."""

Argv = Callable[[Process, Path], list[str]]
"""(process, run directory) -> what its agent starts."""


def process_argv(process: Process, run_dir: Path) -> list[str]:
    """The data plane's entry: python -m kuiper.run <run_dir> <rank>."""
    return [process.python, "-m", "kuiper.run", str(run_dir), str(process.rank)]


def submit(spec: Spec, simulate: bool = False, say: Say = silent) -> list[Job]:
    """Compose the spec's configuration and launch it, once per seed; returns when all runs or is queued.

    Raises:
        SpecError: the spec is wrong, or a secret is not in the environment; nothing was made.
        ConflictError: a job of that name runs, or the ports are taken.
        HostError, JobFailed: one could not be started; what had been started is stopped again.
    """
    return launch(spec, lambda one, run_id: composed(one, simulate, run_id, say), say)


def composed(spec: Spec, simulate: bool, run_id: str = "", say: Say = silent) -> dict[str, Any]:
    """The configuration of one job, with what it needs of this machine looked at.

    Raises:
        SpecError: the spec is wrong.
    """
    from kuiper.config.compose import compose  # Hydra: only those who compose pay for it
    from kuiper.config.sizes import warnings

    try:
        config = compose(spec, simulate, run_id)
    except InvalidSpec as error:  # with what else is wrong, all at once
        count = 1 + sum(worker.processes for worker in spec.worker_ips)
        raise InvalidSpec([*error.problems, *log_path_problems(spec, count)]) from error
    preflight(spec, config)
    for line in warnings(config["conf"]):
        say(f"warning: {line}")
    return config


def launch(
    spec: Spec,
    configure: Callable[[Spec, str], Mapping[str, Any]],
    say: Say = silent,
    argv: Argv = process_argv,
) -> list[Job]:
    """`submit` with the configuration, a function of one job's spec and its run id, and the command given.

    Raises:
        As `submit`.
    """
    specs = spec.each()
    names = names_of(spec)
    values = secret_values(spec.secrets)
    configs = [configure(one, run_id) for one, run_id in zip(specs, new_run_ids(len(specs)), strict=True)]
    for line in crowding(configs[0]):
        say(f"note: {line}")
    for name in names:
        refuse_second(name)  # before hosts are bothered; again below, where nobody can come between
    check_ports(configs[0], len(configs))
    hosts = [process.host for process in plan(specs[0], configs[0])]
    snapshot = code_of(spec)
    grounds = prepare(spec, hosts, snapshot, say)
    jobs = drafted(spec, configs, grounds)

    def files() -> list[File]:
        each = zip(specs, configs, jobs, strict=True)
        return [file for one in each for file in staged(*one, grounds, snapshot, values, argv)]

    bring_up(jobs, names, configs, files, say)
    return jobs


def bring_up(jobs: Sequence[Job], names: Sequence[str], configs: Sequence[Mapping[str, Any]],
             files: Callable[[], list[File]], say: Say) -> None:
    """Make the run directories of jobs, put their files there, and start them all, or leave nothing.

    Args:
        names: of the jobs and of their series, none of which may be in use.
        files: asked for once the run directories are there.

    Raises:
        As `submit`.
    """
    with _staged_or_removed() as made:
        with names_locked(names):
            for name in names:
                refuse_second(name)
            check_ports(configs[0], len(configs))
            for job in jobs:
                _create(job, made)
        put_all(files(), say)
    with all_or_none(list(jobs), say):
        for config, job in zip(configs, jobs, strict=True):
            start_all(job, config, say)


def names_of(spec: Spec) -> list[str]:
    """The name of a spec's job; with several seeds, of the series and of each job."""
    return list(dict.fromkeys([spec.job_name, *(check_job_name(one.job_name) for one in spec.each())]))


def drafted(spec: Spec, configs: Sequence[Mapping[str, Any]], grounds: Mapping[str, Ground]) -> list[Job]:
    """The jobs of a spec as they will be; nothing is made of them yet."""
    jobs: list[Job] = []
    for one, config in zip(spec.each(), configs, strict=True):
        run_id = config["job"]["run_id"]
        folder = RunPaths.of(spec.log_path, one.job_name, run_id).folder
        jobs.append(Job(
            folder, one.job_name, run_id, config["job"]["mode"], time.time(), spec.limits.grace,
            [store.Process(process.name, process.host) for process in plan(one, config)],
            [Site(ground.address, ground.run_dir(folder)) for ground in grounds.values()],
            spec.job_name if len(names_of(spec)) > 1 else "", [str(each.run_dir) for each in jobs],
            submitter=myself(), spec_hash=spec_hash(one, config),
            smoke=spec.smoke_test,
        ))  # fmt: skip
    return jobs


def staged(spec: Spec, config: Mapping[str, Any], job: Job, grounds: Mapping[str, Ground], snapshot: Snapshot,
           values: Mapping[str, str], argv: Argv = process_argv) -> list[File]:
    """Every file that a job is started from, on every host.

    Args:
        spec: of this job, with one seed.
        values: of the spec's secrets.
    """
    orders = {}
    for process in plan(spec, config):
        if process.host != LOCAL:
            process = replace(process, python=grounds[process.host].address.python)
        words = argv(process, job.at(process).folder.parent)
        orders[process.name] = agent_order(spec, job, config, process, grounds[process.host], words)
    written = {job.paths.spec: spec.path.read_bytes()}
    written |= {job.paths.host_file(name): content for name, content in spec.host_files.items()}
    return [*run_files(job, written, config, snapshot.record, grounds),
            *process_files(job, config, orders, values)]


def spec_hash(spec: Spec, config: Mapping[str, Any]) -> str:
    """Of all that says what a job computes, and where; the same for each run of it."""
    about = {key: value for key, value in config["job"].items() if key not in ("run_id", "spec_folder")}
    beside = str(spec.path.parent) if spec.allow else ""
    whole = [about, config["processes"], config["conf"], spec.setup_commands, beside]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:20]


def new_run_ids(count: int) -> list[str]:
    """The time and a number, which differs: a run's id marks its processes."""
    first = secrets.randbelow(65536)
    return [f"{time.strftime('%Y%m%d-%H%M%S')}-{(first + place) % 65536:04x}" for place in range(count)]


def secret_values(names: Sequence[str]) -> dict[str, str]:
    """From the environment.

    Raises:
        SpecError: one is not there.
    """
    missing = [name for name in names if name not in os.environ]
    if missing:
        message = f"secrets: {', '.join(missing)} not in the environment"
        raise SpecError(message, f"export {missing[0]}=... first")
    return {name: os.environ[name] for name in names}


def refuse_second(name: str) -> None:
    """Raises ConflictError while anything of a job of that name, or of a series of that name, is going on."""
    same = [job for job in store.jobs(name) if name in (job.job_name, job.series) and job.final is None]
    for job, status in zip(same, store.observe(same), strict=True):
        if status.alive or not status.state.final:
            raise ConflictError(
                f"job {job.job_name!r} is {status.state} as {job.run_id} in {job.run_dir}",
                f"wait for it, stop it with `kuiper stop {job.run_id if job.smoke else name}`, "
                "or give this one another job_name",
            )


@contextmanager
def _staged_or_removed() -> Iterator[list[Job]]:
    """Jobs that the block makes, and puts into this list, vanish again if it fails: nothing has run."""
    made: list[Job] = []
    try:
        yield made
    except BaseException:
        for job in made:
            in_parallel(_remove, (site for site in job.sites if site.address.host != LOCAL))
            shutil.rmtree(job.run_dir, ignore_errors=True)
            with suppress(OSError):
                job.run_dir.parent.rmdir()  # unless other runs of that name are there
        raise


def _remove(site: Site) -> None:
    with suppress(HostError):
        connect(site.address).run(["sh", "-c", REMOVE, "sh", site.run_dir], START_TIMEOUT)


def _create(job: Job, made: list[Job]) -> None:
    """Make the run directory of a job, and the ledger in it.

    Raises:
        ConflictError: there is such a directory.
        KuiperError: it cannot be made.
    """
    make_folder(job.run_dir.parent)
    store.register(job.run_dir.parent.parent)
    try:
        job.run_dir.mkdir()
    except FileExistsError:
        raise ConflictError(f"the run directory {job.run_dir} is there already", "submit again") from None
    except OSError as error:
        message = f"cannot make the run directory {job.run_dir}: {error.strerror}"
        raise KuiperError(message, "choose a log_path that this user may write to") from error
    made.append(job)
    job.save()
