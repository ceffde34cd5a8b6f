"""Start the agents of jobs that are staged: all of them, or nothing that lasts."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kuiper.cluster import agent, store
from kuiper.cluster.files import locked
from kuiper.cluster.host import connect
from kuiper.cluster.hostnames import not_reached
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.paths import ProcessPaths, RunPaths, state_folder
from kuiper.cluster.progress import Say
from kuiper.cluster.site import Site
from kuiper.cluster.states import JobStatus, ProcessStatus, State, process_status
from kuiper.cluster.stop import stop
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, HostError, JobFailed, KuiperError

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
def all_or_none(jobs: list[Job], say: Say) -> Iterator[None]:
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


def start_all(job: Job, config: Mapping[str, Any], say: Say) -> None:
    """Start the processes of a job; returns when all of them run, or wait for their turn.

    Raises:
        HostError, JobFailed: one could not be started.
    """
    server, workers = job.processes[0], job.processes[1:]
    start_agents(job, [server], say)
    endpoint = b""
    if workers:
        endpoint = _await_endpoint(job, server, float(config["conf"]["join_timeout"]))

    def begin(site: Site) -> None:
        name = site.address.host
        if endpoint and name != server.host:
            connect(site.address).put(endpoint, RunPaths(Path(site.run_dir)).process(server.name).endpoint)
        start_agents(job, [process for process in workers if process.host == name], say)

    in_parallel(begin, job.sites)
    status = _await_heartbeats(job)
    for name in (site.address.host for site in job.sites):
        states = Counter(process.state.value for process in status.processes if process.host == name)
        say(", ".join(f"{state} ({count})" for state, count in states.items()), name)
    say(f"{job.job_name} waits for its turn" if status.state is State.QUEUED else "every process runs")


def start_agents(job: Job, processes: Sequence[store.Process], say: Say) -> None:
    """Start the agents of processes of one host that are staged; harmless for those that run already.

    Raises:
        HostError: one ended at once, or the server cannot be reached from there; says what it said.
        ConflictError: none of its `ports` is free.
    """
    if not processes:
        return
    host, paths = job.host(processes[0]), [job.at(process) for process in processes]
    result = host.run(start_words(host.python, host.agent, paths), START_TIMEOUT)
    names = ", ".join(process.name for process in processes)
    if result.code:
        said = f"{host.name}: starting {names} failed: {(result.err or result.out).strip()}"
        if result.code == agent.PORTS_TAKEN:
            raise ConflictError(said, "give job_conf.ports a range with a free port for each seed")
        if result.code == agent.NOT_REACHED:
            _check_none_ended(job, store.observe([job], detailed=True)[0].processes[:1])  # nobody listens where the server is dead
            raise HostError(said, not_reached(job.processes[0].host, said))
        raise HostError(said, f"see the logs in {paths[0].folder.parent} there")
    say(f"{names} started", host.name)


def start_words(python: str, agent_path: str, processes: Sequence[ProcessPaths]) -> list[str]:
    """The command that starts the agents of processes that are staged."""
    return [python, "-I", agent_path, "start", *(str(each.folder) for each in processes)]


def _await_endpoint(job: Job, server: store.Process, timeout: float) -> bytes:
    """What rank 0 wrote about where it listens."""
    host, own, deadline = job.host(server), job.at(server), time.monotonic() + timeout
    while True:
        report = store.look(host, [str(own.folder)])
        if isinstance(report, str):
            raise HostError(report, "submit again once it can be reached")
        facts = report["folders"][str(own.folder)]
        seen = process_status(server.name, server.host, facts, report["boot_id"], report["time"])
        _check_none_ended(job, [seen])
        if facts["endpoint"]:
            return json.dumps(facts["endpoint"]).encode()
        if time.monotonic() > deadline:
            message = f"{server.name} on {server.host} did not say where it listens within {timeout:g} s"
            raise JobFailed(message, f"see {own.log}; a slow host needs a larger join_timeout")
        time.sleep(POLL)


def _await_heartbeats(job: Job) -> JobStatus:
    for status in _looks(job, START_TIMEOUT):
        _check_none_ended(job, status.processes)
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


def _check_none_ended(job: Job, processes: Iterable[ProcessStatus]) -> None:
    """A worker that somebody killed is the job's to survive or not; one that failed is a wrong start.

    Args:
        processes: some of the job's, rank 0 first.
    """
    for place, process in enumerate(processes):
        killed = place > 0 and process.reason.startswith("signal ")
        if process.state.final and process.state is not State.SUCCEEDED and not killed:
            why = process.reason or process.state.lower()
            message = f"{process.name} on {process.host} ended at its start: {why}"
            raise JobFailed(message, f"see {job.paths.process(process.name).log}")


def _roll_back(job: Job, error: BaseException, say: Say) -> None:
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
