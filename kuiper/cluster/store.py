"""The submitter's ledger: a job.json in every run directory, and a registry of the log_paths that have some.

The truth is on the hosts. What is read here is reconciled with them each time; only a final state is kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kuiper.cluster.files import locked, read_json, write_json
from kuiper.cluster.host import AT_ONCE, Address, Host, connect
from kuiper.cluster.identity import Identity, is_alive
from kuiper.cluster.paths import ProcessPaths, RunPaths, absolute, state_folder
from kuiper.cluster.site import Site
from kuiper.cluster.states import JobStatus, ProcessStatus, State, job_status, process_status
from kuiper.errors import HostError, KuiperError, UnknownJob

LOOK_TIMEOUT = 20.0
SHOWN = 10
"""Names that are offered in the place of an unknown one."""


@dataclass(frozen=True)
class Process:
    """One process of a job, as it was planned; its rank is its place in the list."""

    name: str
    host: str


@dataclass
class Job:
    """One run of a spec, with one seed.

    Attributes:
        run_dir: the run directory, absolute.
        mode: cluster or simulate.
        created: unix seconds.
        grace: seconds between TERM and KILL.
        sites: its place on each host.
        series: the name that the jobs of one submit share, one job per seed; "" for a job by itself.
        after: the run directories of those of them that come first; this one waits until they have ended.
        submitter: the process that submitted it, while it has not finished doing so.
        failure: why the submit gave up, if it did.
        seen: the last state of each process that was observed.
        final: {state, reason, evaluation, diverged}, once it is known and can change no more.
        spec_hash: the same for each run of the same experiment.
        retry_of: the run id that this one repeats, "" for a new one.
        smoke: whether it is a smoke test, two steps long.
    """

    run_dir: Path
    job_name: str
    run_id: str
    mode: str
    created: float
    grace: float
    processes: list[Process] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    series: str = ""
    after: list[str] = field(default_factory=list)
    submitter: Identity | None = None
    failure: str | None = None
    seen: dict[str, str] = field(default_factory=dict)
    final: dict[str, Any] | None = None
    spec_hash: str = ""
    retry_of: str = ""
    smoke: bool = False

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.run_dir)

    def site(self, process: Process) -> Site:
        """Where that process runs."""
        return next(site for site in self.sites if site.address.host == process.host)

    def host(self, process: Process) -> Host:
        """The host of that process."""
        return connect(self.site(process).address)

    def at(self, process: Process) -> ProcessPaths:
        """That process's folder on its host."""
        return RunPaths(Path(self.site(process).run_dir)).process(process.name)

    def folders(self, site: Site) -> list[str]:
        """Of this job's processes on one host."""
        return [str(self.at(process).folder) for process in self.processes if process.host == site.address.host]

    @property
    def first(self) -> str:
        """The run directory of the first job of the same submit."""
        return self.after[0] if self.after else str(self.run_dir)

    def save(self) -> None:
        """Write job.json."""
        write_json(self.paths.job, {**asdict(self), "run_dir": str(self.run_dir)})


def load(run_dir: Path) -> Job | None:
    """The job of a run directory, None when there is none."""
    value = read_json(RunPaths(run_dir).job)
    if value is None:
        return None
    try:
        processes = [Process(**process) for process in value.pop("processes")]
        sites = [Site(Address(**site["address"]), str(site["run_dir"])) for site in value.pop("sites")]
        job = Job(**{**value, "run_dir": run_dir, "processes": processes, "sites": sites})
    except (KeyError, TypeError, AttributeError):
        return None
    whole = isinstance(job.created, int | float) and isinstance(job.run_id, str) and processes
    return job if whole and isinstance(job.final, dict | None) else None


def register(log_path: Path) -> None:
    """Remember a log_path, so that its jobs are found from any folder."""
    path = state_folder() / "registry.json"
    with locked(path.with_suffix(".lock")):
        known = _registered()
        if str(log_path) not in known:
            write_json(path, {"log_paths": [*known, str(log_path)]})


def log_paths(extra: Iterable[str | Path] = ("logs",)) -> list[Path]:
    """The registered log_paths and `extra`, each once."""
    return list(dict.fromkeys(absolute(path) for path in (*_registered(), *extra)))


def _registered() -> list[str]:
    """As far as the registry can be read: it can be made again, from each folder that one submits from."""
    known = (read_json(state_folder() / "registry.json") or {}).get("log_paths", [])
    return [path for path in known if isinstance(path, str)] if isinstance(known, list) else []


def jobs(name: str = "*") -> list[Job]:
    """Every job on record, or those of one name, series or run id, the oldest first."""
    patterns = [f"{name}/*", f"*/{name}", f"{name}-seed*/*"] if name != "*" else ["*/*"]
    paths = [path for folder in log_paths() for one in patterns for path in folder.glob(f"{one}/job.json")]
    found = [load(path.parent) for path in paths]
    unique = {job.run_dir: job for job in found if job is not None}
    named = [job for job in unique.values() if name in ("*", job.job_name, job.series, job.run_id)]
    return sorted(named, key=lambda job: (job.created, job.run_id))


