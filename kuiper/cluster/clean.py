"""Remove what finished jobs have left: old runs, code that no run needs, processes of a dead job."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from kuiper.cluster import inventory, store
from kuiper.cluster.files import locked
from kuiper.cluster.host import AT_ONCE, LOCAL, Address, connect
from kuiper.cluster.identity import is_alive
from kuiper.cluster.paths import code_folder, state_folder
from kuiper.cluster.states import JobStatus
from kuiper.cluster.stop import stop
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, HostError, KuiperError

TIMEOUT = 120.0
GRACE = 2.0
ASIDE = 'mv -T -- "$1" "$2" || test ! -e "$1"'
"""That a folder is gone already is as good: another host may share it, another `clean` be at work."""
T = TypeVar("T")


@dataclass(frozen=True)
class Old:
    """A run that ended long ago.

    Attributes:
        age: seconds since then.
        bytes: on all its hosts.
    """

    job: Job
    state: str
    age: float
    bytes: int


@dataclass(frozen=True)
class Unused:
    """Code on a host that no run there needs, but perhaps some that are to go.

    Attributes:
        age: seconds since it was brought, or since a submit last took it.
    """

    address: Address
    folder: str
    bytes: int
    age: float


@dataclass(frozen=True)
class Leftover:
    """Processes that carry the marker of a run of which nothing else is alive."""

    job: Job
    host: str
    pids: list[int]


@dataclass
class Rubbish:
    """What may go.

    Attributes:
        strangers: run ids of living processes, by host, of which there is no record here: left alone.
        failures: hosts that could not be asked.
        elsewhere: log_paths of other runs on record, which were not looked at.
    """

    runs: list[Old] = field(default_factory=list)
    code: list[Unused] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    strangers: dict[str, list[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def find_rubbish(older_than: float, log_path: Path | None = None) -> Rubbish:
    """Ask every host that a job on record was on; changes nothing.

    Args:
        older_than: seconds since a run ended, or since code was brought.
        log_path: only of runs in it, and of hosts that they were on; None: of all.
    """
    everything, found = store.jobs(), Rubbish()
    jobs = [job for job in everything if log_path is None or job.run_dir.parent.parent == log_path]
    found.elsewhere = sorted({str(job.run_dir.parent.parent) for job in everything if job not in jobs})
    statuses = store.observe(jobs, detailed=True)
    here = [_of_log_path(path) for path in {*store.log_paths(), *(job.run_dir.parent.parent for job in jobs)}]
    addresses = list(dict.fromkeys([*(site.address for job in jobs for site in job.sites), *here]))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = dict(zip(addresses, pool.map(_inventory, addresses), strict=True))
    found.failures = [report for report in reports.values() if isinstance(report, str)]
    there = {address: report for address, report in reports.items() if not isinstance(report, str)}
    known = {job.run_id for job in everything}
    going = set()
    for job, status in zip(jobs, statuses, strict=True):
        if not _over(job, status) or any(site.address not in there for site in job.sites):
            continue
        for site in job.sites:
            if pids := there[site.address]["marked"].get(job.run_id):
                found.leftovers.append(Leftover(job, site.address.host, pids))
        age = time.time() - max([one.ended for one in status.processes if one.ended], default=job.created)
        if age >= older_than and all(_as_laid_out(job, site) for site in job.sites):
            away = [there[site.address]["runs"].get(site.run_dir) for site in job.sites]
            each = {tuple(about["file"]): about["bytes"] for about in away if about}  # hosts may share it
            bytes_here = inventory.size(str(job.run_dir))
            found.runs.append(Old(job, status.state.value, age, sum(each.values()) + bytes_here))
            going |= {site.run_dir for site in job.sites}
    seen = set()
    for address, report in there.items():
        for folder, about in report["code"].items():
            same = tuple(about["file"])  # hosts that share it all list it
            if same not in seen and about["age"] >= older_than and going.issuperset(about["users"]):
                seen.add(same)
                found.code.append(Unused(address, folder, about["bytes"], about["age"]))
        whole = address.host != LOCAL or not address.base  # not only a log_path
        if whole and (strangers := sorted(set(report["marked"]) - known)):
            found.strangers[address.host] = strangers
    return found


def _of_log_path(log_path: Path) -> Address:
    """This machine, with a log_path as kuiper's folder."""
    return Address(LOCAL, base=str(log_path))


