"""Start the agents of jobs that are staged: all of them, or nothing that lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kuiper.cluster import store
from kuiper.cluster.files import locked
from kuiper.cluster.host import Host, connect
from kuiper.cluster.paths import ProcessPaths, RunPaths, state_folder
from kuiper.cluster.site import AT_ONCE
from kuiper.cluster.states import JobStatus, State
from kuiper.cluster.stop import stop
from kuiper.cluster.store import Job
from kuiper.errors import HostError, JobFailed, KuiperError

START_TIMEOUT = 30.0
POLL = 0.15


@contextlib.contextmanager
def names_locked(names: Iterable[str]) -> Iterator[None]:
    """Nobody else submits or resumes under these names meanwhile."""
    with contextlib.ExitStack() as locks:
        for name in sorted(set(names)):  # one order everywhere: two that share names cannot block each other
            locks.enter_context(locked(state_folder() / "locks" / name))
        yield


@contextlib.contextmanager
def all_or_none(jobs: list[Job], say: Callable[[str], None]) -> Iterator[None]:
    """If the block fails, stop whatever runs of `jobs`, to which the block adds what it takes on."""
    try:
        yield
    except BaseException as error:
        if jobs:
            say("that did not work: stopping what had been started")
        for job in reversed(jobs):  # the last first, so that none of them gets its turn
            _roll_back(job, error, say)
        raise
    for job in jobs:
        job.submitter = None
        job.save()


def start_all(job: Job, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Start the processes of a job; returns when all of them run, or wait for their turn.

    Raises:
        HostError, JobFailed: one could not be started.
    """
    server, workers = job.processes[0], job.processes[1:]

    def begin(process: store.Process) -> None:
        start_agent(job.host(process), job.at(process))

    begin(server)
    queued = bool(job.after) and store.observe([job], detailed=True)[0].state is State.QUEUED
    if workers and not queued:  # when a queued job gets its turn, its workers look for the address themselves
        say(f"{server.name} started on {server.host}, waiting for its address")
        endpoint = _await_endpoint(job, server, float(config["conf"]["join_timeout"]))
        for site in job.sites:
            if site.address.host != server.host:
                there = RunPaths(Path(site.run_dir)).process(server.name)
                connect(site.address).put(endpoint, there.endpoint)
        say(f"starting {len(workers)} worker processes")
    in_parallel(begin, workers)
    status = _await_heartbeats(job)
    say(f"{job.job_name} waits for its turn" if status.state is State.QUEUED else "every process runs")


def start_agent(host: Host, process: ProcessPaths) -> None:
    """Start the agent of a process that is staged; harmless when it runs already.

    Raises:
        HostError: it ended at once; says what it said.
    """
    result = host.run(start_words(host.python, host.agent, process), START_TIMEOUT)
    if result.code:
        said = (result.err or result.out).strip()
        message = f"{host.name}: the agent of {process.folder.name} did not start: {said}"
        raise HostError(message, f"see {process.log}")


def start_words(python: str, agent: str, process: ProcessPaths) -> list[str]:
    """The command that starts the agent of a process that is staged."""
    return [python, "-I", agent, "start", str(process.folder)]


def _await_endpoint(job: Job, server: store.Process, timeout: float) -> bytes:
    """What rank 0 wrote about where it listens."""
    host, path = job.host(server), job.at(server).endpoint
    for status in _looks(job, timeout):
        if host.exists(path):
            return host.get(path)
        _check_none_ended(job, status, server.name)
    raise JobFailed(
        f"{server.name} on {server.host} did not say where it listens within {timeout:g} s",
        f"see {path.parent / 'log'}; a slow host needs a larger join_timeout",
    )


def _await_heartbeats(job: Job) -> JobStatus:
    for status in _looks(job, START_TIMEOUT):
        _check_none_ended(job, status)
        silent = [
            process.name for process in status.processes
            if process.heartbeat_age is None and process.state is not State.QUEUED and not process.state.final
        ]  # fmt: skip
        if not silent:
            return status
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
    with contextlib.suppress(KuiperError):
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
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(work, process) for process in processes]:
            done.result()
