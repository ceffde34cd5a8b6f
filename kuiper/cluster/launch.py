"""Launch what a spec asks for: a run directory per job, all that its processes need, and then their start."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import store
from kuiper.cluster.files import make_folder, write_bytes
from kuiper.cluster.host import LOCAL, connect
from kuiper.cluster.identity import myself
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.paths import RunPaths, absolute, check_job_name
from kuiper.cluster.plan import Process, plan
from kuiper.cluster.preflight import check_ports, preflight
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.site import Ground, Site, prepare
from kuiper.cluster.start import START_TIMEOUT, all_or_none, names_locked, start_all
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, HostError, JobFailed, KuiperError, SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

YEAR = 365 * 86400.0
LOOPBACK = "127.0.0.1"
KEEP_MEMORY = {  # bytes; else glibc returns a step's activations, and asks for them again page by page
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}

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
    from kuiper.config.compose import compose  # Hydra: only those who compose pay for it

    def configure(one: Spec, run_id: str) -> dict[str, Any]:
        config = compose(one, simulate, run_id)
        preflight(one, config)
        return config

    return launch(spec, configure, say)


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
    names = list(dict.fromkeys([spec.job_name, *(check_job_name(one.job_name) for one in specs)]))
    series = spec.job_name if len(names) > 1 else ""
    values = secret_values(spec.secrets)
    configs = [configure(one, run_id) for one, run_id in zip(specs, new_run_ids(len(specs)), strict=True)]
    for name in names:
        refuse_second(name)  # before hosts are bothered; again below, where nobody can come between
    grounds = prepare(spec, (process.host for process in plan(specs[0], configs[0])), say)
    with _staged_or_removed() as jobs:
        with names_locked(names):
            for name in names:
                refuse_second(name)
            check_ports(configs[0], len(configs))
            for one, config in zip(specs, configs, strict=True):
                _create(one, config, grounds, series, jobs)
        for one, config, job in zip(specs, configs, jobs, strict=True):
            _stage(one, job, config, grounds, values, argv, say)
    with all_or_none(jobs, say):
        for config, job in zip(configs, jobs, strict=True):
            start_all(job, config, say)
    return jobs


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
                f"wait for it, stop it (kuiper stop {name}), or give this one another job_name",
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


def _create(spec: Spec, config: Mapping[str, Any], grounds: Mapping[str, Ground], series: str,
            made: list[Job]) -> None:
    """Make the run directory of a job, which comes after those that are made, and the ledger in it.

    Raises:
        ConflictError: there is such a directory.
        KuiperError: it cannot be made.
    """
    run_id = config["job"]["run_id"]
    paths = RunPaths.of(spec.log_path, spec.job_name, run_id)
    make_folder(paths.folder.parent)
    store.register(absolute(spec.log_path))
    try:
        paths.folder.mkdir()
    except FileExistsError:
        raise ConflictError(f"the run directory {paths.folder} is there already", "submit again") from None
    except OSError as error:
        message = f"cannot make the run directory {paths.folder}: {error.strerror}"
        raise KuiperError(message, "choose a log_path that this user may write to") from error
    processes = [store.Process(process.name, process.host) for process in plan(spec, config)]
    sites = [Site(ground.address, ground.run_dir(paths.folder)) for ground in grounds.values()]
    job = Job(
        paths.folder, spec.job_name, run_id, config["job"]["mode"], time.time(), spec.limits.grace, processes,
        sites, series, [str(each.run_dir) for each in made], submitter=myself(),
    )  # fmt: skip
    made.append(job)
    job.save()


def _stage(spec: Spec, job: Job, config: Mapping[str, Any], grounds: Mapping[str, Ground],
           values: Mapping[str, str], argv: Argv, say: Say) -> None:
    """Write the run directory, and every process's folder on its host."""
    from kuiper.config.compose import dump

    paths = job.paths
    write_bytes(paths.spec, spec.path.read_bytes())
    for name, content in spec.host_files.items():
        write_bytes(paths.host_file(name), content)
    write_bytes(paths.config, dump(dict(config)).encode())
    certificates = issue_certificates(job, config, spec.limits.duration, spec.limits.grace)

    def stage(site: Site) -> None:
        ground, host = grounds[site.address.host], connect(site.address)
        if site.address.host != LOCAL:
            there = {**config, "job": {**config["job"], "spec_folder": str(ground.code.folder / "spec")}}
            host.put(dump(there).encode(), RunPaths(Path(site.run_dir)).config)
        for process in plan(spec, config):
            if process.host != site.address.host:
                continue
            own = job.at(process)
            for name, data in certificates.get(process.name, {}).items():
                host.put(data, own.tls / name, mode=0o600)
            if values:
                host.put(json.dumps(values).encode(), own.secrets, mode=0o600)
            if process.host != LOCAL:
                process = replace(process, python=ground.address.python)
            words = argv(process, own.folder.parent)
            order = _agent_order(spec, job, config, process, ground, words)
            host.put(json.dumps(order, indent=2).encode(), own.agent)
        say("staged", site.address.host)

    in_parallel(stage, job.sites)