def _inventory(address: Address) -> dict[str, Any] | str:
    """What inventory.py reports of a host, or why it cannot be asked."""
    base = PurePosixPath(address.base or "/nonexistent")
    folders = (code_folder(Path(base)), base) if address.host == LOCAL else (base / "code", base / "runs")
    try:
        host = connect(address)
        source = Path(inventory.__file__).read_text()
        words = [host.python, "-I", "-c", source, *map(str, folders)]
        done = host.run(words, TIMEOUT)
    except HostError as error:
        return error.message
    if done.code:
        return f"{address.host}: cannot be looked through: {done.err.strip()[-200:]}"
    report: dict[str, Any] = json.loads(done.out)
    return report


def _over(job: Job, status: JobStatus) -> bool:
    """Whether it has ended on every host for sure."""
    return status.state.final and status.reached and not status.alive and not is_alive(job.submitter)


def _as_laid_out(job: Job, site: store.Site) -> bool:
    """Whether a run directory on another host is where kuiper makes them: nothing else is ever removed."""
    expected = PurePosixPath(site.address.base, "runs", job.job_name, job.run_id)
    return site.address.host == LOCAL or PurePosixPath(site.run_dir) == expected


def remove(found: Rubbish) -> list[str]:
    """End the leftovers, then remove the runs, then the code; returns what could not be done.

    All of it is looked at once more before it is touched: a run may have been resumed meanwhile.
    """
    jobs = list({leftover.job.run_id: leftover.job for leftover in found.leftovers}.values())
    failures = _each(_end, jobs) + _each(_remove_run, found.runs)
    addresses = list(dict.fromkeys(one.address for one in found.code))
    return failures + _each(lambda address: _remove_code(address, found.code), addresses)


def _each(work: Callable[[T], None], things: Sequence[T]) -> list[str]:
    """Do it to all at once; what failed."""

    def attempt(thing: T) -> str:
        try:
            work(thing)
        except KuiperError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [failure for failure in pool.map(attempt, things) if failure]


def _still_over(job: Job) -> bool:
    """Also if another `clean` has removed it meanwhile."""
    now = store.load(job.run_dir)
    if now is None:
        return not job.run_dir.exists()
    return _over(now, store.observe([now], detailed=True)[0])


def _end(job: Job) -> None:
    if _still_over(job):
        stop(job, GRACE)


def _remove_run(old: Old) -> None:
    """The hosts' folders first: the submitter forgets a run only once nothing of it is left."""
    job = old.job
    with locked(state_folder() / "locks" / job.job_name):
        if not _still_over(job):
            raise ConflictError(f"{job.job_name} {job.run_id} is going on again: it stays", "")
        for site in job.sites:
            if site.address.host != LOCAL:
                _run(site.address, "rm", "-rf", "--", site.run_dir)
                connect(site.address).run(["rmdir", "--", str(PurePosixPath(site.run_dir).parent)], TIMEOUT)
        try:
            for path in list(job.run_dir.glob("*")):  # none, if another `clean` was faster
                if path != job.paths.job:  # the ledger goes last: what is interrupted can be done again
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            if job.run_dir.exists():
                shutil.rmtree(job.run_dir)
        except OSError as error:
            raise KuiperError(f"cannot remove {job.run_dir}: {error.strerror or error}") from error
        with suppress(OSError):
            job.run_dir.parent.rmdir()  # unless other runs of that name are there


def _remove_code(address: Address, code: Sequence[Unused]) -> None:
    """What is unused now. Moved away first: code that is there is taken to be whole."""
    report = _inventory(address)
    if isinstance(report, str):
        raise HostError(report)
    for one in code:
        still = report["code"].get(one.folder) if one.address == address else None
        if still and not still["users"] and still["age"] >= one.age:  # else a submit has just taken it
            place = PurePosixPath(one.folder)
            aside = str(place.with_name(f".{secrets.token_hex(4)}.gone"))
            _run(address, "sh", "-c", ASIDE, "sh", one.folder, aside)
            _run(address, "rm", "-rf", "--", aside)


def _run(address: Address, *words: str) -> None:
    done = connect(address).run(words, TIMEOUT)
    if done.code:
        raise HostError(f"{address.host}: {words[0]} failed: {done.err.strip()[-300:]}", "")
