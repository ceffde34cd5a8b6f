"""The code that an earlier run was started with: found again on each of its hosts, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from kuiper.cluster.files import read_json
from kuiper.cluster.host import LOCAL, connect
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.progress import Say
from kuiper.cluster.snapshot import ENTRY, changes, is_whole, pack
from kuiper.cluster.store import Job
from kuiper.errors import KuiperError, SpecError

Orders = Mapping[str, Mapping[str, Any]]
REMEDY = "submit the job again: that runs the code as it is now"


def code_folders(job: Job, orders: Orders) -> dict[str, Path]:
    """Where each host has the code that a run was started with.

    Args:
        orders: agent.json by the process's name.

    Raises:
        SpecError: it is gone from one, or was changed there.
        HostError: one cannot be reached.
    """
    folders = {process.host: Path(orders[process.name]["cwd"]) for process in job.processes}
    addresses = {site.address.host: site.address for site in job.sites}
    digest = record_of(job).get("digest", "")

    def check(name: str) -> None:
        folder, where = folders[name], f"{name}: the code that {job.run_id} ran"
        if not connect(addresses[name]).exists(PurePosixPath(folder) / ENTRY):
            raise SpecError(f"{where} is gone from {folder}", REMEDY)
        if name == LOCAL and not is_whole(folder, digest):
            raise SpecError(f"{where}, {digest}, is not what is in {folder} now", REMEDY)

    in_parallel(check, folders)
    return folders


def record_of(job: Job) -> Mapping[str, Any]:
    """What a run has on record of its code (see `Snapshot.record`); empty if that is gone."""
    return read_json(job.paths.code) or {}


def say_changes(job: Job, allow: list[str], say: Say) -> None:
    """Tell that the code here is another one now than what a run was started with, and goes on with."""
    old = record_of(job)
    beside = old.get("beside")
    with suppress(KuiperError, OSError):  # the spec's folder may be gone
        now = pack(Path(beside) if beside else None, allow, [job.run_dir.parent.parent]).record
        if old and old["digest"] != now["digest"]:
            changed = len(changes(old, now))
            say(f"the code here has changed since {job.run_id}, in {changed} file{'s' * (changed != 1)}: "
                "this run has the code of then")
