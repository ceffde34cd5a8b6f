"""Start a job: its run directory, the server, then the workers; all of it, or nothing that lasts."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import agent, store
from kuiper.cluster.files import locked, make_folder, write_bytes
from kuiper.cluster.host import Host, connect
from kuiper.cluster.identity import myself
from kuiper.cluster.paths import (
    ProcessPaths,
    RunPaths,
    absolute,
    check_job_name,
    state_folder,
)
from kuiper.cluster.plan import Process, plan
from kuiper.cluster.preflight import check_ports, preflight
from kuiper.cluster.snapshot import Code, local_code
from kuiper.cluster.states import JobStatus, State
from kuiper.cluster.stop import stop
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, HostError, JobFailed, KuiperError, SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

START_TIMEOUT = 30.0
POLL = 0.15
YEAR = 365 * 86400.0

Argv = Callable[[Process, Path], list[str]]
"""(process, run directory) -> what its agent starts."""


def process_argv(process: Process, run_dir: Path) -> list[str]:
    """The data plane's entry: python -m kuiper.run <run_dir> <rank>."""
    return [process.python, "-m", "kuiper.run", str(run_dir), str(process.rank)]


def submit(spec: Spec, simulate: bool = False, say: Callable[[str], None] = lambda line: None) -> Job:
    """Compose the spec's configuration and launch it; returns when every process runs.

    Raises:
        SpecError: the spec is wrong, or a secret is not in the environment; nothing was made.
        ConflictError: a job of that name runs, or the ports are taken.
        HostError, JobFailed: it could not be started; what had been started is stopped again.
    """
    from kuiper.config.compose import (
        compose,  # Hydra: only those who compose pay for it
    )

    def configure(run_id: str) -> dict[str, Any]:
        config = compose(spec, simulate, run_id)
        preflight(spec, config)
        return config

    return launch(spec, configure, say)


def launch(
    spec: Spec,
    configure: Callable[[str], Mapping[str, Any]],
    say: Callable[[str], None] = lambda line: None,
    argv: Argv = process_argv,
) -> Job:
    """`submit` with the configuration, a function of the run id, and the processes' command given.

    Raises:
        As `submit`.
    """
    check_job_name(spec.job_name)
    values = secret_values(spec.secrets)
    job = None
    while job is None:  # again only when that very run directory exists
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        config = configure(run_id)
        processes = plan(spec, config)
        with locked(state_folder() / "locks" / spec.job_name):
            refuse_second(spec.job_name)
            check_ports(config)
            job = _create(spec, run_id, config["job"]["mode"], processes)
    with _removed_unless_staged(job):
        _stage(spec, job.paths, run_id, config, processes, values, argv)
    with rolled_back(job, say):
        start(job, config, say)
    return job


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


def refuse_second(job_name: str) -> None:
    """Raises ConflictError while anything of a job of that name is going on."""
    same = [job for job in store.jobs(job_name) if job.job_name == job_name and job.final is None]
    for job, status in zip(same, store.observe(same), strict=True):
        if status.alive or not status.state.final:
            raise ConflictError(
                f"job {job_name!r} is {status.state} as {job.run_id} in {job.run_dir}",
                f"wait for it, stop it (kuiper stop {job_name}), or give this one another job_name",
            )


def _create(spec: Spec, run_id: str, mode: str, processes: Sequence[Process]) -> Job | None:
    """Make the run directory and the ledger in it; None when there is such a directory already."""
    paths = RunPaths.of(spec.log_path, spec.job_name, run_id)
    make_folder(paths.folder.parent)
    store.register(absolute(spec.log_path))
    try:
        paths.folder.mkdir()
    except FileExistsError:
        return None
    except OSError as error:
        message = f"cannot make the run directory {paths.folder}: {error.strerror}"
        raise KuiperError(message, "choose a log_path that this user may write to") from error
    job = Job(
        paths.folder, spec.job_name, run_id, mode, time.time(), spec.limits.grace,
        [store.Process(process.name, process.host) for process in processes], myself(),
    )  # fmt: skip
    with _removed_unless_staged(job):
        job.save()
    return job


@contextmanager
def _removed_unless_staged(job: Job) -> Iterator[None]:
    """Nothing of the job has run: what cannot be written completely is not kept."""
    try:
        yield
    except BaseException:
        shutil.rmtree(job.run_dir, ignore_errors=True)
        with suppress(OSError):
            job.run_dir.parent.rmdir()  # others of this name may be there
        raise


def _stage(
    spec: Spec, paths: RunPaths, run_id: str, config: Mapping[str, Any], processes: Sequence[Process],
    values: Mapping[str, str], argv: Argv,
) -> None:  # fmt: skip
    """Write the run directory, and every process's folder on its host."""
    from kuiper.config.compose import dump

    write_bytes(paths.spec, spec.path.read_bytes())
    write_bytes(paths.config, dump(dict(config)).encode())
    code = local_code()
    certificates = issue_certificates(run_id, config, spec.limits.duration, spec.limits.grace)

    def stage(process: Process) -> None:
        host, own = connect(process.host), paths.process(process.name)
        for name, data in certificates.get(process.name, {}).items():
            host.put(data, own.tls / name, mode=0o600)
        if values:
            host.put(json.dumps(values).encode(), own.secrets, mode=0o600)
        order = _agent_order(spec, run_id, config, process, code, argv(process, paths.folder))
        host.put(json.dumps(order, indent=2).encode(), own.agent)

    in_parallel(stage, processes)


def issue_certificates(
    run_id: str, config: Mapping[str, Any], duration: float | None, grace: float
) -> dict[str, dict[str, bytes]]:
    """Files per process name; none for a simulation or without security."""
    if config["job"]["mode"] == "simulate" or config["conf"]["security"] != "tls":
        return {}
    from kuiper.link.credentials import (
        issue,  # brings cryptography, which other verbs do without
    )

    lifetime = YEAR if duration is None else duration + grace + START_TIMEOUT
    return issue(run_id, [process["name"] for process in config["processes"]], lifetime)


