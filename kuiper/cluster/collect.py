"""Bring what a job's processes have on record to the submitter's run directory, whole and checked."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kuiper.cluster.files import make_folder, write_bytes
from kuiper.cluster.host import AT_ONCE, LOCAL, connect
from kuiper.cluster.site import Site
from kuiper.cluster.store import Job
from kuiper.errors import HostError

TIMEOUT = 120.0
OWN = "config.yaml", "spec.yml", "job.json"
"""What the submitter's run directory has from the start."""


@dataclass
class Collected:
    """What came from one host.

    Attributes:
        files: that were brought; those that were here already, unchanged, are not among them.
        failure: what could not be done, '' if nothing.
    """

    host: str
    files: list[Path] = field(default_factory=list)
    bytes: int = 0
    failure: str = ""


def collect(job: Job) -> list[Collected]:
    """Logs, metrics, results and errors of every process, from all hosts at once; safe to repeat, and while it runs."""
    away = [site for site in job.sites if site.address.host != LOCAL]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_from, job), away))


def _from(job: Job, site: Site) -> Collected:
    found, host = Collected(site.address.host), connect(site.address)
    folders = [*job.folders(site), site.run_dir]
    try:
        done = host.run([host.python, "-I", host.agent, "digest", *folders], TIMEOUT)
        if done.code:
            raise HostError(f"{host.name}: the agent cannot read the run: {done.err.strip()[-300:]}", "")
        for folder, files in done.answer().items():
            for name, (size, digest) in files.items():
                if folder not in folders or Path(name).name != name:  # would lie outside the run directory
                    raise HostError(f"{host.name}: it offers {folder}/{name}, which is not of this run", "")
                here = job.run_dir / Path(folder).relative_to(site.run_dir) / name
                if here.name in OWN or here.exists() and hashlib.sha256(here.read_bytes()).hexdigest() == digest:
                    continue
                data = host.get(Path(folder) / name)[:size]  # a log grows meanwhile
                if hashlib.sha256(data).hexdigest() != digest:
                    raise HostError(f"{host.name}: {folder}/{name} changed while it was read", "")
                write_bytes(make_folder(here.parent) / name, data)
                found.files.append(here)
                found.bytes += size
    except HostError as error:
        found.failure = error.message
    except (ValueError, AttributeError, TypeError):
        found.failure = f"{host.name}: the agent's answer cannot be read: {done.out.strip()[-200:]!r}"
    return found