def damaged() -> list[Path]:
    """Records of runs that are there and cannot be read."""
    paths = [path for folder in log_paths() for path in folder.glob("*/*/job.json")]
    return [path for path in dict.fromkeys(paths) if load(path.parent) is None]


def find(key: str) -> list[Job]:
    """What was last submitted under that name, a job or one for each seed in their order; or by run id.

    Of each seed it is the last attempt. Smoke tests are found by run id, and by a name that has no other run.

    Raises:
        UnknownJob: there is none.
    """
    found = jobs(key) if key and not set(key) & set("*?[]/\0") else []
    if not found:
        raise UnknownJob(f"no job is called {key!r}, nor is that a run id", _instead_of(key))
    found = [job for job in found if not job.smoke or job.run_id == key] or found
    newest = found[-1]
    if newest.series != key:
        return [newest]
    begun = {job.run_id: job for job in found}
    last: dict[str, Job] = {}  # attempt by the run id of the first one
    for job in found:
        newest = job
        while newest.retry_of in begun:
            newest = begun[newest.retry_of]
        last[newest.run_id] = job
    same = [begun[run] for run in last if begun[run].first == newest.first]
    return [last[job.run_id] for job in sorted(same, key=lambda job: len(job.after))]


def _instead_of(key: str) -> str:
    """What to do about a job that is not there: names like it, or that its record is damaged."""
    if broken := [path for path in damaged() if key in path.parts]:
        return f"its record {broken[0]} is damaged: what it left is in {broken[0].parent}"
    known = jobs()
    names = list(dict.fromkeys(name for job in reversed(known) for name in (job.series, job.job_name) if name))
    runs = [job.run_id for job in known]
    begun = [run for run in runs if len(key) > 3 and run.startswith(key)]
    close = begun or difflib.get_close_matches(Path(key).name, [*names, *runs], n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close[-3:]))}?"
    if not known:
        return "nothing has been submitted yet; runs are looked for in " + ", ".join(map(str, log_paths()))
    more = "; `kuiper list --all` shows all" * (len(names) > SHOWN)
    return f"known, the newest first: {', '.join(names[:SHOWN])}{more}"


def observe(seen: Sequence[Job], detailed: bool = False) -> list[JobStatus]:
    """The state of each job now: one look per host for all of them, in parallel.

    Args:
        detailed: also look at the processes of jobs whose final state is known.
    """
    looked_at = [job for job in seen if detailed or job.final is None]
    folders: dict[Address, list[str]] = {}
    for job in looked_at:
        for site in job.sites:
            folders.setdefault(site.address, []).extend(job.folders(site))
    with ThreadPoolExecutor(min(AT_ONCE, len(folders) or 1)) as pool:
        reports = dict(zip(folders, pool.map(look, map(connect, folders), folders.values()), strict=True))
    return [_reconciled(job, reports if job in looked_at else None) for job in seen]


def look(host: Host, folders: Sequence[str]) -> dict[str, Any] | str:
    """What `agent.py look` reports of these folders of a host, or why it cannot be asked."""
    try:
        result = host.run([host.python, "-I", host.agent, "look", *folders], LOOK_TIMEOUT)
    except HostError as error:
        return error.message
    if result.code:
        return f"{host.name}: the agent cannot look: {result.err.strip()}"
    try:
        report: dict[str, Any] = result.answer()
    except ValueError:
        return f"{host.name}: the agent's answer cannot be read: {result.out.strip()[-200:]!r}"
    return report


def _reconciled(job: Job, reports: dict[Address, dict[str, Any] | str] | None) -> JobStatus:
    """The job's state from these reports by host; a final one is kept, and one that is now final is saved."""
    processes = []
    for process in job.processes if reports is not None else ():
        report = reports[job.site(process).address]
        if isinstance(report, str):
            last = State(job.seen.get(process.name, State.PLANNED))
            processes.append(ProcessStatus(process.name, process.host, last, report, reached=False))
            continue
        facts = report["folders"][str(job.at(process).folder)]
        processes.append(process_status(process.name, process.host, facts, report["boot_id"], report["time"]))
    seen = {process.name: process.state.value for process in processes}
    if reports is not None and seen != job.seen:
        job.seen = seen
        with suppress(KuiperError):  # a full disk
            job.save()
    if job.final is not None:
        return JobStatus(
            State(job.final["state"]), job.final["reason"], tuple(processes), job.final.get("evaluation"),
            job.final.get("diverged"),
        )  # fmt: skip
    submitting = is_alive(job.submitter)
    status = job_status(processes, submitting, job.failure)
    if status.state.final and status.reached and not status.alive and not submitting:
        job.final = {"state": status.state.value, "reason": status.reason, "evaluation": status.evaluation,
                     "diverged": status.diverged}
        with suppress(KuiperError):  # a full disk: it is looked at again next time
            job.save()
    return status