def issue_certificates(
    job: Job, config: Mapping[str, Any], duration: float | None, grace: float
) -> dict[str, dict[str, bytes]]:
    """Files per process name; none for a simulation or without security.

    They last as long as the job may, or a year where nobody knows: without a limit, or in a queue.
    """
    if config["job"]["mode"] == "simulate" or config["conf"]["security"] != "tls":
        return {}
    from kuiper.link.credentials import issue  # brings cryptography, which other verbs do without

    lifetime = YEAR if duration is None or job.after else duration + grace + START_TIMEOUT
    return issue(job.run_id, [process["name"] for process in config["processes"]], lifetime)


def _agent_order(
    spec: Spec, job: Job, config: Mapping[str, Any], process: Process, ground: Ground, argv: list[str]
) -> dict[str, Any]:
    """What agent.json says (see agent.py)."""
    code, duration = ground.code, spec.limits.duration
    if duration is not None and process.rank:  # its turn may come long before the server's
        duration += len(job.after) * (duration + spec.limits.grace)
    threads = str(config["conf"]["threads"])
    env = {
        "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
        "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1",
        # Large tensors in huge pages: a killed process closes its sockets only once its memory is freed, and
        # that takes 100 ms a GB in small ones.
        "THP_MEM_ALLOC_ENABLE": "1",
        **KEEP_MEMORY,
        "CUDA_VISIBLE_DEVICES": process.device.removeprefix("cuda:") if process.device != "cpu" else "",
    }  # fmt: skip
    if platform.machine() in ("x86_64", "AMD64"):  # the same bits whatever the processor of the day
        env["ATEN_CPU_CAPABILITY"] = os.environ.get("ATEN_CPU_CAPABILITY", "avx2")
    if code.python_path is not None:
        env["PYTHONPATH"] = str(code.python_path)
        env["PYTHONSAFEPATH"] = "1"
    return {
        "run_id": job.run_id, "process": process.name,
        "after": [ground.run_dir(Path(run_dir)) for run_dir in job.after],
        "listen": _listen(job, config, process), "server": _server(job, process),
        "argv": argv, "env": env, "cwd": str(code.folder),
        "setup_commands": spec.setup_commands, "duration": duration, "grace": spec.limits.grace,
        "retry": spec.on_failure["retry"] if process.rank else 0,
        "final_codes": [SpecError.exit_code, ConflictError.exit_code, JobFailed.exit_code],
        "secrets": spec.secrets,
        "log_bytes": 64 << 20, "log_keep": 3,
    }  # fmt: skip


def _listen(job: Job, config: Mapping[str, Any], process: Process) -> dict[str, Any] | None:
    """Where a process listens: the server, and each of the peers of an algorithm without one."""
    if len(job.processes) == 1 or process.rank and not config["conf"]["algorithm"]["_peers_"]:
        return None
    local = all(one.host == LOCAL for one in job.processes)
    return {"address": LOOPBACK if local else "", "host": LOOPBACK if local else process.host,
            "ports": config["conf"]["ports"]}


def _server(job: Job, process: Process) -> str | None:
    """Where a process of another host than the server's reads where that listens."""
    server = job.processes[0]
    away = process.host != server.host
    return str(RunPaths(job.at(process).folder.parent).process(server.name).endpoint) if away else None