def _agent_order(
    spec: Spec, run_id: str, config: Mapping[str, Any], process: Process, code: Code, argv: list[str]
) -> dict[str, Any]:
    """What agent.json says (see agent.py)."""
    threads = str(config["conf"]["threads"])
    env = {
        "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
        "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": process.device.removeprefix("cuda:") if process.device != "cpu" else "",
    }  # fmt: skip
    if platform.machine() in ("x86_64", "AMD64"):  # the same bits whatever the processor of the day
        env["ATEN_CPU_CAPABILITY"] = os.environ.get("ATEN_CPU_CAPABILITY", "avx2")
    if code.python_path is not None:
        env["PYTHONPATH"] = str(code.python_path)
        env["PYTHONSAFEPATH"] = "1"
    return {
        "run_id": run_id, "process": process.name, "argv": argv, "env": env, "cwd": str(code.folder),
        "setup_commands": spec.setup_commands, "duration": spec.limits.duration, "grace": spec.limits.grace,
        "retry": spec.on_failure["retry"] if process.rank else 0,
        "final_codes": [SpecError.exit_code, ConflictError.exit_code, JobFailed.exit_code],
        "secrets": spec.secrets,
        "log_bytes": 64 << 20, "log_keep": 3,
    }  # fmt: skip


@contextmanager
def rolled_back(job: Job, say: Callable[[str], None]) -> Iterator[None]:
    """Stop what was started inside, should an error end it."""
    try:
        yield
    except BaseException as error:
        _roll_back(job, error, say)
        raise


def start(job: Job, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Start the processes of a job that is staged; returns when all of them run.

    Raises:
        HostError, JobFailed: one could not be started.
    """
    server, workers = job.processes[0], job.processes[1:]
    start_agent(connect(server.host), job.paths.process(server.name))
    if workers:
        say(f"{server.name} started on {server.host}, waiting for its address")
        endpoint = _await_endpoint(job, server, float(config["conf"]["join_timeout"]))
        for name in set(job.hosts) - {server.host}:
            connect(name).put(endpoint, job.paths.process(server.name).endpoint)
        say(f"starting {len(workers)} worker processes")
        in_parallel(lambda each: start_agent(connect(each.host), job.paths.process(each.name)), workers)
    _await_heartbeats(job)
    say("every process runs")
    job.submitter = None
    job.save()


def start_agent(host: Host, process: ProcessPaths) -> None:
    """Start the agent of a process that is staged; harmless when it runs already.

    Raises:
        HostError: it ended at once; says what it said.
    """
    result = host.run([host.python, "-I", agent.__file__, "start", str(process.folder)], START_TIMEOUT)
    if result.code:
        said = (result.err or result.out).strip()
        message = f"{host.name}: the agent of {process.folder.name} did not start: {said}"
        raise HostError(message, f"see {process.log}")


def _await_endpoint(job: Job, server: store.Process, timeout: float) -> bytes:
    """What rank 0 wrote about where it listens."""
    host, path = connect(server.host), job.paths.process(server.name).endpoint
    for status in _looks(job, timeout):
        if host.exists(path):
            return host.get(path)
        _check_none_ended(job, status, server.name)
    raise JobFailed(
        f"{server.name} on {server.host} did not say where it listens within {timeout:g} s",
        f"see {path.parent / 'log'}; a slow host needs a larger join_timeout",
    )


def _await_heartbeats(job: Job) -> None:
    for status in _looks(job, START_TIMEOUT):
        _check_none_ended(job, status)
        silent = [
            process.name for process in status.processes
            if process.heartbeat_age is None and not process.state.final
        ]  # fmt: skip
        if not silent:
            return
    message = f"no heartbeat from {', '.join(silent)} within {START_TIMEOUT:g} s"
    raise JobFailed(message, f"see the logs in {job.run_dir}")


def _looks(job: Job, timeout: float) -> Iterator[JobStatus]:
    """The job's status again and again, at least once, until `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while True:
        yield store.observe([job], detailed=True)[0]
        if time.monotonic() > deadline:
            return
        time.sleep(POLL)


def _check_none_ended(job: Job, status: JobStatus, only: str | None = None) -> None:
    """A worker that somebody killed is the job's to survive or not; one that failed is a wrong start."""
    for rank, process in enumerate(status.processes):
        killed = rank > 0 and process.reason.startswith("signal ")
        ended = process.state.final and process.state is not State.SUCCEEDED and not killed
        if only in (None, process.name) and ended:
            why = process.reason or process.state.lower()
            message = f"{process.name} on {process.host} ended at its start: {why}"
            raise JobFailed(message, f"see {job.paths.process(process.name).log}")


def _roll_back(job: Job, error: BaseException, say: Callable[[str], None]) -> None:
    """Stop what runs of a job that could not be started; what cannot be stopped is said, not raised."""
    interrupted = f"the submit was interrupted ({type(error).__name__})"
    job.failure = error.message if isinstance(error, KuiperError) else interrupted
    say("that did not work: stopping what had been started")
    with suppress(KuiperError):
        job.save()
    try:
        stop(job, grace=0.0)
        job.submitter = None
        job.save()
        store.observe([job])
    except KuiperError as left:
        say(f"could not undo all of it: {left}")


def in_parallel(work: Callable[[Any], None], processes: Sequence[Any]) -> None:
    """Raises the first failure, after all have been tried."""
    with ThreadPoolExecutor(store.AT_ONCE) as pool:
        for done in [pool.submit(work, process) for process in processes]:
            done.result()
